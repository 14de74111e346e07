//! Seals and opens the keys of teams. The sealing keys live in a file of their own, never in the store.
//!
//! A sealed key is bound to its place (team, kind, mode, id) and can't be opened for any other place. It names the
//! sealing key that it was made with, so that sealing keys can be rotated.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::engine::{Engine as _, general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

use crate::base::private_file;
use crate::model::team::{KeyKind, Mode};

/// The version of the associated data's format.
const VERSION: u8 = 1;
/// A keyring holds only a few keys.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The variable that holds the text of a keyring, where there can be no file.
pub const VARIABLE: &str = "CALLBACKD_KEYRING";

/// Where the keyring is.
#[derive(Debug, Clone, Default)]
pub enum Source {
    #[default]
    Unset,
    File(PathBuf),
    /// The text itself, from [`VARIABLE`].
    Text(SecretString),
}

impl Source {
    pub fn is_set(&self) -> bool {
        !matches!(self, Self::Unset)
    }
}

/// For people: the file, or the variable.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("nowhere"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => write!(f, "the variable {VARIABLE}"),
        }
    }
}

/// Why there is no keyring. It is shown with what to do about it.
#[derive(Debug)]
pub enum KeyringError {
    Unset,
    Unreadable { path: String, why: std::io::Error },
    NotCreated { path: String, why: std::io::Error },
    Exists { path: String },
    Open { path: String, mode: u32 },
    Malformed { place: String, line: usize },
    Empty { place: String },
}

impl KeyringError {
    /// What is wrong.
    pub fn what(&self) -> String {
        match self {
            Self::Unset => "keyring.file is not set".to_owned(),
            Self::Unreadable { path, why } | Self::NotCreated { path, why } => format!("keyring: {path}: {why}"),
            Self::Exists { path } => format!("keyring: {path} exists already, and is never overwritten"),
            Self::Open { path, mode } => {
                format!("keyring: {path} is open to other users, or its group may change it (mode {mode:o})")
            }
            Self::Malformed { place, line } => {
                format!("keyring: {place}, line {line}: expected \"<id> <base64 of 32 bytes>\"")
            }
            Self::Empty { place } => format!("keyring: {place} holds no key"),
        }
    }

    /// What to do. A keyring that exists is never replaced by a new one, because only the old one opens the store's keys.
    pub fn fix(&self) -> String {
        match self {
            Self::Unset => {
                "create a keyring with `callbackd keyring create FILE`, and name the file in keyring.file".to_owned()
            }
            Self::Unreadable { path, why } if why.kind() == ErrorKind::PermissionDenied => {
                format!("run as root: chown USER {path} && chmod 0600 {path}, where USER is the user of callbackd")
            }
            Self::Unreadable { path, why } if why.kind() == ErrorKind::NotFound => {
                format!("correct keyring.file, or create the first keyring with: callbackd keyring create {path}")
            }
            Self::Unreadable { .. } => "name a file that can be read in keyring.file".to_owned(),
            Self::NotCreated { .. } => "name a file in a directory that exists and that you may write to".to_owned(),
            Self::Exists { .. } => "name another file".to_owned(),
            Self::Open { path, .. } => format!("run: chmod g-w,o= {path}"),
            Self::Malformed { .. } => "take the keyring from its copy".to_owned(),
            Self::Empty { .. } => {
                "take the keyring from its copy, or create the first one with: callbackd keyring create FILE".to_owned()
            }
        }
    }
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.fix())
    }
}

impl std::error::Error for KeyringError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the keyring lacks the sealing key that this key was sealed with")]
    UnknownKey,
    #[error("the keyring does not open this key: this is another keyring, or the row was changed")]
    Refused,
}

/// Where a sealed key belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    pub team: &'p str,
    pub kind: KeyKind,
    pub mode: Mode,
    pub key_id: &'p str,
}

/// Sealing keys by id. The last one in the file seals new keys.
pub struct Keyring(Vec<(String, LessSafeKey)>);

pub struct Sealed {
    pub keyring_id: String,
    /// Nonce, then ciphertext and tag.
    pub bytes: Vec<u8>,
}

impl Keyring {
    /// Reads the keyring from where the configuration says that it is.
    ///
    /// # Errors
    /// A sentence that names the place, never the text.
    pub fn load(source: &Source) -> Result<Self, KeyringError> {
        match source {
            Source::Unset => Err(KeyringError::Unset),
            Source::File(path) => Self::from_file(path),
            Source::Text(text) => Self::parse(text.expose_secret(), &source.to_string()),
        }
    }

    /// Reads a keyring file. Its group may read it; other users must not have access to it.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn from_file(path: &Path) -> Result<Self, KeyringError> {
        let shown = path.display().to_string();
        let io = |why| KeyringError::Unreadable { path: shown.clone(), why };
        let file = File::open(path).map_err(io)?;
        if let Some(mode) = private_file::open_mode_of(&file).map_err(io)? {
            return Err(KeyringError::Open { path: shown, mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        Self::parse(&text, &shown)
    }

    /// Reads a keyring from text. Each line is a key, `<id> <base64 of 32 bytes>`, or a comment that begins with `#`.
    ///
    /// # Errors
    /// A sentence that names `place` and the line, never the text.
    pub fn parse(text: &str, place: &str) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || KeyringError::Malformed { place: place.to_owned(), line: index + 1 };
            let (id, encoded) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
            let bytes = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| malformed())?);
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| malformed())?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(malformed());
            }
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty { place: place.to_owned() });
        }
        Ok(Self(keys))
    }

    /// Creates a keyring file with one key. It never overwrites a file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn create(path: &Path) -> Result<(), KeyringError> {
        let io = |why| KeyringError::NotCreated { path: path.display().to_string(), why };
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = created.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => KeyringError::Exists { path: path.display().to_string() },
            _ => io(source),
        })?;
        let mut key = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut key[..]).expect("the system gives random bytes");
        let mut id = [0_u8; 4];
        aws_lc_rs::rand::fill(&mut id).expect("the system gives random bytes");
        let line = Zeroizing::new(format!("k{} {}\n", scale_callback_serve::text::hex(&id), STANDARD.encode(&key[..])));
        file.write_all(b"# callbackd keyring: seals the keys of teams in the store. Keep a copy elsewhere than the store's backup.\n")
            .and_then(|()| file.write_all(line.as_bytes()))
            .and_then(|()| file.sync_all())
            .map_err(io)
    }

    /// The ids of the sealing keys. The last one seals new keys.
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|(id, _)| id.as_str()).collect()
    }

    pub fn seal(&self, secret: &str, place: &Place<'_>) -> Sealed {
        let (id, key) = self.0.last().expect("a keyring is never empty");
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).expect("the system gives random bytes");
        let mut bytes = secret.as_bytes().to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated(place)), &mut bytes)
            .expect("a key of a few bytes can be sealed");
        bytes.splice(0..0, nonce);
        Sealed { keyring_id: id.clone(), bytes }
    }

    /// Opens what [`seal`](Self::seal) made for the same place.
    ///
    /// # Errors
    /// [`OpenError`]; it quotes nothing.
    pub fn open(&self, sealed: &Sealed, place: &Place<'_>) -> Result<Zeroizing<String>, OpenError> {
        let (_, key) = self.0.iter().find(|(id, _)| *id == sealed.keyring_id).ok_or(OpenError::UnknownKey)?;
        let (nonce, ciphertext) = sealed.bytes.split_at_checked(NONCE_LEN).ok_or(OpenError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Refused)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let opened =
            key.open_in_place(nonce, Aad::from(associated(place)), &mut buffer).map_err(|_| OpenError::Refused)?;
        let text = std::str::from_utf8(opened).map_err(|_| OpenError::Refused)?.to_owned();
        buffer.zeroize();
        Ok(Zeroizing::new(text))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

fn associated(place: &Place<'_>) -> Vec<u8> {
    let mut data = vec![VERSION];
    for part in [place.team, place.kind.name(), place.mode.name(), place.key_id] {
        data.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PLACE: Place<'static> = Place { team: "team_a", kind: KeyKind::Signing, mode: Mode::Live, key_id: "key_1" };

    fn keyring(path: &Path) -> Keyring {
        Keyring::create(path).expect("made");
        Keyring::from_file(path).expect("read")
    }

    #[test]
    fn a_keyring_that_may_not_be_read_is_never_answered_with_a_new_one() {
        let fix = |kind: ErrorKind| KeyringError::Unreadable { path: "ring".to_owned(), why: kind.into() }.fix();
        let denied = fix(ErrorKind::PermissionDenied);
        assert!(denied.contains("chown") && denied.contains("chmod") && !denied.contains("create"), "{denied}");
        assert!(fix(ErrorKind::NotFound).contains("callbackd keyring create ring"));
        assert!(!fix(ErrorKind::IsADirectory).contains("create"));
    }

    #[test]
    fn a_key_opens_in_its_own_place_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let ring = keyring(&directory.path().join("a"));
        let sealed = ring.seal("whsec_secret", &PLACE);
        assert_eq!(ring.open(&sealed, &PLACE).map(|text| text.to_string()), Ok("whsec_secret".to_owned()));
        assert!(!sealed.bytes.windows(6).any(|window| window == b"secret"));
        for other in [
            Place { team: "team_b", ..PLACE },
            Place { kind: KeyKind::Hmac, ..PLACE },
            Place { mode: Mode::Test, ..PLACE },
            Place { key_id: "key_2", ..PLACE },
        ] {
            assert_eq!(ring.open(&sealed, &other), Err(OpenError::Refused));
        }
        let another = keyring(&directory.path().join("b"));
        assert_eq!(another.open(&sealed, &PLACE), Err(OpenError::UnknownKey));
        let mut changed = ring.seal("whsec_secret", &PLACE);
        changed.bytes[NONCE_LEN] ^= 1;
        assert_eq!(ring.open(&changed, &PLACE), Err(OpenError::Refused));
    }

    #[test]
    fn a_bad_file_is_named_and_never_quoted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ring");
        Keyring::create(&path).expect("made");
        assert!(Keyring::create(&path).is_err(), "a keyring is never overwritten");
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        for mode in [0o644, 0o660, 0o604] {
            set(mode);
            assert!(matches!(Keyring::from_file(&path), Err(KeyringError::Open { mode: found, .. }) if found == mode));
        }
        // As a container platform mounts a secret: the owner is root, and the group is ours.
        for mode in [0o440, 0o640, 0o400] {
            set(mode);
            assert!(Keyring::from_file(&path).is_ok(), "{mode:o}");
        }
        let error = Keyring::parse("# ok\nk1 c2VjcmV0\n", "FILE").expect_err("too short");
        assert_eq!(
            error.to_string(),
            "keyring: FILE, line 2: expected \"<id> <base64 of 32 bytes>\"; take the keyring from its copy"
        );
        assert!(matches!(Keyring::parse("\n", "FILE"), Err(KeyringError::Empty { .. })));
    }

    #[test]
    fn a_keyring_can_be_a_text_that_no_message_shows() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ring");
        let sealed = keyring(&path).seal("whsec_secret", &PLACE);
        let text = std::fs::read_to_string(&path).expect("read");
        let source = Source::Text(text.clone().into());
        let ring = Keyring::load(&source).expect("the same keys");
        assert_eq!(ring.open(&sealed, &PLACE).map(|text| text.to_string()), Ok("whsec_secret".to_owned()));
        assert!(!format!("{source:?} {source}").contains(text.lines().last().expect("a key")));
        let broken = Source::Text("k1 c2VjcmV0".into());
        let error = Keyring::load(&broken).expect_err("too short").to_string();
        assert_eq!(
            error,
            "keyring: the variable CALLBACKD_KEYRING, line 1: expected \"<id> <base64 of 32 bytes>\"; take the keyring from its copy"
        );
        let error = Keyring::load(&Source::Unset).expect_err("there is none").to_string();
        assert!(error.starts_with("keyring.file is not set; create a keyring with"), "{error}");
    }
}
