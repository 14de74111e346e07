//! How transactions begin and end.

use deadpool_postgres::Object;
use tokio_postgres::IsolationLevel;

use super::error::PostgresError;
use super::session::Warnings;

/// A transaction of this store.
pub(super) type Tx<'t> = deadpool_postgres::Transaction<'t>;

/// Commits, and tells an answer that did not come from a refusal.
pub(super) async fn commit(transaction: Tx<'_>) -> Result<(), PostgresError> {
    transaction.commit().await.map_err(PostgresError::Commit)
}

/// Commits. A commit that the server acknowledged with a warning counts as one without an answer: its wait for a synchronous
/// standby was cancelled.
pub(super) async fn commit_watched(transaction: Tx<'_>, warnings: &Warnings) -> Result<(), PostgresError> {
    let before = warnings.count();
    commit(transaction).await?;
    if warnings.count() == before { Ok(()) } else { Err(PostgresError::CommitInDoubt) }
}

/// One picture of the database for all statements of a read.
pub(super) async fn begin_read(client: &mut Object) -> Result<Tx<'_>, PostgresError> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(builder.start().await?)
}
