//! A TCP address is bound. If this fails, the sentence says what to do, because the system's words do not.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a program can't listen at an address, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("can't listen at {address}: {cause}; {}", remedy(.cause))]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Listens at an address.
///
/// # Errors
/// [`BindError`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { address, cause })
}

/// What to do after an address could not be bound.
#[must_use]
pub fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "stop the program that listens there, or choose another address",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or give the program the right to use this one",
        _ => "choose another address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_what_to_do() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = first.local_addr().expect("an address");
        let told = bind(address).await.map(drop).expect_err("it is in use").to_string();
        assert!(told.starts_with(&format!("can't listen at {address}: ")), "{told}");
        assert!(told.ends_with("; stop the program that listens there, or choose another address"), "{told}");
    }
}
