//! Where callbacks go: origins, and the queues in which due ones wait.

use std::fmt;
use std::sync::Arc;

use scale_callback_auth::Mode;

/// Scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub https: bool,
    /// Normalised: lower case, IDNA, an IPv6 literal in brackets.
    pub host: Arc<str>,
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Origin {
    /// Reads what `Display` writes. The port may be missing if it is the default one of the scheme.
    pub fn parse(text: &str) -> Option<Self> {
        let (https, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (rest, if https { 443 } else { 80 }),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
        if host.is_empty() || port == 0 || !host.chars().all(plain) {
            return None;
        }
        Some(Self { https, host: host.to_ascii_lowercase().into(), port })
    }

    /// The header `host` of a request: the port is left out where it is the default one of the scheme.
    pub fn authority(&self) -> String {
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// A callback URL as it was given. Its path and query are secrets, so `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Box<str>);

impl From<&str> for CallbackUrl {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::ops::Deref for CallbackUrl {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackUrl(..)")
    }
}

/// The queue in which due callbacks wait.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    pub team: Arc<str>,
    pub target: QueueTarget,
}

impl QueueKey {
    /// A queue by its names in rows.
    pub fn read(team: &str, target: &str) -> Option<Self> {
        Some(Self { team: team.into(), target: QueueTarget::parse(target)? })
    }
}

/// A callback with its own URL waits in the queue of the URL's origin, or nowhere if that URL is invalid. Any other callback
/// waits in the queue of its default URL, so that a change of the default URL moves all of them at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueTarget {
    Origin(Origin),
    Default(Mode),
    /// There is no endpoint: the task's own URL is invalid. The first attempt says so, and ends the callback.
    Nowhere,
}

/// The name of [`QueueTarget::Nowhere`]. No origin and no default has it, because those contain a colon.
const NOWHERE: &str = "none";

impl QueueTarget {
    /// The queue's name in rows and answers: an origin, `default:live`, `default:test` or `none`.
    pub fn name(&self) -> String {
        match self {
            Self::Origin(origin) => origin.to_string(),
            Self::Default(mode) => format!("default:{}", mode.name()),
            Self::Nowhere => NOWHERE.to_owned(),
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "default:live" => Some(Self::Default(Mode::Live)),
            "default:test" => Some(Self::Default(Mode::Test)),
            NOWHERE => Some(Self::Nowhere),
            origin => Origin::parse(origin).map(Self::Origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in ["https://a.example:443", "http://[2001:db8::1]:8080", "default:live", "default:test", "none"] {
            assert_eq!(QueueTarget::parse(name).map(|target| target.name()).as_deref(), Some(name));
        }
        assert_eq!(Origin::parse("https://A.example"), Origin::parse("https://a.example:443/"));
        for wrong in ["", "ftp://a:1", "https://", "https://a:0", "https://a:99999", "https://a/b", "https://u@a"] {
            assert_eq!(Origin::parse(wrong), None, "{wrong}");
        }
    }
}
