//! One look at the source of the keys, and the verifier of what was seen. Nothing here remembers an earlier look.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use scale_callback_auth::{Credential, EnvError, Mode, Verifier};
use zeroize::Zeroizing;

use super::error::{Hint, KeysError};
use super::names::NAMES;

/// The largest file that keys are read from, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// Where keys come from.
#[derive(Debug, Clone, Default)]
pub struct KeySource {
    /// A file of lines `NAME=value`. Without a file, the environment is read.
    pub file: Option<PathBuf>,
    /// Accept the callback auth key alone, which authenticates no body.
    pub static_key: bool,
}

/// What one look at the source found: the variables, and the content of the files that they name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Variables(HashMap<String, Zeroizing<Vec<u8>>>);

/// The keys of one mode as text, to sign with.
#[derive(Default)]
pub struct ModeKeys {
    /// The first signing secret, `whsec_...`.
    pub signing: Option<Zeroizing<String>>,
    /// The first callback auth key, `live_auth_...` or `test_auth_...`.
    pub auth: Option<Zeroizing<String>>,
    /// The first key of the `hmac` form, `live_hmac_...` or `test_hmac_...`.
    pub hmac: Option<Zeroizing<String>>,
}

impl KeySource {
    /// Looks at the source now.
    ///
    /// # Errors
    /// [`KeysError`] names the file and, where it applies, the line.
    pub fn look(&self) -> Result<Variables, KeysError> {
        let mut found = match &self.file {
            Some(path) => from_file(path)?,
            None => from_environment(),
        };
        // The files' content is part of the look, so that a change of a file is seen as a change. A file that cannot be
        // read is reported later, when its variable is used.
        for name in NAMES.iter().map(|name| format!("{name}_FILE")) {
            if let Some(path) = found.get(&name).and_then(|path| std::str::from_utf8(path).ok())
                && let Ok(content) = read(Path::new(path))
            {
                found.insert(content_of(&name), content);
            }
        }
        Ok(Variables(found))
    }

    /// The files that keys are read from: the file of variables, and those that variables name.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let variables = match &self.file {
            // A file that cannot be read is reported by `look`.
            Some(path) => from_file(path).unwrap_or_default(),
            None => from_environment(),
        };
        let named = NAMES.iter().filter_map(|name| variables.get(&format!("{name}_FILE")));
        let named = named.filter_map(|path| std::str::from_utf8(path).ok().map(PathBuf::from));
        self.file.iter().cloned().chain(named).collect()
    }

    /// The verifier of what was seen.
    ///
    /// # Errors
    /// [`KeysError`] names the variable.
    pub fn verifier(&self, variables: &Variables) -> Result<Verifier, KeysError> {
        if self.static_key {
            return static_key_verifier(variables);
        }
        Verifier::from_variables(|name| variables.os(name)).map_err(|cause| {
            let hint = variables.hint(&cause);
            KeysError::Variable { cause, hint }
        })
    }
}

impl Variables {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, for a person who asked for them.
    ///
    /// # Errors
    /// [`KeysError`] names the variable.
    pub fn shown(&self) -> Result<Vec<(&'static str, Zeroizing<String>)>, KeysError> {
        let mut shown = Vec::new();
        for name in NAMES {
            shown.extend(self.values(name)?.into_iter().map(|value| (name, value)));
        }
        Ok(shown)
    }

    /// The first key of each kind, to sign with.
    ///
    /// # Errors
    /// [`KeysError`] names the variable.
    pub fn of(&self, mode: Mode) -> Result<ModeKeys, KeysError> {
        let infix = if mode == Mode::Test { "TEST_" } else { "" };
        let first = |kind: &str| -> Result<Option<_>, KeysError> {
            Ok(self.values(&format!("SCALE_CALLBACK_{infix}{kind}"))?.into_iter().next())
        };
        Ok(ModeKeys { signing: first("SIGNING_SECRET")?, auth: first("AUTH_KEY")?, hmac: first("HMAC_KEY")? })
    }

    fn os(&self, name: &str) -> Option<OsString> {
        self.0.get(name).map(|value| OsString::from_vec(value.to_vec()))
    }

    fn hint(&self, error: &EnvError) -> Hint {
        let value = self.0.get(&error.variable).map(|value| value.as_slice()).unwrap_or_default();
        let is_for_tests = |name: &String| name.contains("_TEST_");
        if value.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
            Hint::Quote
        } else if value.contains(&b',') {
            Hint::Comma
        } else if !self.0.is_empty() && self.0.keys().all(is_for_tests) {
            Hint::TestKeysOnly
        } else {
            Hint::None
        }
    }

    /// The keys of a variable, or of the file that it names; none where neither is set.
    fn values(&self, name: &str) -> Result<Vec<Zeroizing<String>>, KeysError> {
        let file = format!("{name}_FILE");
        let named = || name.to_owned();
        let value = match (self.0.get(name), self.0.get(&file)) {
            (Some(_), Some(_)) => return Err(KeysError::SetBothWays { name: named() }),
            (Some(value), None) => value,
            (None, Some(_)) => {
                self.0.get(&content_of(&file)).ok_or_else(|| KeysError::UnreadableFile { name: named() })?
            }
            (None, None) => return Ok(Vec::new()),
        };
        let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
        let keys: Vec<_> = text.split_whitespace().map(|key| Zeroizing::new(key.to_owned())).collect();
        if keys.is_empty() { Err(KeysError::Blank { name: named() }) } else { Ok(keys) }
    }
}

/// The entry that holds the content of the file that a variable names.
fn content_of(variable: &str) -> String {
    format!("content of {variable}")
}

fn from_environment() -> HashMap<String, Zeroizing<Vec<u8>>> {
    let names = NAMES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}_FILE")]);
    names
        .filter_map(|name| {
            let value = std::env::var_os(&name)?;
            Some((name, Zeroizing::new(value.into_vec())))
        })
        .collect()
}

fn from_file(path: &Path) -> Result<HashMap<String, Zeroizing<Vec<u8>>>, KeysError> {
    let shown = || path.to_owned();
    let text = read(path).map_err(|error| KeysError::Unreadable { path: shown(), cause: error.to_string() })?;
    let text = std::str::from_utf8(&text).map_err(|_| KeysError::NotUtf8 { path: shown() })?;
    let mut found = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line
            .split_once('=')
            .filter(|(name, _)| NAMES.contains(&name.strip_suffix("_FILE").unwrap_or(name)))
            .ok_or_else(|| KeysError::NotAVariable { path: shown(), line: number })?;
        let value = Zeroizing::new(without_quotes(value.trim()).as_bytes().to_vec());
        if found.insert(name.to_owned(), value).is_some() {
            return Err(KeysError::SetAgain { path: shown(), line: number, name: name.to_owned() });
        }
    }
    Ok(found)
}

fn without_quotes(value: &str) -> &str {
    let quoted = |quote: &char| value.strip_prefix(*quote).and_then(|value| value.strip_suffix(*quote));
    ['"', '\''].iter().find_map(quoted).unwrap_or(value)
}

/// A verifier that compares the callback auth key and nothing else.
fn static_key_verifier(variables: &Variables) -> Result<Verifier, KeysError> {
    let mut all = None::<Verifier>;
    for (name, mode) in [("SCALE_CALLBACK_AUTH_KEY", Mode::Live), ("SCALE_CALLBACK_TEST_AUTH_KEY", Mode::Test)] {
        for key in variables.values(name)? {
            let made = Credential::static_key_authenticates_no_body(mode.name(), &key);
            let made = made.map_err(|cause| KeysError::Key { name, cause })?;
            if made.mode() != mode {
                return Err(KeysError::OtherMode { name });
            }
            all = Some(match all {
                None => Verifier::new(made),
                Some(all) => all.or_credential(made),
            });
        }
    }
    all.ok_or(KeysError::NoAuthKey)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is longer than any file of keys"));
    }
    Ok(bytes)
}
