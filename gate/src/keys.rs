//! The customer's keys, from the environment or from one file of the same variables; read again while running.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
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
            if let Some(path) = found.get(&name).and_then(|path| std::str::from_utf8(path).ok()) {
                let content = read(&PathBuf::from(path)).unwrap_or_default();
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
            return Verifier::from_variables(|name| variables.os(name)).map_err(|error| error.to_string());
        }
        let mut all = None::<Verifier>;
        for (name, mode) in [("SCALE_CALLBACK_AUTH_KEY", Mode::Live), ("SCALE_CALLBACK_TEST_AUTH_KEY", Mode::Test)] {
            for key in variables.values(name) {
                let made = Credential::static_key_authenticates_no_body(mode.name(), &key);
                let made = made.map_err(|error| format!("{name}: {error}"))?;
                if made.mode() != mode {
                    return Err(format!("{name} holds a key of the other mode"));
                }
                all = Some(match all {
                    None => Verifier::new(made),
                    Some(all) => all.and(made),
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

    /// The keys of a variable, or of the file that it names.
    fn values(&self, name: &str) -> Vec<Zeroizing<String>> {
        let value = self.0.get(name).or_else(|| self.0.get(&format!("content of {name}_FILE")));
        let text = value.map(|value| Zeroizing::new(String::from_utf8_lossy(value).into_owned())).unwrap_or_default();
        text.split_whitespace().map(|key| Zeroizing::new(key.to_owned())).collect()
    }

    /// Names and values, for a person who asked for them.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let of = |name: &'static str| self.values(name).into_iter().map(move |value| (name, value));
        NAMES.iter().flat_map(|name| of(name)).collect()
    }

    /// The first key of each kind, to sign with.
    #[must_use]
    pub fn of(&self, mode: Mode) -> ModeKeys {
        let infix = if mode == Mode::Test { "TEST_" } else { "" };
        let first = |kind: &str| self.values(&format!("SCALE_CALLBACK_{infix}{kind}")).into_iter().next();
        ModeKeys { signing: first("SIGNING_SECRET"), auth: first("AUTH_KEY"), hmac: first("HMAC_KEY") }
    }
}

/// The verifier that is in force, followed through changes of its source.
#[derive(Clone)]
pub struct LiveKeys {
    source: KeySource,
    current: Arc<RwLock<Arc<Verifier>>>,
    seen: Arc<RwLock<Result<Variables, String>>>,
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
        let seen = source.look()?;
        let verifier = source.verifier(&seen)?;
        Ok(Self { source, current: Arc::new(RwLock::new(Arc::new(verifier))), seen: Arc::new(RwLock::new(Ok(seen))) })
    }

    /// The verifier in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again, and takes what changed if all of it can be used.
    pub fn reload(&self) -> Change {
        let fresh = self.source.look();
        {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            if *seen == fresh {
                return Change::None;
            }
            seen.clone_from(&fresh);
        }
        match fresh.and_then(|variables| self.source.verifier(&variables)) {
            Ok(verifier) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
                Change::Taken
            }
            Err(why) => Change::Refused(why),
        }
    }

    /// Looks every second; `told` hears of each change.
    pub async fn follow(self, told: impl Fn(Change) + Send) {
        loop {
            tokio::time::sleep(LOOK).await;
            let keys = self.clone();
            // Files may stand on a disk that hangs.
            match tokio::task::spawn_blocking(move || keys.reload()).await {
                Ok(Change::None) | Err(_) => {}
                Ok(change) => told(change),
            }
        }
    }
}

fn read(path: &PathBuf) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
