//! Tokens of this API, and the audit.

use scale_callback_serve::text::printable;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::ScopeName;
use super::time;
use crate::base::clock::Timestamp;
use crate::store::admin::{AuditRow, TokenRow};

/// A bearer token, without its value.
#[derive(Serialize, ToSchema)]
pub struct TokenShape {
    pub token_id: String,
    pub name: String,
    /// What the token may do.
    #[schema(value_type = ScopeName)]
    pub scope: String,
    /// valid, expired or revoked.
    pub state: &'static str,
    /// The last four characters of the value.
    pub last4: String,
    pub created_at: String,
    pub expires_at: String,
    pub revoked_at: Option<String>,
    /// The only teams that the token may see and change; null if it is for all teams and the installation.
    pub teams: Option<Vec<String>>,
    /// When it was last used, recorded at most once a minute.
    pub used_at: Option<String>,
    /// Only in the answer to the token's creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl TokenShape {
    pub fn new(row: &TokenRow, now: Timestamp) -> Self {
        let state = match row.revoked_at {
            Some(_) => "revoked",
            None if row.is_valid(now) => "valid",
            None => "expired",
        };
        Self {
            token_id: row.id.clone(),
            name: row.name.clone(),
            scope: row.scope.name(),
            state,
            last4: row.last4.clone(),
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.to_string(),
            revoked_at: time(row.revoked_at),
            teams: row.teams.names().map(|teams| teams.iter().cloned().collect()),
            used_at: time(row.used_at),
            value: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenShape {
    /// Whose token it is. The audit shows this name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What the token may do.
    #[schema(value_type = ScopeName)]
    pub scope: String,
    /// The only teams that the token may see and change, by their ids. All teams of the caller if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 100)]
    pub teams: Option<Vec<String>>,
    /// 90 days unless given, but never longer than the caller's own token; at least 60 seconds, at most 366 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 31_622_400)]
    pub valid_for_seconds: Option<u64>,
}

/// Who changed what, when, and from where.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditShape {
    pub audit_id: i64,
    pub at: String,
    /// Who changed it: a token, or a user of the unix socket.
    pub caller: String,
    /// Where the caller was: an address and port, or the unix socket.
    pub address: String,
    pub action: String,
    /// The team, token or setting that was changed.
    pub object: String,
    /// The values before and after, without secrets.
    pub change: String,
}

impl AuditShape {
    pub fn new(row: &AuditRow) -> Self {
        let text = |text: &str| printable(text.as_bytes(), 4096);
        Self {
            audit_id: row.id,
            at: row.at.to_string(),
            caller: text(&row.caller),
            address: text(&row.address),
            action: row.action.clone(),
            object: text(&row.object),
            change: text(&row.change),
        }
    }
}
