//! Who changed what, when, and from where.

use super::caller::Caller;
use super::policy::Operation;
use super::{OpsError, Session};
use crate::store::admin::{AuditEntry, AuditFilter, AuditRow, TeamRows};

impl Caller {
    /// The audit's row of an operation. `change` holds no secret.
    pub(super) fn entry(
        &self,
        operation: Operation,
        object: impl Into<String>,
        change: impl Into<String>,
    ) -> AuditEntry {
        AuditEntry {
            caller: self.name.clone(),
            address: self.address.clone(),
            action: operation.action().unwrap_or(operation.name()),
            object: object.into(),
            change: change.into(),
        }
    }
}

impl Session {
    /// Audit rows that match, newest first, older than the row `before`. Where more follow, the answer has one row more
    /// than `limit`.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditRow>, OpsError> {
        self.allow(Operation::Audit)?;
        let by_team = || Operation::ALL.iter().filter(|operation| operation.is_audited_by_team());
        let of_teams = self.caller.teams.names().map(|teams| TeamRows {
            teams: teams.iter().cloned().collect(),
            actions: by_team().filter_map(|operation| operation.action()).collect(),
        });
        let filter = AuditFilter { of_teams, ..filter };
        Ok(self.parts().admin.audit(filter, before, limit.saturating_add(1)).await?)
    }
}
