//! How the connection to the brokers is protected, judged from the settings alone. What is weak is reported before the
//! start and at the start; nothing is refused, since only the operator knows the network.

use super::Config;
use crate::base::finding::Finding;

const WHAT: &str = "kafka, security";
/// What librdkafka reads as "no".
const NO: [&str; 3] = ["false", "f", "0"];

/// One warning for each weakness, and one `ok` if there is none.
pub fn check(config: &Config) -> Vec<Finding> {
    let weaknesses = [protocol(config), certificates(config), names(config), tokens(config)];
    let found: Vec<_> = weaknesses.into_iter().flatten().collect();
    if found.is_empty() { vec![Finding::ok(WHAT, "nothing weakens the connection to the brokers")] } else { found }
}

fn protocol(config: &Config) -> Option<Finding> {
    // Without the property, the client library speaks plaintext.
    let protocol = property(config, "security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
    let outside: Vec<_> = brokers(config).filter(|broker| !is_loopback(broker)).collect();
    match protocol.as_str() {
        "plaintext" if !outside.is_empty() => Some(Finding::warning(
            WHAT,
            format!(
                "the connection to {} is not encrypted: everybody on the way can read and change events",
                outside[0]
            ),
            "set \"security.protocol\" = \"sasl_ssl\" (or \"ssl\") in kafka.properties, and the brokers' port for TLS",
        )),
        "sasl_plaintext" => Some(Finding::warning(
            WHAT,
            "the login to the brokers, and every event, is sent without encryption (sasl_plaintext)",
            "set \"security.protocol\" = \"sasl_ssl\" in kafka.properties, and the brokers' port for TLS",
        )),
        _ => None,
    }
}

fn certificates(config: &Config) -> Option<Finding> {
    let off = property(config, "enable.ssl.certificate.verification").is_some_and(is_no);
    off.then(|| {
        Finding::warning(
            WHAT,
            "the brokers' certificates are not checked: anybody on the way can pretend to be a broker",
            "remove enable.ssl.certificate.verification from kafka.properties, and name the authority of the brokers' \
             certificates in ssl.ca.location",
        )
    })
}

fn names(config: &Config) -> Option<Finding> {
    let off = property(config, "ssl.endpoint.identification.algorithm")?.eq_ignore_ascii_case("none");
    off.then(|| {
        Finding::warning(
            WHAT,
            "the names in the brokers' certificates are not checked: a certificate of another host is accepted",
            "remove ssl.endpoint.identification.algorithm from kafka.properties, and let the brokers' certificates name \
             the hosts of kafka.brokers",
        )
    })
}

fn tokens(config: &Config) -> Option<Finding> {
    let on = !is_no(property(config, "enable.sasl.oauthbearer.unsecure.jwt")?);
    on.then(|| {
        Finding::warning(
            WHAT,
            "the login uses tokens without a signature (enable.sasl.oauthbearer.unsecure.jwt), which anybody can make",
            "remove enable.sasl.oauthbearer.unsecure.jwt from kafka.properties",
        )
    })
}

fn property<'c>(config: &'c Config, name: &str) -> Option<&'c str> {
    config.properties.get(name).map(|value| value.trim())
}

fn is_no(value: &str) -> bool {
    NO.iter().any(|no| no.eq_ignore_ascii_case(value))
}

fn brokers(config: &Config) -> impl Iterator<Item = &str> {
    config.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty())
}

/// Whether a broker, `host:port` or `protocol://host:port`, is on this machine. Any other name counts as outside.
fn is_loopback(broker: &str) -> bool {
    let rest = broker.rsplit_once("://").map_or(broker, |(_, rest)| rest);
    let host = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, _)) => inner,
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Tombstones;
    use super::*;
    use crate::base::finding::Verdict;

    fn config(brokers: &str, properties: &[(&str, &str)]) -> Config {
        Config {
            brokers: brokers.to_owned(),
            group: "g".to_owned(),
            member: None,
            topics: vec!["t".to_owned()],
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            max_event_bytes: 1,
            window: 1,
            tombstones: Tombstones::Skip,
            rebalance_grace: Duration::from_secs(1),
        }
    }

    #[test]
    fn each_weakness_is_a_warning_with_its_fix() {
        let (inside, outside) = ("127.0.0.1:9092", "kafka-1.example:9092");
        let tls = ("security.protocol", "SASL_SSL");
        for (brokers, properties, warnings) in [
            (inside, vec![], 0),
            ("localhost:1,[::1]:2,PLAINTEXT://127.0.0.2:3", vec![], 0),
            (outside, vec![], 1),
            ("127.0.0.1:9092, kafka-1.example:9092", vec![], 1),
            ("127.0.0.1.example:9092", vec![], 1),
            (outside, vec![("security.protocol", "PLAINTEXT")], 1),
            (outside, vec![("security.protocol", "sasl_plaintext")], 1),
            (inside, vec![("security.protocol", "SASL_PLAINTEXT")], 1),
            (outside, vec![tls], 0),
            (outside, vec![("security.protocol", "ssl")], 0),
            (outside, vec![tls, ("enable.ssl.certificate.verification", "false")], 1),
            (outside, vec![tls, ("enable.ssl.certificate.verification", "F")], 1),
            (outside, vec![tls, ("enable.ssl.certificate.verification", "0")], 1),
            (outside, vec![tls, ("enable.ssl.certificate.verification", "true")], 0),
            (outside, vec![tls, ("ssl.endpoint.identification.algorithm", "none")], 1),
            (outside, vec![tls, ("ssl.endpoint.identification.algorithm", "https")], 0),
            (outside, vec![tls, ("enable.sasl.oauthbearer.unsecure.jwt", "true")], 1),
            (
                outside,
                vec![
                    ("enable.ssl.certificate.verification", "false"),
                    ("ssl.endpoint.identification.algorithm", "NONE"),
                ],
                3,
            ),
        ] {
            let found = check(&config(brokers, &properties));
            let warned: Vec<_> = found.iter().filter(|finding| finding.verdict == Verdict::Warning).collect();
            assert_eq!(warned.len(), warnings, "{brokers} {properties:?}: {found:?}");
            assert!(warned.iter().all(|finding| finding.fix.is_some()), "{found:?}");
            assert_eq!(found.iter().any(|finding| finding.verdict == Verdict::Ok), warnings == 0, "{found:?}");
        }
    }

    #[test]
    fn what_loads_code_or_runs_a_program_is_refused() {
        for name in ["plugin.library.paths", "ssl.engine.location", "ssl.providers", "sasl.kerberos.kinit.cmd"] {
            let refused = super::super::settings::check(&config("127.0.0.1:1", &[(name, "x")]));
            assert!(refused.is_err_and(|why| why.starts_with(&format!("{name} can't be set: it "))), "{name}");
        }
    }
}
