//! What a receiver holds, and what that proves about a request.

use crate::proof::Proof;
use crate::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};

/// Whether a callback is live or a test. Each mode has its own keys; the task's `is_test` decides the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Callbacks of real tasks.
    Live,
    /// Callbacks of tasks made with `is_test`.
    Test,
}

impl Mode {
    /// `live` or `test`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// A name, a mode, and the keys that belong together. One credential must accept all of a request: a test key with a
/// live signature is refused.
#[derive(Debug, Clone)]
pub struct Credential {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) proof: Proof,
}

impl Credential {
    /// The signature proves the sender and the body. `scale-callback-auth` is ignored.
    ///
    /// # Errors
    /// [`KeyError`] if the secret can't be used.
    pub fn signed(name: &str, mode: Mode, secret: &str) -> Result<Self, KeyError> {
        Ok(Self { name: name.to_owned(), mode, proof: Proof::Signed(SigningSecret::parse(secret)?) })
    }

    /// The signature and the callback auth key must both be right. The mode follows from the key's prefix.
    ///
    /// # Errors
    /// [`KeyError`] if the secret or the key can't be used.
    pub fn signed_and_keyed(name: &str, secret: &str, key: &str) -> Result<Self, KeyError> {
        let key = CallbackAuthKey::parse(key)?;
        let mode = key.mode();
        let proof = Proof::SignedAndKeyed(SigningSecret::parse(secret)?, key);
        Ok(Self { name: name.to_owned(), mode, proof })
    }

    /// The `hmac` form of `scale-callback-auth` proves the sender and the body. The mode follows from the key's prefix.
    ///
    /// # Errors
    /// [`KeyError`] if the key can't be used.
    pub fn hmac_header(name: &str, key: &str) -> Result<Self, KeyError> {
        let key = HmacKey::parse(key)?;
        Ok(Self { name: name.to_owned(), mode: key.mode(), proof: Proof::HmacHeader(key) })
    }

    /// The plain key in the header proves that the sender knows the key. It proves nothing about the body or its age:
    /// anybody who has seen one callback can make any other, and can send an old one again.
    ///
    /// # Errors
    /// [`KeyError`] if the key can't be used.
    pub fn static_key_authenticates_no_body(name: &str, key: &str) -> Result<Self, KeyError> {
        let key = CallbackAuthKey::parse(key)?;
        Ok(Self { name: name.to_owned(), mode: key.mode(), proof: Proof::StaticKey(key) })
    }

    /// The name that was given to the constructor.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the credential accepts live or test callbacks.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}
