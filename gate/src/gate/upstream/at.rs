//! Where the receiver behind the gate is. Nothing is looked up or connected here.

use std::path::PathBuf;

use http::Uri;
use scale_callback_serve::client::host_and_port;

/// Where the receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAt {
    /// How it is reached.
    pub place: Place,
    /// The path and query of its callbacks; those of the gate where there are none.
    pub path: Option<String>,
}

/// How the receiver is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `HOST:PORT` over TCP without TLS, for a receiver on this machine or in a private network.
    Tcp(String),
    /// A socket in the file system, which nobody else can reach.
    Unix(PathBuf),
}

/// A text that does not say where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an upstream; write http://HOST:PORT, with a path if it differs from the gate's, or unix:PATH")]
pub struct UpstreamUrlError(pub String);

impl UpstreamAt {
    /// Reads `http://HOST:PORT[/PATH[?QUERY]]` or `unix:PATH`.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self, UpstreamUrlError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self { place: Place::Unix(PathBuf::from(path)), path: None });
        }
        let wrong = || UpstreamUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let place = uri.authority().and_then(|authority| host_and_port(authority, 80)).ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/");
        Ok(Self { place: Place::Tcp(place), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_read_and_others_refused() {
        let read = |text: &str| UpstreamAt::parse(text).map(|at| (at.place, at.path));
        let tcp = |host: &str| Place::Tcp(host.to_owned());
        assert_eq!(read("http://127.0.0.1:3000"), Ok((tcp("127.0.0.1:3000"), None)));
        assert_eq!(read("http://app/hooks?x=1"), Ok((tcp("app:80"), Some("/hooks?x=1".to_owned()))));
        assert_eq!(read("unix:/run/app.sock"), Ok((Place::Unix(PathBuf::from("/run/app.sock")), None)));
        for wrong in [
            "",
            "unix:",
            "127.0.0.1:3000",
            "https://a",
            "http://u:p@a",
            "ftp://a",
            "/path",
            "http://a:99999",
            "http://a:",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
