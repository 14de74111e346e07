//! Commands that work on the store itself. They hold its lock, so no daemon may run on it meanwhile.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::args::{MigrateArgs, NewTokenArgs, Remote, StoreCommand};
use super::table::{Look, record, say, table, whole};
use super::{Failure, duration};
use crate::base::clock::SystemClock;
use crate::config::Config;
use crate::ops::tokens::{self, NewToken};
use crate::store::{self, OpenError, Options, tools};

fn refused(error: impl ToString) -> Failure {
    Failure::new(Failure::REFUSED, error.to_string())
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Failure::FAILED, error.to_string())
}

fn wait<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?.block_on(work))
}

/// `callbackd migrate`.
pub(super) fn migrate(file: Option<&Path>, args: &MigrateArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(file).map_err(refused)?;
    let before = wait(tools::migrations(&config.store))?.map_err(refused)?;
    let waiting = before.iter().filter(|(_, applied)| !applied).count();
    if args.status || args.dry_run {
        let state = |applied: bool| match (applied, args.dry_run) {
            (true, _) => "applied",
            (false, true) => "would be applied",
            (false, false) => "not applied",
        };
        let docs: Vec<_> =
            before.iter().map(|(name, applied)| json!({ "name": name, "is": state(*applied) })).collect();
        say(&table(&docs, &[whole("MIGRATION", "name", 0), whole("IS", "is", 0)], Look::of_stdout()));
        return Ok(ExitCode::SUCCESS);
    }
    wait(tools::migrate(&config.store, Arc::new(SystemClock)))?.map_err(refused)?;
    say(&match waiting {
        0 => "nothing to do: the store already has this program's schema".to_owned(),
        count => format!("{count} migrations were applied"),
    });
    Ok(ExitCode::SUCCESS)
}

/// `callbackd store ...`.
pub(super) fn look(remote: &Remote, command: &StoreCommand) -> Result<ExitCode, Failure> {
    let config = Config::load(remote.config.as_deref()).map_err(refused)?;
    match command {
        StoreCommand::Info => {
            let info = wait(tools::info(&config.store))?.map_err(refused)?;
            let doc = json!({
                "path": config.store.to_string(),
                "store_id": info.store_id,
                "created_at": info.created_at.to_string(),
                "schema": info.schema,
                "oldest_writer": info.oldest_writer,
                "file_bytes": info.file_bytes,
                "pending": info.pending,
                "settled": info.settled,
                "attempts": info.attempts,
                "dead_letters": info.dead_letters,
                "teams": info.teams,
            });
            say(&if remote.json { doc.to_string() } else { record(&doc) });
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Backup { directory } => {
            let begun = Instant::now();
            let made = tools::backup(&config.store, directory).map_err(refused)?;
            let doc = json!({
                "directory": directory.display().to_string(),
                "store_id": made.store_id,
                "file_bytes": made.bytes,
                "seconds": begun.elapsed().as_secs(),
            });
            say(&if remote.json { doc.to_string() } else { record(&doc) });
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Copy(args) => super::copy::run(remote, args),
        StoreCommand::Verify => {
            let wrong = wait(tools::verify(&config.store))?.map_err(refused)?;
            if remote.json {
                say(&json!({ "ok": wrong.is_empty(), "wrong": wrong }).to_string());
            } else if wrong.is_empty() {
                say("the store is whole: its pages, indexes and rows fit together");
            } else {
                wrong.iter().for_each(|sentence| say(sentence));
            }
            Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Failure::FAILED) })
        }
    }
}

/// `callbackd tokens create --bootstrap`.
pub(super) fn bootstrap(remote: &Remote, args: NewTokenArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(remote.config.as_deref()).map_err(refused)?;
    let scope = tokens::scope(&args.scope.replace(',', " ")).map_err(refused)?;
    let valid_for = args.valid_for.as_deref().map(duration).transpose()?;
    let new = NewToken { name: args.name, scope, valid_for, teams: args.team };
    // One runtime for both: a store may have tasks of its own.
    let (row, value) = wait(async {
        // It is no daemon, so it needs no name.
        let options = Options { name: None, ..config.store_options.clone() };
        let store = store::open(&config.store, options, Arc::new(SystemClock)).await;
        let store = store.map_err(|error| match error {
            in_use @ (OpenError::InUse { .. } | OpenError::DatabaseInUse { .. }) => {
                refused(format!("{in_use}. To ask the running one, leave --bootstrap out"))
            }
            other => refused(other),
        })?;
        tokens::bootstrap(store.admin.as_ref(), &SystemClock, &new).await.map_err(failed)
    })??;
    let doc = json!({
        "token_id": row.id, "name": row.name, "scope": row.scope.name(), "expires_at": row.expires_at.to_string(),
        "value": value.as_str(),
    });
    say(&match (args.value_only, remote.json) {
        (true, _) => value.to_string(),
        (false, true) => doc.to_string(),
        (false, false) => record(&doc),
    });
    Ok(ExitCode::SUCCESS)
}
