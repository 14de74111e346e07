//! What a gate warns of when it starts: settings that work, and that let somebody see or go around what the gate protects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::config::Config;
use super::upstream::Place;

/// What is wrong, where, and what to do about it: one sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Callbacks and their keys cross a network in clear text.
    NoTls(SocketAddr),
    /// Other users of the machine can read a secret.
    Readable(PathBuf),
    /// Other users of the machine can replace a secret.
    Writable(PathBuf),
    /// The metrics can be reached from other machines.
    PublicAdmin(SocketAddr),
    /// Whoever reaches the receiver's port can go around the gate.
    OpenUpstream(String),
    /// Nothing proves the body.
    StaticKey,
    /// Anybody may say whose request it is.
    TrustsEverybody,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls(address) => write!(
                f,
                "the gate listens at {address} without TLS, so callbacks and their keys can be read on the way: give \
                 --tls-cert and --tls-key, or let a proxy do TLS and name it with --trusted-proxy"
            ),
            Self::Readable(path) => write!(
                f,
                "{}: every user of this machine can read it, and it holds a secret: chmod o-rwx",
                path.display()
            ),
            Self::Writable(path) => write!(
                f,
                "{}: other users of this machine can change it, and it holds a secret: chmod go-w",
                path.display()
            ),
            Self::PublicAdmin(address) => write!(
                f,
                "health and metrics at {address} can be reached from other machines without a password: give --admin an \
                 address that only your monitoring reaches"
            ),
            Self::OpenUpstream(host) => write!(
                f,
                "your server at {host} cannot tell the gate from anybody else who reaches it: give --upstream-token-file, \
                 or --upstream unix:PATH"
            ),
            Self::StaticKey => write!(f, "only the key is compared; nothing proves the body"),
            Self::TrustsEverybody => write!(
                f,
                "--trusted-proxy names every address, so any sender may pretend to be another one: name your proxies alone"
            ),
        }
    }
}

/// What to warn of. Files that cannot be looked at are reported when they are read.
#[must_use]
pub fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    let is_public = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
    if config.tls.is_none() && is_public(config.listen) && config.trusted_proxies.is_empty() {
        found.push(Warning::NoTls(config.listen));
    }
    let tls_key = config.tls.as_ref().map(|(_, key)| key.clone());
    for path in config.keys.files().into_iter().chain(tls_key).chain(config.upstream_token.clone()) {
        found.extend(mode(&path).and_then(|mode| of_secret(path, mode)));
    }
    found.extend(config.admin.filter(|admin| is_public(*admin)).map(Warning::PublicAdmin));
    if let Place::Tcp(host) = &config.upstream.place
        && config.upstream_token.is_none()
        && !is_this_machine(host)
    {
        found.push(Warning::OpenUpstream(host.clone()));
    }
    if config.keys.static_key {
        found.push(Warning::StaticKey);
    }
    let everybody = ["0.0.0.0/0", "::/0"];
    if config.trusted_proxies.iter().any(|net| everybody.contains(&net.to_string().as_str())) {
        found.push(Warning::TrustsEverybody);
    }
    found
}

/// What is wrong with a secret's file of this mode. A group may read it: so a Kubernetes secret reaches its pod's user.
fn of_secret(path: PathBuf, mode: u32) -> Option<Warning> {
    match (mode & 0o022, mode & 0o004) {
        (0, 0) => None,
        (0, _) => Some(Warning::Readable(path)),
        _ => Some(Warning::Writable(path)),
    }
}

fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|found| found.mode())
}

/// Whether `HOST:PORT` is on this machine, as far as its text says.
fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Bounds, UpstreamAt};
    use crate::keys::KeySource;

    fn config(listen: &str, upstream: &str) -> Config {
        Config {
            listen: listen.parse().unwrap(),
            tls: None,
            admin: None,
            path: "/callbacks".to_owned(),
            upstream: UpstreamAt::parse(upstream).unwrap(),
            upstream_token: None,
            // No file, and no variables that name one.
            keys: KeySource { file: Some(PathBuf::from("/dev/null/none")), static_key: false },
            keep_auth_header: false,
            trusted_proxies: Vec::new(),
            forwarded_header: Default::default(),
            proxy_protocol: false,
            bounds: Bounds::default(),
        }
    }

    #[test]
    fn what_lets_others_in_is_warned_of() {
        for quiet in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert_eq!(warnings(&config(quiet, "http://localhost:3000")), []);
        }
        assert_eq!(warnings(&config("127.0.0.1:0", "unix:/run/x")), []);
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let told = warnings(&config(open, "http://[::1]:3000"));
            assert_eq!(told, [Warning::NoTls(open.parse().unwrap())]);
        }
        let mut behind = config("0.0.0.0:0", "http://app:3000");
        behind.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(warnings(&behind), [Warning::OpenUpstream("app:3000".to_owned())]);
        behind.upstream_token = Some(PathBuf::from("/nonexistent"));
        assert_eq!(warnings(&behind), []);
        behind.trusted_proxies = vec!["0.0.0.0/0".parse().unwrap()];
        behind.admin = Some("0.0.0.0:1".parse().unwrap());
        behind.keys.static_key = true;
        let expected =
            [Warning::PublicAdmin("0.0.0.0:1".parse().unwrap()), Warning::StaticKey, Warning::TrustsEverybody];
        assert_eq!(warnings(&behind), expected);
    }

    #[test]
    fn a_secret_that_others_can_read_or_change_is_warned_of() {
        let told = |mode| of_secret(PathBuf::from("x"), mode);
        for fine in [0o100_600, 0o100_400, 0o100_440, 0o100_640] {
            assert_eq!(told(fine), None, "{fine:o}");
        }
        assert_eq!(told(0o100_644), Some(Warning::Readable(PathBuf::from("x"))));
        for loose in [0o100_660, 0o100_666, 0o100_620] {
            assert_eq!(told(loose), Some(Warning::Writable(PathBuf::from("x"))), "{loose:o}");
        }
    }
}
