//! Why the client to receivers can't be made.

use std::path::PathBuf;

/// A sentence that names the setting.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("egress.ca_file: {path}: {why}", path = path.display())]
    CaFile { path: PathBuf, why: CaFileError },
    #[error("dns.servers: the system's resolver configuration can't be read: {0}")]
    SystemResolver(String),
    #[error("the resolver can't be made: {0}")]
    Resolver(String),
    #[error("TLS can't be set up: {0}")]
    Tls(rustls::Error),
}

/// What is wrong with a file of root certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    #[error("{0}")]
    Unreadable(rustls::pki_types::pem::Error),
    #[error("{0}")]
    Unusable(rustls::Error),
    #[error("it holds no certificate")]
    Empty,
}
