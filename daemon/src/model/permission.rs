//! What a caller of the operations may do: a set of rights, for all teams or for some. The rights are not ordered, and no
//! right includes another. But `operate` is always given together with `read`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::named::named;

named! {
    /// One right. Each operation needs exactly one; `ops::policy` says which.
    pub enum Right {
        /// Look at everything but the values of keys.
        Read = "read",
        /// Change things.
        Operate = "operate",
        /// See the value of a key that exists already.
        Secrets = "secrets",
    }
}

impl Right {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    pub const READ: Self = Self(Right::Read.bit());
    /// A caller who may change something may also look at it.
    pub const OPERATE: Self = Self(Right::Operate.bit() | Right::Read.bit());
    pub const SECRETS: Self = Self(Right::Secrets.bit());
    pub const ALL: Self = Self::OPERATE.and(Self::SECRETS);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set that the name of one right means.
    pub const fn of(right: Right) -> Self {
        match right {
            Right::Read => Self::READ,
            Right::Operate => Self::OPERATE,
            Right::Secrets => Self::SECRETS,
        }
    }

    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// The rights of this set, in the order of [`Right::ALL`].
    pub fn each(self) -> impl Iterator<Item = Right> {
        Right::ALL.iter().copied().filter(move |right| self.has(*right))
    }

    /// The first right of `other` that this set lacks.
    pub fn lacks(self, other: Self) -> Option<Right> {
        other.each().find(|right| !self.has(*right))
    }

    /// The set as text: names with spaces between them, as in OAuth 2.0 (RFC 6749, section 3.3). If the set holds
    /// `operate`, `read` is not written.
    pub fn name(self) -> String {
        let brought = |right: Right| self.each().any(|other| other != right && Self::of(other).has(right));
        let names: Vec<_> = self.each().filter(|right| !brought(*right)).map(Right::name).collect();
        names.join(" ")
    }

    /// Reads what [`name`](Self::name) writes, in any order. At least one right must be named.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().peekable();
        words.peek()?;
        words.try_fold(Self::default(), |set, word| Right::parse(word).map(|right| set.and(Self::of(right))))
    }
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::default() { f.write_str("none") } else { f.write_str(&self.name()) }
    }
}

/// The teams to which a caller is limited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TeamLimit {
    /// The caller is not limited: every team, and the installation as a whole.
    #[default]
    All,
    /// Only these, by their ids.
    Only(Arc<BTreeSet<String>>),
}

impl TeamLimit {
    /// No name means no limit.
    pub fn of(teams: impl IntoIterator<Item = String>) -> Self {
        let teams: BTreeSet<_> = teams.into_iter().collect();
        if teams.is_empty() { Self::All } else { Self::Only(Arc::new(teams)) }
    }

    pub fn includes(&self, team: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(teams) => teams.contains(team),
        }
    }

    /// Whether everything that `other` includes is included here as well.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(own), Self::Only(others)) => others.is_subset(own),
        }
    }

    /// The teams by their ids; `None` without a limit.
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::All => None,
            Self::Only(teams) => Some(teams),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_covers_what_it_includes_and_no_more() {
        let limit = |names: &[&str]| TeamLimit::of(names.iter().map(|name| (*name).to_owned()));
        let limits = [limit(&[]), limit(&["a"]), limit(&["b"]), limit(&["a", "b"])];
        for own in &limits {
            for other in &limits {
                // "c" stands for every team that no limit names.
                let covers = ["a", "b", "c"].iter().all(|team| own.includes(team) || !other.includes(team));
                assert_eq!(own.covers(other), covers, "{own:?} {other:?}");
            }
        }
        assert_eq!(limit(&[]), TeamLimit::All);
    }

    #[test]
    fn a_set_of_rights_is_written_and_read_back() {
        for (text, written, set) in [
            ("read", "read", Rights::READ),
            ("operate", "operate", Rights::OPERATE),
            ("operate read", "operate", Rights::OPERATE),
            ("secrets", "secrets", Rights::SECRETS),
            ("secrets read", "read secrets", Rights::READ.and(Rights::SECRETS)),
            ("operate secrets", "operate secrets", Rights::ALL),
            ("read read", "read", Rights::READ),
        ] {
            assert_eq!(Rights::parse(text), Some(set), "{text}");
            assert_eq!(set.name(), written, "{text}");
            assert_eq!(Rights::parse(&set.name()), Some(set), "{text}");
        }
        for wrong in ["", " ", "all", "Read", "read,operate", "operate!"] {
            assert_eq!(Rights::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_right_stands_for_another_but_operate_for_read() {
        for held in Right::ALL {
            for wanted in Right::ALL {
                let expected = held == wanted || (*held == Right::Operate && *wanted == Right::Read);
                assert_eq!(Rights::of(*held).has(*wanted), expected, "{held:?} {wanted:?}");
            }
        }
        assert_eq!(Rights::OPERATE.lacks(Rights::ALL), Some(Right::Secrets));
        assert_eq!(Rights::SECRETS.lacks(Rights::READ), Some(Right::Read));
        assert_eq!(Rights::ALL.lacks(Rights::ALL), None);
    }
}
