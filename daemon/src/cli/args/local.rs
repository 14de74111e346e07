//! Arguments of what needs no running daemon: configuration, keyring, store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Every value, and where it came from.
    #[command(after_help = "Example:\n  callbackd config show --config callbackd.toml")]
    Show,
    /// Read and check it, and say nothing if it is good.
    #[command(after_help = "Example:\n  callbackd config check --config callbackd.toml")]
    Check,
    /// The complete, commented defaults.
    #[command(after_help = "Example:\n  callbackd config default > callbackd.toml")]
    Default,
    /// The level of a running daemon's logs; with LEVEL, turn it until the next restart or reload.
    #[command(after_help = "Example:\n  callbackd config log-level debug")]
    LogLevel {
        /// A level or filter: info, debug, callbackd=debug,info.
        level: Option<String>,
    },
    /// What one key means.
    #[command(after_help = "Example:\n  callbackd config explain deliver.lease")]
    Explain {
        /// A key, as section.key.
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
    /// Make a keyring file (0600). Never overwrites one.
    #[command(after_help = "Example:\n  callbackd keyring create /etc/callbackd/keyring")]
    Create {
        /// The file to make.
        file: PathBuf,
    },
    /// Which sealing keys a keyring holds; never their bytes.
    #[command(after_help = "Example:\n  callbackd keyring status --config /etc/callbackd/callbackd.toml")]
    Status,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MigrateArgs {
    /// Say which migrations are applied and which are not, and change nothing.
    #[arg(long)]
    pub(in crate::cli) status: bool,
    /// Say what would be done, and change nothing.
    #[arg(long, conflicts_with = "status")]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// Which store it is, its schema, its files, and what it holds.
    #[command(after_help = "Example:\n  callbackd store info --config /etc/callbackd/callbackd.toml")]
    Info,
    /// Read everything and check it: the pages of the file, and that rows fit together.
    #[command(
        after_help = "Exit status 1 if anything is wrong.\n\nExample:\n  callbackd store verify --config /etc/callbackd/callbackd.toml"
    )]
    Verify,
}
