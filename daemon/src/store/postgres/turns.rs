//! Work that one process at a time does: each kind has an advisory lock, which ends with its transaction.

use tokio_postgres::Client;

use super::error::PostgresError;
use super::transaction::Tx;

/// The first number of these locks.
const TURN: i32 = 0x6361_6c74;

#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Migration = 1,
    /// An instance begins.
    Begin = 2,
    Leases = 3,
    Sweep = 4,
    Prune = 5,
    SetBack = 6,
    Days = 7,
}

/// Waits for the turn.
pub(super) async fn wait(transaction: &Tx<'_>, turn: Turn) -> Result<(), PostgresError> {
    transaction.execute("SELECT pg_advisory_xact_lock($1, $2)", &[&TURN, &(turn as i32)]).await?;
    Ok(())
}

/// Waits until nobody has the turn, and leaves it to others. The connection must be a session of its own.
pub(super) async fn let_pass(client: &Client, turn: Turn) -> Result<(), tokio_postgres::Error> {
    for lock in ["SELECT pg_advisory_lock_shared($1, $2)", "SELECT pg_advisory_unlock_shared($1, $2)"] {
        client.execute(lock, &[&TURN, &(turn as i32)]).await?;
    }
    Ok(())
}

/// Takes the turn. False if another process has it.
pub(super) async fn take(transaction: &Tx<'_>, turn: Turn) -> Result<bool, PostgresError> {
    let row = transaction.query_one("SELECT pg_try_advisory_xact_lock($1, $2)", &[&TURN, &(turn as i32)]).await?;
    Ok(row.try_get(0)?)
}
