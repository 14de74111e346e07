//! Where a receiver is: its server, and the path of its callbacks on that server. Nothing is looked up or connected here.

use std::path::PathBuf;

use scale_callback_serve::client::Remote;

/// Where a receiver is.
#[derive(Debug, Clone)]
pub struct ReceiverAt {
    /// The server.
    pub remote: Remote,
    /// Path and query.
    pub path: String,
}

/// A text that is not the URL of a receiver. Its sentence leaves out what may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is not the URL of a receiver; write for example http://127.0.0.1:8080/callbacks")]
pub struct ReceiverUrlError {
    shown: String,
}

impl ReceiverAt {
    /// Reads `http[s]://HOST[:PORT][/PATH[?QUERY]]`.
    ///
    /// # Errors
    /// The text is not such a URL.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Self, ReceiverUrlError> {
        let wrong = || ReceiverUrlError { shown: without_password(url) };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
        let remote = Remote::parse(&format!("{scheme}://{authority}"), ca_file).map_err(|_| wrong())?;
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { remote, path })
    }
}

/// The quoted URL, without what stands before an `@`.
fn without_password(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| format!("{url:?}"), |(_, host)| format!("\"...@{host}\""))
}
