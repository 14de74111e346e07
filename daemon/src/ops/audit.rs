//! Who changed what, when, and from where.

use super::{Ops, OpsError};
use crate::store::admin::{AuditFilter, AuditRow};

impl Ops {
    /// Audit rows that match, newest first, below `before`; one more than `limit` where more follow.
    ///
    /// # Errors
    /// The store's.
    pub async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditRow>, OpsError> {
        Ok(self.admin.audit(filter, before, limit.saturating_add(1)).await?)
    }
}
