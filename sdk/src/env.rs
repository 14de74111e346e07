//! Makes a verifier from environment variables, so that keys stand neither in code nor in arguments.

use core::fmt;
use std::ffi::OsString;

use zeroize::Zeroizing;

use crate::{Credential, KeyError, Mode, Verifier};

/// How many keys one variable may hold: the key in use and those of a rotation.
const MAX_KEYS: usize = 4;
/// The size in bytes of the largest file that keys are read from.
const MAX_FILE_BYTES: u64 = 4096;

/// Says which variable can't be used, and why. It never quotes a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvError {
    /// The variable's name.
    pub variable: String,
    /// What is wrong with it.
    pub problem: EnvProblem,
}

/// What is wrong with a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvProblem {
    /// The variable is required, but it is not set.
    Unset,
    /// The variable is set, but it holds only white space.
    Blank,
    /// Both the variable and its `_FILE` variable are set.
    Twice,
    /// The file that the variable names can't be read, or is too large for a file of keys.
    Unreadable,
    /// The variable holds more than four keys.
    TooMany,
    /// The callback auth key is set without a signing secret. Alone it would authenticate no body.
    KeyAlone,
    /// One of the keys can't be used.
    Key(KeyError),
    /// A key belongs to the other mode: it is a test key in a variable for live keys, or the reverse.
    Mode,
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.variable;
        match self.problem {
            EnvProblem::Unset => write!(f, "{name} is not set (nor {name}_FILE)"),
            EnvProblem::Blank => write!(f, "{name} is blank"),
            EnvProblem::Twice => write!(f, "{name} is set, and {name}_FILE as well: set one of them"),
            EnvProblem::Unreadable => write!(f, "the file that {name} names can't be read"),
            EnvProblem::TooMany => write!(f, "{name} holds more than {MAX_KEYS} keys"),
            EnvProblem::KeyAlone => {
                write!(f, "{name} is set without a signing secret: alone it proves nothing about the body")
            }
            EnvProblem::Key(error) => write!(f, "{name}: {error}"),
            EnvProblem::Mode => {
                write!(f, "{name} holds a key of the other mode (live and test keys have separate variables)")
            }
        }
    }
}

impl core::error::Error for EnvError {}

/// The variables of one mode.
struct Names {
    mode: Mode,
    signing: &'static str,
    auth: &'static str,
    hmac: &'static str,
}

const LIVE: Names = Names {
    mode: Mode::Live,
    signing: "SCALE_CALLBACK_SIGNING_SECRET",
    auth: "SCALE_CALLBACK_AUTH_KEY",
    hmac: "SCALE_CALLBACK_HMAC_KEY",
};
const TEST: Names = Names {
    mode: Mode::Test,
    signing: "SCALE_CALLBACK_TEST_SIGNING_SECRET",
    auth: "SCALE_CALLBACK_TEST_AUTH_KEY",
    hmac: "SCALE_CALLBACK_TEST_HMAC_KEY",
};

impl Verifier {
    /// Makes a verifier from this process's environment.
    ///
    /// | variable | what it holds |
    /// |---|---|
    /// | `SCALE_CALLBACK_SIGNING_SECRET` | `whsec_...`. The signature must be right |
    /// | `SCALE_CALLBACK_AUTH_KEY` | `live_auth_...`, in addition. The key must be right as well |
    /// | `SCALE_CALLBACK_HMAC_KEY` | `live_hmac_...`, instead of the others. The `hmac` form must be right |
    /// | `SCALE_CALLBACK_TEST_...` | the same three for test callbacks. Without them, test callbacks are refused |
    ///
    /// Instead of each variable, the variable `..._FILE` may name a file that holds the keys. While keys rotate, a
    /// variable or file holds up to four keys with white space between them. A live signing secret or HMAC key is
    /// required. A callback auth key alone is refused, because it would authenticate no body.
    ///
    /// # Errors
    /// [`EnvError`] names the variable and never quotes its value.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Does the same with variables from `get`: for tests, and for programs that read their settings themselves.
    ///
    /// # Errors
    /// The same as [`from_env`](Self::from_env).
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let live = credentials(&LIVE, &get)?;
        if live.is_empty() {
            return Err(error(LIVE.signing, EnvProblem::Unset));
        }
        let mut all = live.into_iter().chain(credentials(&TEST, &get)?);
        let first = all.next().ok_or_else(|| error(LIVE.signing, EnvProblem::Unset))?;
        Ok(all.fold(Self::new(first), Self::or_credential))
    }
}

fn credentials(names: &Names, get: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<Credential>, EnvError> {
    let secrets = keys(names.signing, get)?;
    let auth = keys(names.auth, get)?;
    let hmac = keys(names.hmac, get)?;
    let mode = names.mode.name();
    let mut found = Vec::new();
    if secrets.is_empty() && !auth.is_empty() {
        return Err(error(names.auth, EnvProblem::KeyAlone));
    }
    for secret in &secrets {
        // Reading the secret alone first tells a bad secret from a bad key.
        let signed = Credential::signed(mode, names.mode, secret)
            .map_err(|problem| error(names.signing, EnvProblem::Key(problem)))?;
        if auth.is_empty() {
            found.push(signed);
        }
        for key in &auth {
            let made = Credential::signed_and_keyed(mode, secret, key);
            found.push(of_mode(names.mode, names.auth, made)?);
        }
    }
    for key in &hmac {
        found.push(of_mode(names.mode, names.hmac, Credential::hmac_header(mode, key))?);
    }
    Ok(found)
}

fn of_mode(mode: Mode, name: &str, made: Result<Credential, KeyError>) -> Result<Credential, EnvError> {
    let made = made.map_err(|problem| error(name, EnvProblem::Key(problem)))?;
    if made.mode() == mode { Ok(made) } else { Err(error(name, EnvProblem::Mode)) }
}

/// The keys in a variable, or in the file that its `_FILE` variable names. Empty if neither is set.
fn keys(name: &str, get: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<Zeroizing<String>>, EnvError> {
    let file_name = format!("{name}_FILE");
    let text = match (get(name), get(&file_name)) {
        (None, None) => return Ok(Vec::new()),
        (Some(_), Some(_)) => return Err(error(name, EnvProblem::Twice)),
        (Some(value), None) => {
            let text = value.into_string().map_err(|_| error(name, EnvProblem::Key(KeyError::Malformed)))?;
            Zeroizing::new(text)
        }
        (None, Some(path)) if path.is_empty() => return Err(error(&file_name, EnvProblem::Blank)),
        (None, Some(path)) => read(&path).ok_or_else(|| error(&file_name, EnvProblem::Unreadable))?,
    };
    let keys: Vec<_> = text.split_whitespace().map(|key| Zeroizing::new(key.to_owned())).collect();
    match keys.len() {
        0 => Err(error(name, EnvProblem::Blank)),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(error(name, EnvProblem::TooMany)),
    }
}

fn read(path: &OsString) -> Option<Zeroizing<String>> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path).ok()?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).ok()?;
    // A file that is cut off might lack the very key that makes the others safe, so refuse all of it.
    Some(text).filter(|text| u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE_BYTES))
}

fn error(variable: &str, problem: EnvProblem) -> EnvError {
    EnvError { variable: variable.to_owned(), problem }
}
