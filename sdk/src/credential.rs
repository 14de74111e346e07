//! What a receiver holds, and what that proves.

use core::fmt;

use crate::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};

/// Live or test: two sets of keys, chosen by the task's `is_test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Real tasks.
    Live,
    /// Tasks made with `is_test`.
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

/// A name, a mode and the keys that go together. A request is accepted by one credential as a whole: a test key
/// beside a live signature is refused.
#[derive(Debug, Clone)]
pub struct Credential {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) proof: Proof,
}

#[derive(Clone)]
pub(crate) enum Proof {
    Signed(SigningSecret),
    SignedAndKeyed(SigningSecret, CallbackAuthKey),
    HmacHeader(HmacKey),
    StaticKey(CallbackAuthKey),
}

impl Credential {
    /// The signature proves the sender and the body. `scale-callback-auth` is not looked at.
    ///
    /// # Errors
    /// [`KeyError`] if the secret can't be used.
    pub fn signed(name: &str, mode: Mode, secret: &str) -> Result<Self, KeyError> {
        Ok(Self { name: name.to_owned(), mode, proof: Proof::Signed(SigningSecret::parse(secret)?) })
    }

    /// The signature and the callback auth key must both be right. The key's prefix gives the mode.
    ///
    /// # Errors
    /// [`KeyError`] if the secret or the key can't be used.
    pub fn signed_and_keyed(name: &str, secret: &str, key: &str) -> Result<Self, KeyError> {
        let key = CallbackAuthKey::parse(key)?;
        let mode = key.mode();
        let proof = Proof::SignedAndKeyed(SigningSecret::parse(secret)?, key);
        Ok(Self { name: name.to_owned(), mode, proof })
    }

    /// The `hmac` form of `scale-callback-auth` proves the sender and the body.
    ///
    /// # Errors
    /// [`KeyError`] if the key can't be used.
    pub fn hmac_header(name: &str, key: &str) -> Result<Self, KeyError> {
        let key = HmacKey::parse(key)?;
        Ok(Self { name: name.to_owned(), mode: key.mode(), proof: Proof::HmacHeader(key) })
    }

    /// The plain key in the header, as the platform first defined it. It proves that the sender knows the key, and
    /// nothing about the body, its age or its repetition: whoever saw one callback can make any other.
    ///
    /// # Errors
    /// [`KeyError`] if the key can't be used.
    pub fn static_key_authenticates_no_body(name: &str, key: &str) -> Result<Self, KeyError> {
        let key = CallbackAuthKey::parse(key)?;
        Ok(Self { name: name.to_owned(), mode: key.mode(), proof: Proof::StaticKey(key) })
    }

    /// The name given at its making.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Live or test.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

impl Proof {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Signed(_) => "signed",
            Self::SignedAndKeyed(..) => "signed_and_keyed",
            Self::HmacHeader(_) => "hmac_header",
            Self::StaticKey(_) => "static_key",
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
