//! Who asks for an operation, from where, and what they may do. API and command line make a [`Caller`] when they have
//! authenticated somebody; `policy` decides with it, and the audit names it.

use crate::base::clock::Timestamp;
use crate::model::permission::{Rights, TeamLimit};
use crate::store::admin::TokenRow;

/// The caller of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As the audit names them: `token:tok_... (grafana)`, `uid:1000`.
    pub name: String,
    /// Where the request came from: an address and port, `unix socket` or `store`.
    pub address: String,
    pub kind: CallerKind,
    /// The teams that they may see and change.
    pub teams: TeamLimit,
    /// When their right to ask ends, if it does.
    pub until: Option<Timestamp>,
}

/// The kinds of caller. Each kind has its own way to say what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKind {
    /// Somebody who runs this installation.
    Operator(Rights),
}

impl Caller {
    pub fn operator(name: impl Into<String>, address: impl Into<String>, rights: Rights) -> Self {
        let (name, address, kind) = (name.into(), address.into(), CallerKind::Operator(rights));
        Self { name, address, kind, teams: TeamLimit::All, until: None }
    }

    /// The owner of a token.
    pub fn of_token(token: &TokenRow, address: impl Into<String>) -> Self {
        let caller = Self::operator(format!("token:{} ({})", token.id, token.name), address, token.scope);
        Self { teams: token.teams.clone(), until: Some(token.expires_at), ..caller }
    }

    /// The user at the other end of the unix socket: the daemon's own, or root. They have every right, since they can
    /// read the store and the keyring without asking us.
    pub fn unix_user(user: u32) -> Self {
        Self::operator(format!("uid:{user}"), "unix socket", Rights::ALL)
    }

    /// A user who works on the store itself while no daemon runs on it. They have every right, since they can read the
    /// store and the keyring.
    pub fn at_the_store(name: impl Into<String>) -> Self {
        Self::operator(name, "store", Rights::ALL)
    }
}
