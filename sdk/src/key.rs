//! The three kinds of key. A key is parsed once, holds an HMAC that is ready for use, and never prints itself.

use core::fmt;

use base64::engine::{Engine as _, general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::mac::KeyedHmac;
use crate::{KeyError, Mode};

/// The key of `webhook-signature`: `whsec_` and the base64 of 24 to 64 bytes.
///
/// It can't be printed, and no method returns its text:
///
/// ```compile_fail
/// let secret = scale_callback_auth::SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
/// println!("{secret}");
/// ```
#[derive(Clone)]
pub struct SigningSecret(pub(crate) KeyedHmac);

impl SigningSecret {
    /// Parses `whsec_...`.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text; it never quotes it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = after_prefix(text, "whsec_")?;
        let key = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| KeyError::Malformed)?);
        if !(24..=64).contains(&key.len()) {
            return Err(KeyError::Length);
        }
        Ok(Self(KeyedHmac::new(&key)))
    }
}

/// The value of `scale-callback-auth` in its `key` form: `live_auth_` or `test_auth_`, and 32 hexadecimal digits.
#[derive(Clone)]
pub struct CallbackAuthKey {
    text: Zeroizing<String>,
    /// An HMAC under a fixed key, which turns texts of any length into values of one length.
    blinder: KeyedHmac,
    /// The HMAC of `text`.
    blinded: [u8; 32],
    mode: Mode,
}

impl CallbackAuthKey {
    /// Parses the key as the platform shows it.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text; it never quotes it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mode = mode_of(text, "live_auth_", "test_auth_", 32)?;
        let blinder = KeyedHmac::new(b"scale-callback-auth comparison");
        let blinded = blinder.over(&[text.as_bytes()]);
        Ok(Self { text: Zeroizing::new(text.to_owned()), blinder, blinded, mode })
    }

    /// Whether the key is for live or for test callbacks.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The key itself. Use it only for the header of a callback.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Compares HMACs of both texts, so that the time depends neither on the content nor on the length of the key.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        crate::mac::equal(&self.blinded, &self.blinder.over(&[given]))
    }
}

/// The key of the `hmac` form: `live_hmac_` or `test_hmac_`, and 64 hexadecimal digits. No request carries it.
#[derive(Clone)]
pub struct HmacKey {
    pub(crate) keyed: KeyedHmac,
    mode: Mode,
}

impl HmacKey {
    /// Parses the key as the platform shows it. The HMAC's key is the ASCII bytes of the whole text.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text; it never quotes it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mode = mode_of(text, "live_hmac_", "test_hmac_", 64)?;
        Ok(Self { keyed: KeyedHmac::new(text.as_bytes()), mode })
    }

    /// Whether the key is for live or for test callbacks.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

fn after_prefix<'t>(text: &'t str, prefix: &str) -> Result<&'t str, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.contains(char::is_whitespace) {
        return Err(KeyError::Whitespace);
    }
    text.strip_prefix(prefix).ok_or(KeyError::Prefix)
}

fn mode_of(text: &str, live: &str, test: &str, digits: usize) -> Result<Mode, KeyError> {
    let (mode, rest) = match after_prefix(text, live) {
        Ok(rest) => (Mode::Live, rest),
        Err(KeyError::Prefix) => (Mode::Test, after_prefix(text, test)?),
        Err(other) => return Err(other),
    };
    let well_formed = rest.len() == digits && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed { Ok(mode) } else { Err(KeyError::Malformed) }
}

/// Gives each type a `Debug` that shows nothing of the key.
macro_rules! silent {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
silent!(SigningSecret, CallbackAuthKey, HmacKey);
