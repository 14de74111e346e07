//! How transactions begin and end.

use deadpool_postgres::Object;
use futures_util::FutureExt as _;
use tokio_postgres::IsolationLevel;

use super::error::PostgresError;
use super::pipeline::{Answers, Failed, OnItsWay, Pipeline};
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

/// A transaction whose statements are sent together, the first ones with BEGIN and the last ones with COMMIT. If it is dropped before
/// COMMIT is sent, it is rolled back.
pub(super) struct Open<'c> {
    client: &'c Object,
    is_open: bool,
}

impl<'c> Open<'c> {
    /// Begins, and waits for the answers to the first statements.
    pub(super) async fn begin(client: &'c mut Object, first: Pipeline<'_>) -> Result<(Self, Answers), PostgresError> {
        let client: &'c Object = client;
        let first = first.prepared(client).await?;
        // Later statements see what was committed while earlier ones waited, whatever the database's own default is.
        let begin = OnItsWay::send(client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")).await;
        let mut transaction = Self { client, is_open: true };
        let sent = first.send(client).await;
        if let Err(error) = begin.answer().await {
            transaction.is_open = false;
            return Err(error.into());
        }
        let answers = sent?.answers().await.map_err(Failed::alone)?;
        Ok((transaction, answers))
    }

    /// The connection, for a statement whose answer decides about the next one. It must not begin or end a transaction.
    pub(super) fn client(&self) -> &Object {
        self.client
    }

    /// Sends statements whose answers decide whether others follow.
    pub(super) async fn run(&self, statements: Pipeline<'_>) -> Result<Answers, PostgresError> {
        let sent = statements.prepared(self.client).await?.send(self.client).await?;
        sent.answers().await.map_err(Failed::alone)
    }

    /// Sends the last statements with COMMIT, and waits for all answers. COMMIT is sent only if every statement before it could be sent.
    /// If one of them fails at the server, COMMIT rolls back: the server says so in its answer, but not as an error, so it is the
    /// statements' answers that count. As in [`commit_watched`], a warning puts the commit in doubt.
    pub(super) async fn commit(mut self, last: Pipeline<'_>, warnings: &Warnings) -> Result<(), PostgresError> {
        let last = last.prepared(self.client).await?;
        let before = warnings.count();
        let sent = last.send(self.client).await?;
        // From here on nothing takes it back, not even the end of this call.
        self.is_open = false;
        let commit = OnItsWay::send(self.client.batch_execute("COMMIT")).await;
        let answers = sent.answers().await;
        let committed = commit.answer().await;
        answers.map_err(Failed::before_commit)?;
        committed.map_err(PostgresError::Commit)?;
        if warnings.count() == before { Ok(()) } else { Err(PostgresError::CommitInDoubt) }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // It is sent at its first poll. The connection reads the answer, and whoever uses it next comes after it.
            drop(self.client.batch_execute("ROLLBACK").now_or_never());
        }
    }
}
