//! TLS to receivers: rustls with aws-lc, the public root certificates, and the operator's own.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::error::{CaFileError, SetupError};
use super::target::{Target, TargetHost};

/// A connector that trusts the public roots and those in `ca_file`. If `http2` is true, it offers HTTP/2 and HTTP/1.1.
///
/// # Errors
/// The file of root certificates can't be used.
pub fn connector(ca_file: Option<&Path>, http2: bool) -> Result<TlsConnector, SetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add_roots(&mut roots, path).map_err(|why| SetupError::CaFile { path: path.to_owned(), why })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), CaFileError> {
    let known = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(CaFileError::Unreadable)? {
        roots.add(certificate.map_err(CaFileError::Unreadable)?).map_err(CaFileError::Unusable)?;
    }
    if roots.len() == known { Err(CaFileError::Empty) } else { Ok(()) }
}

pub(crate) fn server_name(target: &Target) -> Option<ServerName<'static>> {
    match &target.host {
        TargetHost::Address(ip) => Some(ServerName::IpAddress((*ip).into())),
        TargetHost::Name(name) => ServerName::try_from(name.to_string()).ok(),
    }
}
