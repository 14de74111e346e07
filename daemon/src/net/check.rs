//! A look at name servers, certificate authorities and egress rules before the start.

use super::dns::{Dns, DnsError};
use super::egress::{AllowRule, Allowed, METADATA, Net};
use super::exchange::Config;
use super::tls;
use crate::base::finding::Finding;
use crate::model::team::HttpPolicy;

/// A name that exists nowhere (RFC 2606): whoever answers "no such name" works. Not under `.invalid`, which our
/// resolver answers by itself.
const NOWHERE: &str = "callbackd-check.example";
/// Blocks wider than this are hardly meant.
const WIDE_V4: &str = "10.0.0.0/8";

pub async fn check(config: &Config, http: HttpPolicy, rules: &[AllowRule]) -> Vec<Finding> {
    let mut found = vec![names(config).await];
    found.push(match tls::connector(config.ca_file.as_deref(), config.http2) {
        Ok(_) => Finding::ok(
            "certificate authorities",
            match &config.ca_file {
                None => "the web's".to_owned(),
                Some(path) => format!("the web's, and those in {}", path.display()),
            },
        ),
        Err(why) => {
            Finding::failed("certificate authorities", why, "mend egress.ca_file: PEM, one certificate or more")
        }
    });
    found.extend(egress(http, rules));
    found
}

async fn names(config: &Config) -> Finding {
    let dns = match Dns::new(&config.dns) {
        Ok(dns) => dns,
        Err(why) => return Finding::failed("dns", why, "name the servers in dns.servers"),
    };
    match tokio::time::timeout(config.deadlines.dns, dns.lookup(NOWHERE)).await {
        Ok(Err(DnsError::NotFound)) => Finding::ok("dns", "the name servers answer"),
        Ok(Ok(_)) => Finding::warning(
            "dns",
            "the name servers have an address for a name that does not exist",
            "use name servers that tell the truth: callbacks to dead hosts would go to whoever answers",
        ),
        Ok(Err(error)) => Finding::failed("dns", error.to_string(), "mend dns.servers, or the system's resolver"),
        Err(_) => Finding::failed("dns", DnsError::Timeout.to_string(), "mend dns.servers, or the system's resolver"),
    }
}

fn egress(http: HttpPolicy, rules: &[AllowRule]) -> Vec<Finding> {
    let mut found = Vec::new();
    if http == HttpPolicy::Allow {
        found.push(Finding::warning(
            "egress, http",
            "http:// URLs are called: there, body and callback auth key travel in clear",
            "egress.http = \"hmac-only\" refuses it where the key would travel; teams may say so for themselves",
        ));
    }
    let wide = Net::parse(WIDE_V4).expect("a block that reads");
    for rule in rules {
        let Allowed::Net(net) = &rule.what else { continue };
        let metadata = METADATA.iter().find(|address| net.contains(**address));
        if let Some(address) = metadata.filter(|_| net.is_single()) {
            found.push(Finding::warning(
                "egress, rules",
                format!("a rule allows {address}, a cloud's metadata service: it gives credentials to whoever asks"),
                "take the rule away unless that is meant",
            ));
        } else if net.is_wider_than(&wide) {
            found.push(Finding::warning(
                "egress, rules",
                format!("a rule allows a whole {}", net.size()),
                "name the networks that receivers are in",
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok("egress, rules", format!("{} exceptions, none of them wide", rules.len())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::finding::Verdict;

    #[test]
    fn wide_rules_and_metadata_are_told() {
        let rule = |net: &str| AllowRule {
            what: Allowed::Net(Net::parse(net).expect("a net")),
            ports: Vec::new(),
            teams: Vec::new(),
        };
        let verdicts = |http, rules: &[AllowRule]| -> Vec<Verdict> {
            egress(http, rules).into_iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(HttpPolicy::Refuse, &[rule("10.20.0.0/16")]), [Verdict::Ok]);
        assert_eq!(verdicts(HttpPolicy::Refuse, &[rule("0.0.0.0/0")]), [Verdict::Warning]);
        assert_eq!(verdicts(HttpPolicy::Refuse, &[rule("169.254.169.254")]), [Verdict::Warning]);
        assert_eq!(verdicts(HttpPolicy::Allow, &[]), [Verdict::Warning]);
    }
}
