//! Signing callbacks, as the platform does it: for the daemon and for customers' own tests.

use crate::{CallbackAuthKey, HmacKey, SigningSecret, header};

/// What `scale-callback-auth` holds.
#[derive(Debug, Clone)]
pub enum AuthHeader {
    /// The callback auth key itself.
    Key(CallbackAuthKey),
    /// `t=T,v1=H`, with a second `v1` while the key rotates.
    Hmac(HmacKey, Option<HmacKey>),
    /// There is no such header. The platform always sends one; tests may not.
    Absent,
}

/// Signs bodies with one team's keys. Keep it: making a signer is slow, and signing takes one HMAC for each key.
#[derive(Debug, Clone)]
pub struct Signer {
    secrets: Vec<SigningSecret>,
    auth: AuthHeader,
}

/// The values of the signed headers of one attempt.
#[derive(Clone)]
pub struct SignedHeaders {
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`. Empty if the signer has no secret.
    pub signature: String,
    /// `scale-callback-auth`. In its `key` form this value is a secret.
    pub auth: Option<String>,
}

impl Signer {
    /// Makes a signer. `secrets` are all the secrets that are valid now.
    #[must_use]
    pub fn new(secrets: Vec<SigningSecret>, auth: AuthHeader) -> Self {
        Self { secrets, auth }
    }

    /// Whether the requests carry the callback auth key itself.
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
    /// The headers of the callback `id` as (name, value) pairs, for a request or for a verifier.
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
