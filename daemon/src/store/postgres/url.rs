//! `store.url = "postgres://..."`: which servers, and how they must prove who they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use url::Url;

/// How the connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    /// Not at all.
    Off,
    /// The server must show a certificate for its name from one of the authorities in this file, or from a public one.
    VerifyFull(Option<PathBuf>),
}

/// Where a PostgreSQL database is. Printed without its password.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: Config,
    pub(super) tls: Tls,
    shown: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it is no URL: {0}")]
    NotAUrl(String),
    #[error("it names no host; write postgres://user@host/database")]
    NoHost,
    #[error("it names no database; write postgres://user@host/database")]
    NoDatabase,
    #[error("it names no user; write postgres://user@host/database")]
    NoUser,
    #[error("sslmode is \"verify-full\", or \"disable\" where nobody else can read the connection, and not {0:?}")]
    SslMode(String),
    #[error("{0}")]
    Other(String),
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (own, rest) = split_options(text);
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            // The library's words, without the URL itself: it may contain a password.
            UrlError::NotAUrl(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        if config.get_hosts().is_empty() {
            return Err(UrlError::NoHost);
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(UrlError::NoDatabase);
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(UrlError::NoUser);
        }
        let tls = match own.ssl_mode.as_deref() {
            None if config.get_hosts().iter().all(is_local) => Tls::Off,
            None | Some("verify-full") => Tls::VerifyFull(own.root_cert.map(PathBuf::from)),
            Some("disable") => Tls::Off,
            Some(other) => return Err(UrlError::SslMode(other.to_owned())),
        };
        config.ssl_mode(if tls == Tls::Off { SslMode::Disable } else { SslMode::Require });
        if config.get_application_name().is_none() {
            config.application_name("callbackd");
        }
        if config.get_connect_timeout().is_none() {
            // With several hosts, one that does not answer must not use up the time of the others.
            config.connect_timeout(Duration::from_secs(if config.get_hosts().len() > 1 { 2 } else { 5 }));
        }
        // A server that has vanished is noticed within a quarter of a minute.
        config
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(10));
        let shown = shown(&config);
        Ok(Self { config, tls, shown })
    }
}

/// The same for each host alone, in their order.
pub(super) fn of_each_host(config: &Config) -> Vec<Config> {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    if hosts.len() < 2 || !config.get_hostaddrs().is_empty() {
        return vec![config.clone()];
    }
    let alone = |(at, host): (usize, &Host)| {
        let mut one = Config::new();
        match host {
            Host::Tcp(name) => one.host(name),
            #[cfg(unix)]
            Host::Unix(path) => one.host_path(path),
        };
        if let Some(port) = ports.get(at).or(ports.first()) {
            one.port(*port);
        }
        if let Some(password) = config.get_password() {
            one.password(password);
        }
        if let Some(options) = config.get_options() {
            one.options(options);
        }
        if let Some(timeout) = config.get_connect_timeout() {
            one.connect_timeout(*timeout);
        }
        if let Some(timeout) = config.get_tcp_user_timeout() {
            one.tcp_user_timeout(*timeout);
        }
        if let Some(interval) = config.get_keepalives_interval() {
            one.keepalives_interval(interval);
        }
        if let Some(retries) = config.get_keepalives_retries() {
            one.keepalives_retries(retries);
        }
        one.user(config.get_user().unwrap_or_default())
            .dbname(config.get_dbname().unwrap_or_default())
            .application_name(config.get_application_name().unwrap_or_default())
            .ssl_mode(config.get_ssl_mode())
            .keepalives(config.get_keepalives())
            .keepalives_idle(config.get_keepalives_idle())
            .target_session_attrs(config.get_target_session_attrs())
            .channel_binding(config.get_channel_binding());
        one
    };
    hosts.iter().enumerate().map(alone).collect()
}

impl PostgresUrl {
    /// How long it takes at most until every host was tried.
    pub(super) fn connect_patience(&self) -> Duration {
        let each = self.config.get_connect_timeout().copied().unwrap_or_default();
        each.saturating_mul(u32::try_from(self.config.get_hosts().len()).unwrap_or(1))
    }

    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({})", self.shown)
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        (&self.config, &self.tls) == (&other.config, &other.tls)
    }
}

impl Eq for PostgresUrl {}

/// The options that the library does not know.
#[derive(Default)]
struct Own {
    ssl_mode: Option<String>,
    root_cert: Option<String>,
}

/// Takes our own options out of the URL's query.
fn split_options(text: &str) -> (Own, String) {
    let mut own = Own::default();
    let Some((before, query)) = text.split_once('?') else { return (own, text.to_owned()) };
    let mut others = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = |value: &str| {
            let decoded = Url::parse(&format!("x:/?v={value}")).ok();
            decoded.and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned())).unwrap_or_default()
        };
        match pair.split_once('=') {
            Some(("sslmode", mode)) => own.ssl_mode = Some(value(mode)),
            Some(("sslrootcert", path)) => own.root_cert = Some(value(path)),
            _ => others.push(pair),
        }
    }
    let rest = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
    (own, rest)
}

/// Nobody else can read a connection to this host.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let host = |(at, host): (usize, &Host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    };
    let hosts: Vec<_> = config.get_hosts().iter().enumerate().map(host).collect();
    format!(
        "postgres://{}@{}/{}",
        config.get_user().unwrap_or_default(),
        hosts.join(","),
        config.get_dbname().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> PostgresUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = parsed(
            "postgres://cb:p%40ss@db1.example.com,db2.example.com:5433/callbacks?target_session_attrs=read-write",
        );
        assert_eq!(url.to_string(), "postgres://cb@db1.example.com:5432,db2.example.com:5433/callbacks");
        assert!(!format!("{url:?}").contains("p@ss") && !format!("{url:?}").contains("p%40ss"));
        assert_eq!(url.config.get_password(), Some(&b"p@ss"[..]));
        for wrong in ["postgres://cb:secret@:x/db", "postgres://cb:secret@host:port/db", "postgres://cb:secret@"] {
            let error = wrong.parse::<PostgresUrl>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn each_host_is_tried_by_itself_with_what_holds_for_all() {
        let url = parsed(
            "postgres://cb:secret@a.example,b.example:5433/d?target_session_attrs=read-write&sslmode=verify-full",
        );
        let each = of_each_host(&url.config);
        let hosts: Vec<_> = each.iter().map(|one| (one.get_hosts().to_vec(), one.get_ports().to_vec())).collect();
        let host = |name: &str, port| (vec![Host::Tcp(name.to_owned())], vec![port]);
        assert_eq!(hosts, [host("a.example", 5432), host("b.example", 5433)]);
        for one in &each {
            // Only the hosts differ.
            let same = |config: &Config| {
                (
                    config.get_user().map(str::to_owned),
                    config.get_password().map(<[u8]>::to_vec),
                    config.get_dbname().map(str::to_owned),
                    config.get_application_name().map(str::to_owned),
                    (config.get_ssl_mode(), config.get_target_session_attrs(), config.get_connect_timeout().copied()),
                    (
                        config.get_tcp_user_timeout().copied(),
                        config.get_keepalives_idle(),
                        config.get_keepalives_retries(),
                    ),
                )
            };
            assert_eq!(same(one), same(&url.config));
        }
        assert_eq!(url.connect_patience(), Duration::from_secs(4));
        let one = parsed("postgres://u@a.example/d");
        assert_eq!(
            (of_each_host(&one.config), one.connect_patience()),
            (vec![one.config.clone()], Duration::from_secs(5))
        );
    }

    #[test]
    fn the_server_must_prove_who_it_is_unless_nobody_else_is_on_the_way() {
        let full = Tls::VerifyFull(None);
        for (text, tls) in [
            ("postgres://u@db.example.com/d", full.clone()),
            ("postgres://u@10.0.0.1/d", full.clone()),
            ("postgres://u@localhost,db.example.com/d", full.clone()),
            ("postgres://u@127.0.0.1/d", Tls::Off),
            ("postgres://u@[::1]:5433/d", Tls::Off),
            ("postgres://u@%2Frun%2Fpostgresql/d", Tls::Off),
            ("postgres://u@127.0.0.1/d?sslmode=verify-full", full),
            ("postgres://u@db.example.com/d?sslmode=disable", Tls::Off),
            (
                "postgres://u@db/d?connect_timeout=3&sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-full",
                Tls::VerifyFull(Some("/etc/ca.pem".into())),
            ),
        ] {
            assert_eq!(parsed(text).tls, tls, "{text}");
        }
        for mode in ["require", "prefer", "verify-ca", ""] {
            let error = format!("postgres://u@db/d?sslmode={mode}").parse::<PostgresUrl>();
            assert_eq!(error, Err(UrlError::SslMode(mode.to_owned())));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!("postgres:///d?user=u".parse::<PostgresUrl>(), Err(UrlError::NoHost));
        assert_eq!("postgres://u@h".parse::<PostgresUrl>(), Err(UrlError::NoDatabase));
        assert_eq!("postgres://h/d".parse::<PostgresUrl>(), Err(UrlError::NoUser));
        assert!(matches!("postgres://u@h/d?nonsense=1".parse::<PostgresUrl>(), Err(UrlError::NotAUrl(_))));
    }
}
