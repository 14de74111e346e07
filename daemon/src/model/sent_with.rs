//! With what of its team's settings a request was sent. The settings change, so the store keeps each combination that was
//! used, once, and attempts and ended callbacks name it by its id.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::attempt::SentWithId;
use super::team::{AuthForm, Mode};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentWith {
    pub team: Arc<str>,
    pub mode: Mode,
    /// The team's default URL, without its user and password; `None` for the task's own URL, which stands in the body.
    pub url: Option<String>,
    pub form: AuthForm,
    /// The ids of the signing secrets, the one promoted last first.
    pub signing_keys: Vec<String>,
    /// The ids of the keys in the header `scale-callback-auth`, the one promoted last first.
    pub auth_keys: Vec<String>,
}

impl SentWith {
    pub fn id(&self) -> SentWithId {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(self.team.as_bytes());
        add(self.mode.name().as_bytes());
        add(&[u8::from(self.url.is_some())]);
        add(self.url.as_deref().unwrap_or_default().as_bytes());
        add(self.form.name().as_bytes());
        for keys in [&self.signing_keys, &self.auth_keys] {
            add(&(keys.len() as u64).to_be_bytes());
            keys.iter().for_each(|key| add(key.as_bytes()));
        }
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
        SentWithId(i64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_nothing_else() {
        let keys = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let one = SentWith {
            team: "team_acme".into(),
            mode: Mode::Live,
            url: Some("https://acme.example/cb".to_owned()),
            form: AuthForm::Key,
            signing_keys: keys(&["a", "b"]),
            auth_keys: keys(&["c"]),
        };
        assert_eq!(one.id(), one.clone().id());
        // The store has these ids, so they stay what they are.
        assert_eq!(one.id(), SentWithId(-4_970_797_926_013_461_324));
        let others = [
            SentWith { team: "team_acme2".into(), ..one.clone() },
            SentWith { mode: Mode::Test, ..one.clone() },
            SentWith { url: None, ..one.clone() },
            SentWith { url: Some(String::new()), ..one.clone() },
            SentWith { form: AuthForm::Hmac, ..one.clone() },
            SentWith { signing_keys: keys(&["b", "a"]), ..one.clone() },
            SentWith { signing_keys: keys(&["ab"]), ..one.clone() },
            SentWith { signing_keys: keys(&["a"]), auth_keys: keys(&["b", "c"]), ..one.clone() },
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(other.id(), one.id(), "{at}");
            assert!(others[..at].iter().all(|earlier| earlier.id() != other.id()), "{at}");
        }
    }
}
