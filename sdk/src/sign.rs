//! Signing: what the platform does, for the daemon and for customers' own tests.

use crate::{CallbackAuthKey, HmacKey, SigningSecret, header};

/// What goes into `scale-callback-auth`.
#[derive(Debug, Clone)]
pub enum AuthHeader {
    /// The callback auth key itself.
    Key(CallbackAuthKey),
    /// `t=T,v1=H`, and a second `v1` while rotating.
    Hmac(HmacKey, Option<HmacKey>),
    /// No header at all: never sent by the platform, useful in tests.
    Absent,
}

/// Signs bodies with one team's keys. Making one is the slow part; signing is one HMAC per key.
#[derive(Debug, Clone)]
pub struct Signer {
    secrets: Vec<SigningSecret>,
    auth: AuthHeader,
}

/// The values of the headers for one attempt.
#[derive(Clone)]
pub struct SignedHeaders {
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`; empty without a secret.
    pub signature: String,
    /// `scale-callback-auth`, a secret in its `key` form.
    pub auth: Option<String>,
}

impl Signer {
    /// A signer with every secret that is valid now.
    #[must_use]
    pub fn new(secrets: Vec<SigningSecret>, auth: AuthHeader) -> Self {
        Self { secrets, auth }
    }

    /// Whether the callback auth key itself would travel.
    #[must_use]
    pub fn exposes_key(&self) -> bool {
        matches!(self.auth, AuthHeader::Key(_))
    }

    /// Signs `body` under `id` for the attempt that begins at `timestamp`, in unix seconds.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> SignedHeaders {
        let timestamp = timestamp.to_string();
        let mut signature = String::with_capacity(self.secrets.len().saturating_mul(48));
        for secret in &self.secrets {
            let encoded = secret.0.signing(id.as_bytes(), timestamp.as_bytes(), body).base64();
            if !signature.is_empty() {
                signature.push(' ');
            }
            signature.push_str("v1,");
            signature.push_str(core::str::from_utf8(&encoded).expect("base64 is ASCII"));
        }
        let auth = match &self.auth {
            AuthHeader::Key(key) => Some(key.expose().to_owned()),
            AuthHeader::Hmac(key, second) => {
                let mut value = format!("t={timestamp}");
                for key in core::iter::once(key).chain(second) {
                    let digits = key.keyed.authenticating(id.as_bytes(), timestamp.as_bytes(), body).hex();
                    value.push_str(",v1=");
                    value.push_str(core::str::from_utf8(&digits).expect("hex is ASCII"));
                }
                Some(value)
            }
            AuthHeader::Absent => None,
        };
        SignedHeaders { timestamp, signature, auth }
    }
}

impl SignedHeaders {
    /// The headers as (name, value) pairs, for a request or for a verifier.
    #[must_use]
    pub fn to_pairs(&self, id: &str) -> Vec<(&'static str, String)> {
        let mut pairs = vec![(header::ID, id.to_owned()), (header::TIMESTAMP, self.timestamp.clone())];
        if !self.signature.is_empty() {
            pairs.push((header::SIGNATURE, self.signature.clone()));
        }
        if let Some(auth) = &self.auth {
            pairs.push((header::AUTH, auth.clone()));
        }
        pairs
    }
}

impl core::fmt::Debug for SignedHeaders {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SignedHeaders").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}
