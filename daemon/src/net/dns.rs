//! Looks names up. Names are absolute: no search list and no hosts file is used. Lookups are bounded and can be
//! cancelled.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::ProtoErrorKind;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{Name, ResolveError, ResolveErrorKind};

use super::error::SetupError;

/// How many addresses of one name are used.
const MAX_ADDRESSES: usize = 32;

#[derive(Debug, Clone)]
pub struct Config {
    /// The name servers. If empty, the system's own servers.
    pub servers: Vec<SocketAddr>,
    pub cache_entries: usize,
}

pub struct Dns(TokioResolver);

#[derive(Debug, thiserror::Error)]
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
        let mut resolver = ResolverConfig::new();
        for server in servers {
            resolver.add_name_server(NameServerConfig::new(server, Protocol::Udp));
            resolver.add_name_server(NameServerConfig::new(server, Protocol::Tcp));
        }
        let mut builder = TokioResolver::builder_with_config(resolver, TokioConnectionProvider::default());
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = config.cache_entries;
        options.timeout = Duration::from_millis(1200);
        options.attempts = 2;
        options.positive_max_ttl = Some(Duration::from_secs(300));
        options.negative_max_ttl = Some(Duration::from_secs(10));
        Ok(Self(builder.build()))
    }

    /// Every address of `name`.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let mut absolute = Name::from_ascii(name).map_err(|_| DnsError::NotFound)?;
        absolute.set_fqdn(true);
        match self.0.lookup_ip(absolute).await {
            Ok(found) => {
                let addresses: Vec<_> = found.iter().take(MAX_ADDRESSES).collect();
                if addresses.is_empty() { Err(DnsError::NotFound) } else { Ok(addresses) }
            }
            Err(error) => Err(classify(&error)),
        }
    }
}

fn classify(error: &ResolveError) -> DnsError {
    let ResolveErrorKind::Proto(proto) = error.kind() else { return DnsError::Failed(error.kind().to_string()) };
    match proto.kind() {
        // The answer of a server that refuses or fails has no records either.
        ProtoErrorKind::NoRecordsFound { response_code: ResponseCode::NXDomain | ResponseCode::NoError, .. } => {
            DnsError::NotFound
        }
        ProtoErrorKind::NoRecordsFound { response_code, .. } => {
            DnsError::Failed(format!("the name servers answered: {response_code}"))
        }
        ProtoErrorKind::Timeout => DnsError::Timeout,
        other => DnsError::Failed(other.to_string()),
    }
}

fn system_servers() -> Result<Vec<SocketAddr>, SetupError> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()
        .map_err(|error| SetupError::SystemResolver(error.to_string()))?;
    let mut servers: Vec<_> = config.name_servers().iter().map(|server| server.socket_addr).collect();
    servers.sort();
    servers.dedup();
    Ok(servers)
}
