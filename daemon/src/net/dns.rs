//! Looks names up. Names are absolute: no search list and no hosts file is used. Both address families are asked for at
//! the same time, and each answer is given on as soon as it comes. Lookups are bounded and can be cancelled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as ServerError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::error::SetupError;

/// How many addresses of one name are used.
const MAX_ADDRESSES: usize = 32;

#[derive(Debug, Clone)]
pub struct Config {
    /// The name servers. If empty, the system's own servers.
    pub servers: Vec<SocketAddr>,
    pub cache_entries: usize,
}

#[derive(Clone)]
pub struct Dns(Arc<TokioResolver>);

/// The two kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What the name servers said about one family of a name's addresses.
pub type Answer = Result<Vec<IpAddr>, DnsError>;

/// The answers about one name, as they come.
pub struct Answers {
    ready: Vec<(Family, Answer)>,
    awaited: JoinSet<(Family, Answer)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("the name has no address")]
    NotFound,
    #[error("the name servers did not answer")]
    Timeout,
    #[error("the name could not be looked up: {0}")]
    Failed(String),
}

impl Dns {
    /// Makes the resolver. It asks nothing yet.
    ///
    /// # Errors
    /// The system's configuration can't be read.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        let servers = if config.servers.is_empty() { system_servers()? } else { config.servers.clone() };
        let servers = servers.into_iter().map(name_server).collect();
        let resolver = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(resolver, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = config.cache_entries as u64;
        options.timeout = Duration::from_millis(1200);
        options.attempts = 2;
        options.positive_max_ttl = Some(Duration::from_secs(300));
        options.negative_max_ttl = Some(Duration::from_secs(10));
        let resolver = builder.build().map_err(|error| SetupError::Resolver(error.to_string()))?;
        Ok(Self(Arc::new(resolver)))
    }

    /// Asks for the addresses of both families, each until `end`. A lookup whose answer nobody waits for any more goes
    /// on until then: its answer is kept, so the next connection is judged by all addresses of the name.
    pub fn ask(&self, name: &str, end: Instant) -> Answers {
        let name = match absolute(name) {
            Ok(name) => name,
            Err(error) => {
                let ready = vec![(Family::V4, Err(error.clone())), (Family::V6, Err(error))];
                return Answers { ready, awaited: JoinSet::new() };
            }
        };
        let mut awaited = JoinSet::new();
        for family in [Family::V6, Family::V4] {
            let (dns, name) = (self.clone(), name.clone());
            awaited.spawn(async move {
                let answer = timeout_at(end, dns.ask_one(name, family)).await;
                (family, answer.unwrap_or(Err(DnsError::Timeout)))
            });
        }
        Answers { ready: Vec::new(), awaited }
    }

    /// Every address of `name`, when both families are known.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn lookup(&self, name: &str, end: Instant) -> Result<Vec<IpAddr>, DnsError> {
        let mut answers = self.ask(name, end);
        let (mut found, mut failed) = (Vec::new(), None);
        while let Some((_, answer)) = answers.next().await {
            match answer {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failed = Some(worse(failed, error)),
            }
        }
        if found.is_empty() { Err(failed.unwrap_or(DnsError::NotFound)) } else { Ok(found) }
    }

    async fn ask_one(&self, name: Name, family: Family) -> Answer {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let found = self.0.lookup(name, kind).await.map_err(|error| classify(&error))?;
        let address = |data: &RData| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        };
        let records = found.answers().iter();
        let addresses: Vec<_> = records.filter_map(|record| address(&record.data)).take(MAX_ADDRESSES).collect();
        if addresses.is_empty() { Err(DnsError::NotFound) } else { Ok(addresses) }
    }
}

impl Answers {
    /// An answer that is known without a question.
    pub fn known(addresses: Vec<IpAddr>) -> Self {
        let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
        let ready = vec![(Family::V4, Ok(v4)), (Family::V6, Ok(v6))];
        Self { ready, awaited: JoinSet::new() }
    }

    /// Whether no more answers will come.
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.awaited.is_empty()
    }

    /// The next answer; `None` after the last one. Nothing is lost if the caller stops waiting.
    pub async fn next(&mut self) -> Option<(Family, Answer)> {
        if let Some(answer) = self.ready.pop() {
            return Some(answer);
        }
        match self.awaited.join_next().await? {
            Ok(answer) => Some(answer),
            // The task panicked, or the runtime ends. Either way, this family has no answer.
            Err(error) => Some((Family::V4, Err(DnsError::Failed(error.to_string())))),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.awaited.detach_all();
    }
}

/// Which of two failures describes the whole lookup: a server that was silent or failed may know an address after all.
pub(crate) fn worse(one: Option<DnsError>, other: DnsError) -> DnsError {
    match (one, other) {
        (None, error) | (Some(DnsError::NotFound), error) | (Some(error), DnsError::NotFound) => error,
        (Some(DnsError::Timeout), _) | (_, DnsError::Timeout) => DnsError::Timeout,
        (Some(error), DnsError::Failed(_)) => error,
    }
}

/// The name without a search list. Every label is taken as it is: the resolver's own reader of names refuses some that
/// name servers know, such as labels that begin with a hyphen.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let mut absolute = Name::from_labels(name.split('.').map(str::as_bytes))
        .map_err(|error| DnsError::Failed(format!("it can't be asked for: {error}")))?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

fn classify(error: &NetError) -> DnsError {
    match error {
        // The answer of a server that refuses or fails has no records either.
        NetError::Dns(ServerError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            ..
        })) => DnsError::NotFound,
        NetError::Dns(
            ServerError::NoRecordsFound(NoRecords { response_code: code, .. }) | ServerError::ResponseCode(code),
        ) => DnsError::Failed(format!("the name servers answered: {code}")),
        NetError::Timeout => DnsError::Timeout,
        other => DnsError::Failed(other.to_string()),
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(on_port);
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn system_servers() -> Result<Vec<SocketAddr>, SetupError> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()
        .map_err(|error| SetupError::SystemResolver(error.to_string()))?;
    let mut servers: Vec<_> = config
        .name_servers()
        .iter()
        .flat_map(|server| server.connections.iter().map(|connection| SocketAddr::new(server.ip, connection.port)))
        .collect();
    servers.sort();
    servers.dedup();
    Ok(servers)
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
