//! The customer's keys, from the environment or from one file of the same variables; read again while running.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use scale_callback_auth::{Credential, Mode, Verifier};
use zeroize::Zeroizing;

/// The variables; each may be `..._FILE` instead, which names a file.
const NAMES: [&str; 6] = [
    "SCALE_CALLBACK_SIGNING_SECRET",
    "SCALE_CALLBACK_AUTH_KEY",
    "SCALE_CALLBACK_HMAC_KEY",
    "SCALE_CALLBACK_TEST_SIGNING_SECRET",
    "SCALE_CALLBACK_TEST_AUTH_KEY",
    "SCALE_CALLBACK_TEST_HMAC_KEY",
];
/// The largest file that keys are read from.
const MOST_BYTES: u64 = 64 * 1024;
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where keys come from.
#[derive(Debug, Clone, Default)]
pub struct KeySource {
    /// A file of lines `NAME=value`; the environment without one.
    pub file: Option<PathBuf>,
    /// Accept the callback auth key alone, which authenticates no body.
    pub static_key: bool,
}

/// What one look at the source gave: variables and what stands in the files that they name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Variables(HashMap<String, Zeroizing<Vec<u8>>>);

/// The keys of one mode, as text: to sign with.
#[derive(Default)]
pub struct ModeKeys {
    /// `whsec_...`, the first of them.
    pub signing: Option<Zeroizing<String>>,
    /// `live_auth_...` or `test_auth_...`, the first.
    pub auth: Option<Zeroizing<String>>,
    /// `live_hmac_...` or `test_hmac_...`, the first.
    pub hmac: Option<Zeroizing<String>>,
}

impl KeySource {
    /// Looks at the source now.
    ///
    /// # Errors
    /// One sentence that names the file and, where it applies, the line; never a value.
    pub fn look(&self) -> Result<Variables, String> {
        let mut found: HashMap<String, Zeroizing<Vec<u8>>> = HashMap::new();
        match &self.file {
            Some(path) => {
                let shown = path.display();
                let text = read(path).map_err(|error| format!("{shown}: {error}"))?;
                let text = std::str::from_utf8(&text).map_err(|_| format!("{shown}: it is not UTF-8"))?;
                for (number, line) in (1..).zip(text.lines()) {
                    let line = line.trim();
                    if line.is_empty() || line.starts_with('#') {
                        continue;
                    }
                    let line = line.strip_prefix("export ").unwrap_or(line);
                    let (name, value) = line
                        .split_once('=')
                        .filter(|(name, _)| NAMES.contains(&name.strip_suffix("_FILE").unwrap_or(name)))
                        .ok_or_else(|| {
                            format!("{shown}, line {number}: it is no line NAME=value with one of {}", NAMES.join(", "))
                        })?;
                    let value = value.trim();
                    let bare = ['"', '\'']
                        .iter()
                        .find_map(|quote| value.strip_prefix(*quote).and_then(|value| value.strip_suffix(*quote)));
                    let value = bare.unwrap_or(value).as_bytes().to_vec();
                    if found.insert(name.to_owned(), Zeroizing::new(value)).is_some() {
                        return Err(format!("{shown}, line {number}: {name} stands there twice"));
                    }
                }
            }
            None => {
                for name in NAMES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}_FILE")]) {
                    if let Some(value) = std::env::var_os(&name) {
                        use std::os::unix::ffi::OsStringExt as _;
                        found.insert(name, Zeroizing::new(value.into_vec()));
                    }
                }
            }
        }
        // What stands in the files, so that a change of one is seen as a change. One that can't be read is told later.
        for name in NAMES.iter().map(|name| format!("{name}_FILE")) {
            if let Some(path) = found.get(&name).and_then(|path| std::str::from_utf8(path).ok())
                && let Ok(content) = read(&PathBuf::from(path))
            {
                found.insert(format!("content of {name}"), content);
            }
        }
        Ok(Variables(found))
    }

    /// The verifier of what was seen.
    ///
    /// # Errors
    /// One sentence that names the variable; never a value.
    pub fn verifier(&self, variables: &Variables) -> Result<Verifier, String> {
        if !self.static_key {
            let verifier = Verifier::from_variables(|name| variables.os(name));
            return verifier.map_err(|error| format!("{error}{}", variables.hint(&error.to_string())));
        }
        let mut all = None::<Verifier>;
        for (name, mode) in [("SCALE_CALLBACK_AUTH_KEY", Mode::Live), ("SCALE_CALLBACK_TEST_AUTH_KEY", Mode::Test)] {
            for key in variables.values(name)? {
                let made = Credential::static_key_authenticates_no_body(mode.name(), &key);
                let made = made.map_err(|error| format!("{name}: {error}"))?;
                if made.mode() != mode {
                    return Err(format!("{name} holds a key of the other mode"));
                }
                all = Some(match all {
                    None => Verifier::new(made),
                    Some(all) => all.or_credential(made),
                });
            }
        }
        all.ok_or_else(|| "SCALE_CALLBACK_AUTH_KEY is not set (nor SCALE_CALLBACK_AUTH_KEY_FILE)".to_owned())
    }
}

impl Variables {
    fn os(&self, name: &str) -> Option<OsString> {
        use std::os::unix::ffi::OsStringExt as _;
        self.0.get(name).map(|value| OsString::from_vec(value.to_vec()))
    }

    /// What people do to a variable of which something else was said.
    fn hint(&self, said: &str) -> &'static str {
        let named = |name: &&String| said.contains(name.as_str());
        let value = self.0.iter().find(|(name, _)| named(name)).map(|(_, value)| value.as_slice()).unwrap_or_default();
        if value.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
            " (there is a quote in it)"
        } else if value.contains(&b',') {
            " (there is a comma in it: white space stands between keys)"
        } else if self.0.keys().any(|name| name.contains("_TEST_"))
            && !self.0.keys().any(|name| !name.contains("_TEST_"))
        {
            " (keys of test callbacks alone are set)"
        } else {
            ""
        }
    }

    /// The keys of a variable, or of the file that it names; none where neither is set.
    fn values(&self, name: &str) -> Result<Vec<Zeroizing<String>>, String> {
        let file = format!("{name}_FILE");
        let value = match (self.0.get(name), self.0.get(&file)) {
            (Some(_), Some(_)) => return Err(format!("{name} is set, and {file} as well: set one of them")),
            (Some(value), None) => value,
            (None, Some(_)) => {
                let content = self.0.get(&format!("content of {file}"));
                content.ok_or_else(|| format!("the file that {file} names can't be read"))?
            }
            (None, None) => return Ok(Vec::new()),
        };
        let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
        let keys: Vec<_> = text.split_whitespace().map(|key| Zeroizing::new(key.to_owned())).collect();
        if keys.is_empty() { Err(format!("{name} is blank")) } else { Ok(keys) }
    }

    /// Names and values, for a person who asked for them.
    ///
    /// # Errors
    /// One sentence that names the variable.
    pub fn shown(&self) -> Result<Vec<(&'static str, Zeroizing<String>)>, String> {
        let mut shown = Vec::new();
        for name in NAMES {
            shown.extend(self.values(name)?.into_iter().map(|value| (name, value)));
        }
        Ok(shown)
    }

    /// The first key of each kind, to sign with.
    ///
    /// # Errors
    /// One sentence that names the variable.
    pub fn of(&self, mode: Mode) -> Result<ModeKeys, String> {
        let infix = if mode == Mode::Test { "TEST_" } else { "" };
        let first = |kind: &str| -> Result<Option<_>, String> {
            Ok(self.values(&format!("SCALE_CALLBACK_{infix}{kind}"))?.into_iter().next())
        };
        Ok(ModeKeys { signing: first("SIGNING_SECRET")?, auth: first("AUTH_KEY")?, hmac: first("HMAC_KEY")? })
    }
}

/// The verifier that is in force, followed through changes of its source.
#[derive(Clone)]
pub struct LiveKeys {
    source: KeySource,
    current: Arc<RwLock<Arc<Verifier>>>,
    state: Arc<Mutex<State>>,
}

struct State {
    in_force: Variables,
    /// What was told of the last look that could not be used.
    refused: Option<String>,
}

/// What a look at the source changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Other keys are in force.
    Taken,
    /// There is something new that can't be used; the old keys stay in force.
    Refused(String),
}

impl LiveKeys {
    /// Reads the keys.
    ///
    /// # Errors
    /// One sentence.
    pub fn load(source: KeySource) -> Result<Self, String> {
        let in_force = source.look()?;
        let verifier = source.verifier(&in_force)?;
        Ok(Self {
            source,
            current: Arc::new(RwLock::new(Arc::new(verifier))),
            state: Arc::new(Mutex::new(State { in_force, refused: None })),
        })
    }

    /// The verifier in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks now, because somebody said so, and takes what changed if all of it can be used.
    pub fn reload(&self) -> Change {
        self.state().refused = None;
        self.take(self.source.look())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, fresh: Result<Variables, String>) -> Change {
        let mut state = self.state();
        let refused = match fresh {
            Ok(variables) if variables == state.in_force => {
                state.refused = None;
                return Change::None;
            }
            Ok(variables) => match self.source.verifier(&variables) {
                Ok(verifier) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
                    *state = State { in_force: variables, refused: None };
                    return Change::Taken;
                }
                Err(why) => why,
            },
            Err(why) => why,
        };
        // It is told once, however often it is looked at.
        if state.refused.as_ref() == Some(&refused) {
            return Change::None;
        }
        state.refused = Some(refused.clone());
        Change::Refused(refused)
    }

    /// Looks every second; `told` hears of each change. A change counts once two looks agree on it: a file that is being
    /// written may hold half of its keys.
    pub async fn follow(self, told: impl Fn(Change) + Send) {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let source = self.source.clone();
            // Files may stand on a disk that hangs.
            let Ok(seen) = tokio::task::spawn_blocking(move || source.look()).await else { continue };
            let settled = before.as_ref() == Some(&seen);
            before = Some(seen.clone());
            if settled {
                match self.take(seen) {
                    Change::None => {}
                    change => told(change),
                }
            }
        }
    }
}

fn read(path: &PathBuf) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other("it is longer than any file of keys"));
    }
    Ok(bytes)
}
