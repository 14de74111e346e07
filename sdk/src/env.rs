//! A verifier from the environment: keys never stand in code or arguments.

use core::fmt;
use std::ffi::OsString;

use zeroize::Zeroizing;

use crate::{Credential, KeyError, Mode, Verifier};

/// Keys of one kind that may stand in one variable: the one in use and those of a rotation.
const MOST: usize = 4;
/// The largest file that keys are read from.
const MOST_BYTES: u64 = 4096;

/// A variable that can't be used. It never quotes a value.
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
    /// It is needed and not set.
    Unset,
    /// It is set, and holds nothing but white space.
    Blank,
    /// It is set twice: by itself and as a file.
    Twice,
    /// The file that it names can't be read, or is longer than any file of keys.
    Unreadable,
    /// It holds more keys than a rotation has.
    TooMany,
    /// It is set without the signing secret that it stands beside: alone it would authenticate no body.
    KeyAlone,
    /// One of its keys can't be used.
    Key(KeyError),
    /// A key of the other mode: a test key where a live one belongs, or the other way round.
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
            EnvProblem::TooMany => write!(f, "{name} holds more than {MOST} keys"),
            EnvProblem::KeyAlone => {
                write!(f, "{name} is set without a signing secret: alone it proves nothing about the body")
            }
            EnvProblem::Key(error) => write!(f, "{name}: {error}"),
            EnvProblem::Mode => write!(f, "{name} holds a key of the other mode (live and test have variables apart)"),
        }
    }
}

impl core::error::Error for EnvError {}

/// One mode's variables.
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
    /// A verifier from this process's environment.
    ///
    /// | variable | what |
    /// |---|---|
    /// | `SCALE_CALLBACK_SIGNING_SECRET` | `whsec_...`: the signature must be right |
    /// | `SCALE_CALLBACK_AUTH_KEY` | beside it, `live_auth_...`: the key must be right as well |
    /// | `SCALE_CALLBACK_HMAC_KEY` | or instead of it, `live_hmac_...`: the `hmac` form must be right |
    /// | `SCALE_CALLBACK_TEST_...` | the same three for test callbacks; without them none is accepted |
    ///
    /// Each may be a file's name instead, as `..._FILE`. While keys rotate, a variable holds up to four with white
    /// space between. A live signing secret or HMAC key is needed; a callback auth key alone is refused: it would
    /// authenticate no body.
    ///
    /// # Errors
    /// [`EnvError`] names the variable and never quotes its value.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The same, with variables from elsewhere: for tests, and for what reads its settings itself.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let live = credentials(&LIVE, &get)?;
        if live.is_empty() {
            return Err(error(LIVE.signing, EnvProblem::Unset));
        }
        let mut all = live.into_iter().chain(credentials(&TEST, &get)?);
        let first = all.next().ok_or_else(|| error(LIVE.signing, EnvProblem::Unset))?;
        Ok(all.fold(Self::new(first), Self::and))
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
        if auth.is_empty() {
            let made = Credential::signed(mode, names.mode, secret);
            found.push(made.map_err(|problem| error(names.signing, EnvProblem::Key(problem)))?);
        }
        for key in &auth {
            // Whose fault it is: a secret alone says so first.
            Credential::signed(mode, names.mode, secret)
                .map_err(|problem| error(names.signing, EnvProblem::Key(problem)))?;
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

/// The keys of a variable or of the file that it names; none where neither is set.
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
        1..=MOST => Ok(keys),
        _ => Err(error(name, EnvProblem::TooMany)),
    }
}

fn read(path: &OsString) -> Option<Zeroizing<String>> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path).ok()?.take(MOST_BYTES + 1).read_to_string(&mut text).ok()?;
    // A part of it might lack the key that makes the rest safe.
    Some(text).filter(|text| u64::try_from(text.len()).is_ok_and(|length| length <= MOST_BYTES))
}

fn error(variable: &str, problem: EnvProblem) -> EnvError {
    EnvError { variable: variable.to_owned(), problem }
}
