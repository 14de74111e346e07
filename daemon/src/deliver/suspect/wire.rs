//! What the process of a suspect's attempt is told, a line of JSON with the body behind it, and what it answers: a line that
//! says that it begins, and a line of JSON with the exchange.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::team::HttpPolicy;
use crate::net::dial::Deadlines;
use crate::net::dns;
use crate::net::egress::{AllowRule, Allowed, Net, Policy};
use crate::net::exchange::{Config, Exchange, Outgoing};
use crate::net::target::{Target, TargetHost};

/// The line with which an answer begins. A process that ends before it has not begun its attempt.
pub(super) const BEGUN: &[u8] = b"begun\n";

/// Everything about one attempt but its body. It has no `Debug`, because keys are among the headers.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    team: String,
    target: WireTarget,
    headers: Vec<(String, Vec<u8>)>,
    policy: WirePolicy,
    client: WireClient,
    /// The wall clock, in milliseconds since 1970.
    now: i64,
    /// What is left until the attempt's deadline.
    pub(super) left: Duration,
}

#[derive(Serialize, Deserialize)]
struct WireTarget {
    https: bool,
    host: String,
    port: u16,
    /// The address, if the host is none that is looked up.
    address: Option<IpAddr>,
    path: String,
}

#[derive(Serialize, Deserialize)]
struct WirePolicy {
    allow: Vec<WireRule>,
    never: Vec<SocketAddr>,
    own: Vec<IpAddr>,
    nat64: Vec<String>,
    http: String,
}

#[derive(Serialize, Deserialize)]
struct WireRule {
    what: WireAllowed,
    ports: Vec<u16>,
    teams: Vec<String>,
}

#[derive(Serialize, Deserialize)]
enum WireAllowed {
    Net(String),
    Host(String),
}

#[derive(Serialize, Deserialize)]
struct WireClient {
    dns: Duration,
    connect: Duration,
    tls: Duration,
    head: Duration,
    total: Duration,
    servers: Vec<SocketAddr>,
    http2: bool,
    ca_file: Option<PathBuf>,
}

/// The exchange, as the process had it.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    outcome: String,
    hopeless: bool,
    sent: bool,
    status: Option<u16>,
    retry_after: Option<Duration>,
    peer: Option<SocketAddr>,
    redialed: bool,
    snippet: Vec<u8>,
}

/// What an order makes.
pub(super) struct Ordered {
    pub(super) outgoing: Outgoing,
    pub(super) policy: Policy,
    pub(super) client: Config,
    pub(super) now: Timestamp,
}

impl Order {
    pub(super) fn new(outgoing: &Outgoing, policy: &Policy, client: &Config, now: Timestamp, left: Duration) -> Self {
        let headers = outgoing
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        Self {
            team: outgoing.team.to_string(),
            target: WireTarget::of(&outgoing.target),
            headers,
            policy: WirePolicy::of(policy),
            client: WireClient::of(client),
            now: now.millis(),
            left,
        }
    }

    /// What it says, for this body. `None` if it makes no sense, which no order of this program does.
    pub(super) fn open(self, body: Bytes) -> Option<Ordered> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in self.headers {
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(&value).ok()?);
        }
        let outgoing = Outgoing { team: self.team.into(), target: self.target.open(), headers, body };
        let now = Timestamp::from_millis(self.now);
        Some(Ordered { outgoing, policy: self.policy.open()?, client: self.client.open(), now })
    }
}

impl WireTarget {
    fn of(target: &Target) -> Self {
        let Origin { https, host, port } = &target.origin;
        let address = match &target.host {
            TargetHost::Address(address) => Some(*address),
            TargetHost::Name(_) => None,
        };
        let path = target.path.expose_secret().to_owned();
        Self { https: *https, host: host.to_string(), port: *port, address, path }
    }

    fn open(self) -> Target {
        let host = match self.address {
            Some(address) => TargetHost::Address(address),
            None => TargetHost::Name(self.host.as_str().into()),
        };
        let origin = Origin { https: self.https, host: self.host.into(), port: self.port };
        // A user and password of the URL are among the headers already.
        Target { origin, host, path: self.path.into(), authorization: None }
    }
}

impl WirePolicy {
    fn of(policy: &Policy) -> Self {
        let rule = |rule: &AllowRule| {
            let what = match &rule.what {
                Allowed::Net(net) => WireAllowed::Net(net.to_string()),
                Allowed::Host(host) => WireAllowed::Host(host.clone()),
            };
            WireRule { what, ports: rule.ports.clone(), teams: rule.teams.clone() }
        };
        Self {
            allow: policy.allow.iter().map(rule).collect(),
            never: policy.never.clone(),
            own: policy.own.clone(),
            nat64: policy.nat64.iter().map(ToString::to_string).collect(),
            http: policy.http.name().to_owned(),
        }
    }

    fn open(self) -> Option<Policy> {
        let mut allow = Vec::with_capacity(self.allow.len());
        for rule in self.allow {
            let what = match rule.what {
                WireAllowed::Net(net) => Allowed::Net(Net::parse(&net)?),
                WireAllowed::Host(host) => Allowed::Host(host),
            };
            allow.push(AllowRule { what, ports: rule.ports, teams: rule.teams });
        }
        let nat64 = self.nat64.iter().map(|net| Net::parse(net)).collect::<Option<Vec<_>>>()?;
        let http = HttpPolicy::parse(&self.http)?;
        Some(Policy { allow, never: self.never, own: self.own, nat64, http, generation: 1 })
    }
}

impl WireClient {
    fn of(config: &Config) -> Self {
        let Deadlines { dns, connect, tls, head, total } = config.deadlines;
        let (servers, ca_file) = (config.dns.servers.clone(), config.ca_file.clone());
        Self { dns, connect, tls, head, total, servers, http2: config.http2, ca_file }
    }

    fn open(self) -> Config {
        let Self { dns, connect, tls, head, total, servers, http2, ca_file } = self;
        let deadlines = Deadlines { dns, connect, tls, head, total };
        // One attempt looks up one name.
        Config { deadlines, dns: dns::Config { servers, cache_entries: 1 }, http2, ca_file }
    }
}

impl Answer {
    pub(super) fn of(exchange: &Exchange) -> Self {
        Self {
            outcome: exchange.outcome.name().to_owned(),
            hopeless: exchange.hopeless,
            sent: exchange.sent,
            status: exchange.status,
            retry_after: exchange.retry_after,
            peer: exchange.peer,
            redialed: exchange.redialed,
            snippet: exchange.snippet.to_vec(),
        }
    }

    pub(super) fn open(self) -> Option<Exchange> {
        Some(Exchange {
            outcome: Outcome::parse(&self.outcome)?,
            hopeless: self.hopeless,
            sent: self.sent,
            status: self.status,
            retry_after: self.retry_after,
            peer: self.peer,
            redialed: self.redialed,
            snippet: self.snippet.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() {
        for url in ["https://hooks.example/x?y=1", "http://127.0.0.1:8080/", "https://[2001:4860::1]:8443/%20z"] {
            let mut headers = HeaderMap::new();
            headers.insert("x-one", HeaderValue::from_bytes(b"caf\xe9").unwrap());
            headers.append("x-two", HeaderValue::from_static("1"));
            headers.append("x-two", HeaderValue::from_static("2"));
            let target = Target::parse(url).unwrap();
            let outgoing = Outgoing { team: "team".into(), target, headers, body: Bytes::from_static(b"{\n}") };
            let rule = |what| AllowRule { what, ports: vec![443], teams: vec!["team".to_owned()] };
            let allow = vec![
                rule(Allowed::Net(Net::parse("10.0.0.0/8").unwrap())),
                rule(Allowed::Net(Net::parse("fd00::1").unwrap())),
                rule(Allowed::Host("hooks.example".to_owned())),
            ];
            let policy = Policy {
                allow,
                never: vec!["127.0.0.1:9092".parse().unwrap()],
                own: vec!["192.0.2.1".parse().unwrap()],
                nat64: vec![Net::parse("64:ff9b::/96").unwrap()],
                http: HttpPolicy::HmacOnly,
                generation: 1,
            };
            let second = Duration::from_secs(1);
            let deadlines =
                Deadlines { dns: second, connect: second * 2, tls: second * 3, head: second, total: second };
            let dns = dns::Config { servers: vec!["192.0.2.53:53".parse().unwrap()], cache_entries: 1 };
            let client = Config { deadlines, dns, http2: true, ca_file: Some("/ca.pem".into()) };
            let now = Timestamp::from_millis(7);
            let line = serde_json::to_vec(&Order::new(&outgoing, &policy, &client, now, second)).unwrap();
            assert!(!line.contains(&b'\n'), "the body begins behind the first line");
            let order: Order = serde_json::from_slice(&line).unwrap();
            let opened = order.open(outgoing.body.clone()).unwrap();
            assert_eq!(opened.outgoing.headers, outgoing.headers);
            assert_eq!(opened.outgoing.target.origin, outgoing.target.origin, "{url}");
            assert_eq!(opened.outgoing.target.host, outgoing.target.host, "{url}");
            assert_eq!(opened.outgoing.target.path.expose_secret(), outgoing.target.path.expose_secret(), "{url}");
            assert_eq!(format!("{:?}", opened.policy), format!("{policy:?}"));
            assert_eq!(format!("{:?}", opened.client), format!("{client:?}"));
            assert_eq!(opened.now, now);
        }
    }

    #[test]
    fn an_answer_arrives_as_it_was_given() {
        for exchange in [
            Exchange::refused(Outcome::AddressDenied, "why"),
            Exchange {
                outcome: Outcome::RateLimited,
                hopeless: true,
                sent: true,
                status: Some(429),
                retry_after: Some(Duration::from_secs(u64::MAX)),
                peer: Some("192.0.2.1:443".parse().unwrap()),
                redialed: true,
                snippet: Bytes::from_static(b"\xff\n"),
            },
        ] {
            let line = serde_json::to_vec(&Answer::of(&exchange)).unwrap();
            let answer: Answer = serde_json::from_slice(&line).unwrap();
            assert_eq!(format!("{:?}", answer.open().unwrap()), format!("{exchange:?}"));
        }
    }
}
