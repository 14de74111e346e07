//! Checks name servers, certificate authorities and egress rules before the start.

use super::dns::{Dns, DnsError};
use super::egress::{AllowRule, Allowed, METADATA, Net};
use super::exchange::Config;
use super::tls;
use crate::base::finding::Finding;
use crate::model::team::HttpPolicy;

/// A name that exists nowhere (RFC 2606), so the right answer is "no such name". It is not under `.invalid`, because
/// our resolver answers such names by itself.
const NOWHERE: &str = "callbackd-check.example";
/// A rule for a wider block than this is probably a mistake.
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
        Err(why) => Finding::failed(
            "certificate authorities",
            why.to_string(),
            "correct egress.ca_file: it must hold one or more certificates in PEM",
        ),
    });
    found.extend(egress(http, rules));
    found
}

async fn names(config: &Config) -> Finding {
    let dns = match Dns::new(&config.dns) {
        Ok(dns) => dns,
        Err(why) => return Finding::failed("dns", why.to_string(), "name the servers in dns.servers"),
    };
    match dns.lookup(NOWHERE, tokio::time::Instant::now() + config.deadlines.dns).await {
        Err(DnsError::NotFound) => Finding::ok("dns", "the name servers answer"),
        Ok(_) => Finding::warning(
            "dns",
            "the name servers have an address for a name that does not exist",
            "use other name servers: with these, callbacks to names that do not exist go to a stranger's host",
        ),
        Err(error) => Finding::failed("dns", error.to_string(), "correct dns.servers, or the system's resolver"),
    }
}

fn egress(http: HttpPolicy, rules: &[AllowRule]) -> Vec<Finding> {
    let mut found = Vec::new();
    if http == HttpPolicy::Allow {
        found.push(Finding::warning(
            "egress, http",
            "http:// URLs are called: their body and callback auth key are sent unencrypted",
            "set egress.http = \"hmac-only\", which refuses http where the key would be sent; a team may be stricter",
        ));
    }
    let wide = Net::parse(WIDE_V4).expect("the constant is a block");
    for rule in rules {
        let Allowed::Net(net) = &rule.what else { continue };
        let metadata = METADATA.iter().find(|address| net.contains(**address));
        if let Some(address) = metadata.filter(|_| net.is_single()) {
            found.push(Finding::warning(
                "egress, rules",
                format!(
                    "a rule allows {address}, a cloud's metadata service, which gives credentials to everyone who asks"
                ),
                "remove the rule unless you need it",
            ));
        } else if net.is_wider_than(&wide) {
            found.push(Finding::warning(
                "egress, rules",
                format!("a rule allows a whole {}", net.size()),
                "name only the networks of your receivers",
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
    fn wide_rules_and_metadata_are_reported() {
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
