//! A self-signed certificate for loopback, in a folder, for tests. It is also the authority that clients trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scale_callback_serve::tls::{ServerTls, TlsError};
use tokio_rustls::TlsAcceptor;

/// The paths of the authority's certificate, of the server's chain and of its key.
pub struct Certificates {
    /// The certificate that clients trust.
    pub ca_file: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes the files in `folder`, for 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// A file cannot be written, or the certificate cannot be made.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        Self::for_names(folder, &["127.0.0.1", "localhost"])
    }

    /// The same, for other names.
    ///
    /// # Errors
    /// A file cannot be written, or the certificate cannot be made.
    pub fn for_names(folder: &Path, names: &[&str]) -> anyhow::Result<Self> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let at = |name: &str, text: String| -> std::io::Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            ca_file: at("ca.pem", made.cert.pem())?,
            cert: at("cert.pem", made.cert.pem())?,
            key: at("key.pem", made.signing_key.serialize_pem())?,
        })
    }

    /// For a server of ours.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn server(&self) -> Result<Arc<ServerTls>, TlsError> {
        Ok(Arc::new(ServerTls::load(&self.cert, &self.key)?))
    }

    /// An acceptor for a server that always chooses `protocol`.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn acceptor(&self, protocol: &str) -> anyhow::Result<TlsAcceptor> {
        self.acceptor_of(&[protocol])
    }

    /// The same for several protocols, the one that it likes best first.
    ///
    /// # Errors
    /// See [`Certificates::acceptor`].
    pub fn acceptor_of(&self, protocols: &[&str]) -> anyhow::Result<TlsAcceptor> {
        let chain = CertificateDer::pem_file_iter(&self.cert)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
