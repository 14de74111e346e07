//! TLS of the plain client: it trusts the web's certificate authorities and those in a file that the user names. It never
//! presents a certificate of its own.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::tls::TlsError;

/// A connector that speaks HTTP/1.1 and trusts the web's authorities and those in `ca_file`.
pub(crate) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(TlsError::unusable(path))? {
            let certificate = certificate.map_err(TlsError::unusable(path))?;
            roots.add(certificate).map_err(TlsError::unusable(path))?;
        }
        if roots.len() == before {
            return Err(TlsError::NoCertificate { path: path.to_owned() });
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup { cause: error.into() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
