//! The three kinds of key. Each is parsed once, keeps its HMAC keyed, and never prints itself.

use core::fmt;

use base64::engine::{Engine as _, general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::mac::Keyed;
use crate::{KeyError, Mode};

/// `whsec_` + base64 of 24 to 64 bytes: the key of `webhook-signature`.
///
/// It can't be printed, and nothing gives it back:
///
/// ```compile_fail
/// let secret = scale_callback_auth::SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
/// println!("{secret}");
/// ```
#[derive(Clone)]
pub struct SigningSecret(pub(crate) Keyed);

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
        Ok(Self(Keyed::new(&key)))
    }
}

/// `live_auth_` / `test_auth_` + 32 hex digits: the value of `scale-callback-auth` in its `key` form.
#[derive(Clone)]
pub struct CallbackAuthKey {
    text: Zeroizing<String>,
    blinder: Keyed,
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
        let blinder = Keyed::new(b"scale-callback-auth comparison");
        let blinded = blinder.over(&[text.as_bytes()]);
        Ok(Self { text: Zeroizing::new(text.to_owned()), blinder, blinded, mode })
    }

    /// Live or test, by the prefix.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The key itself: for the header of a callback, for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Compares under an HMAC, so that neither content nor length of the key shows in the time it takes.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        crate::mac::equal(&self.blinded, &self.blinder.over(&[given]))
    }
}

/// `live_hmac_` / `test_hmac_` + 64 hex digits: the key of the `hmac` form. It never travels.
#[derive(Clone)]
pub struct HmacKey {
    pub(crate) keyed: Keyed,
    mode: Mode,
}

impl HmacKey {
    /// Parses the key as the platform shows it. The HMAC's key is the ASCII bytes of the whole string.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text; it never quotes it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mode = mode_of(text, "live_hmac_", "test_hmac_", 64)?;
        Ok(Self { keyed: Keyed::new(text.as_bytes()), mode })
    }

    /// Live or test, by the prefix.
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
