//! Why a gate cannot start.

use std::io;
use std::path::PathBuf;

use scale_callback_serve::bind::BindError;
use scale_callback_serve::tls::TlsError;

use super::upstream::UpstreamSetupError;
use crate::keys::KeysError;

/// Why a gate cannot start: one sentence that says what is wrong and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The upstream cannot be called as it is configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamSetupError),
    /// The file with the upstream's token cannot be read.
    #[error("{}: {cause}", .path.display())]
    UnreadableToken {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file holds something that is not a token.
    #[error("{}: a token is one line of printable ASCII", .path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
    /// The gate cannot listen.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The system does not say where a listener listens.
    #[error("{0}")]
    LocalAddress(io::Error),
}
