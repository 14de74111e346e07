//! Arguments of the commands that need no running daemon: configuration, keyring, store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Show every value, and where it came from.
    #[command(after_help = "Example:\n  callbackd config show --config callbackd.toml")]
    Show,
    /// Check the configuration. Nothing is printed if it is correct.
    #[command(after_help = "Example:\n  callbackd config check --config callbackd.toml")]
    Check,
    /// Print the default configuration with all its comments.
    #[command(after_help = "Example:\n  callbackd config default > callbackd.toml")]
    Default,
    /// Show the log level of a running daemon. With LEVEL, set it until the next restart or reload.
    #[command(after_help = "Example:\n  callbackd config log-level debug")]
    LogLevel {
        /// A level or a filter, for example: info, debug, callbackd=debug,info.
        level: Option<String>,
    },
    /// Explain one setting, or all settings of a section.
    #[command(after_help = "Example:\n  callbackd config explain deliver.lease")]
    Explain {
        /// The setting, written as section.key, or the name of a section.
        key: String,
    },
}

impl ConfigCommand {
    pub(in crate::cli) fn asks_a_daemon(&self) -> bool {
        matches!(self, Self::LogLevel { .. })
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyringCommand {
    /// Create a keyring file with mode 0600. An existing file is never overwritten.
    #[command(after_help = "Example:\n  callbackd keyring create /etc/callbackd/keyring")]
    Create {
        /// The file to create.
        file: PathBuf,
    },
    /// List the sealing keys of a keyring by their ids, without their bytes.
    #[command(after_help = "Example:\n  callbackd keyring status --config /etc/callbackd/callbackd.toml")]
    Status,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MigrateArgs {
    /// Only show which migrations are applied and which are not.
    #[arg(long)]
    pub(in crate::cli) status: bool,
    /// Only show which migrations would be applied.
    #[arg(long, conflicts_with = "status")]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// Show the store's id, schema and size, and how much it holds.
    #[command(after_help = "Example:\n  callbackd store info --config /etc/callbackd/callbackd.toml")]
    Info,
    /// Copy a SQLite store into a new directory, also while a daemon works on it. The copy is one moment of the store.
    #[command(
        after_help = "The keyring and the configuration are not in it.\n\nExample:\n  callbackd store backup /backup/callbackd-2027-01-01 --config /etc/callbackd/callbackd.toml"
    )]
    Backup {
        /// The directory to make. It must not exist.
        directory: PathBuf,
    },
    /// Move a SQLite store to an empty PostgreSQL database. Most of it is copied while the daemon works.
    ///
    /// It can be broken off at any moment: the same command goes on where it was. With --finish, it waits until the daemon has ended, copies
    /// what is left, compares both stores, and seals the old one, so that no daemon opens it any more.
    #[command(
        after_help = "Run it as the daemon's user.\n\nExample:\n  callbackd store copy --to postgres://callbackd@db/callbackd --finish --config /etc/callbackd/callbackd.toml"
    )]
    Copy(CopyArgs),
    /// Read the whole store and check that its pages, indexes and rows fit together.
    #[command(
        after_help = "The exit status is 1 if anything is wrong.\n\nExample:\n  callbackd store verify --config /etc/callbackd/callbackd.toml"
    )]
    Verify,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// The database, without a password: everybody on this machine can see arguments.
    #[arg(long, value_name = "URL", required_unless_present_any = ["to_file", "cancel"], conflicts_with = "to_file")]
    pub(in crate::cli) to: Option<String>,
    /// A file with the URL of the database and its password; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) to_file: Option<PathBuf>,
    /// Wait until the daemon has ended, and finish the copy.
    #[arg(long)]
    pub(in crate::cli) finish: bool,
    /// Do not compare both stores at the end. It makes the stop of a very large store shorter.
    #[arg(long, requires = "finish")]
    pub(in crate::cli) no_compare: bool,
    /// Give an unfinished copy up: the store logs its changes no more. What is in the database stays there.
    #[arg(long, conflicts_with_all = ["to", "to_file", "finish"])]
    pub(in crate::cli) cancel: bool,
}
