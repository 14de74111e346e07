//! The arguments, as people type them.

mod callbacks;
mod local;
mod teams;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(super) use callbacks::{
    CallbacksCommand, DeadLettersCommand, EndpointsCommand, ExportFormat, Filters, Letters, OffsetsCommand, PageArgs,
    TasksCommand,
};
pub(super) use local::{ConfigCommand, KeyringCommand, MigrateArgs, StoreCommand};
pub(super) use teams::{AuditCommand, KeysCommand, TeamFields, TeamsCommand, TokensCommand};

#[derive(Debug, Parser)]
#[command(
    name = "callbackd",
    version,
    about = "Delivers the callbacks of finished tasks: Kafka in, signed POST out, a durable record of every one.",
    after_help = "Exit status: 0 done, 1 failed, 2 usage or refused, 3 not found, 4 not authenticated or allowed, \
                  5 daemon unreachable, 130 Ctrl-C.\n\
                  Example:\n  callbackd demo --events 200",
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) remote: Remote,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// The configuration file; without it, the defaults and CALLBACKD_ variables.
    #[arg(long, global = true, value_name = "FILE", env = "CALLBACKD_CONFIG", help_heading = "Configuration")]
    pub(super) config: Option<PathBuf>,
    /// Where the daemon's API is: unix:PATH, http://HOST:PORT or https://HOST:PORT. Else $CALLBACKD_API_URL, else the
    /// socket of the configuration.
    #[arg(long, global = true, value_name = "URL", help_heading = "API")]
    pub(super) api: Option<String>,
    /// A file with the API's bearer token. Else $CALLBACKD_TOKEN, else the file $CALLBACKD_TOKEN_FILE. The socket needs
    /// none.
    #[arg(long, global = true, value_name = "FILE", help_heading = "API")]
    pub(super) token_file: Option<PathBuf>,
    /// Certificate authorities to trust beside the web's for https://, a PEM file.
    #[arg(long, global = true, value_name = "FILE", env = "CALLBACKD_API_CA_FILE", help_heading = "API")]
    pub(super) api_ca_file: Option<PathBuf>,
    /// Print the API's JSON; an error as its problem object, on standard error.
    #[arg(long, global = true, conflicts_with = "jsonl", help_heading = "Output")]
    pub(super) json: bool,
    /// Of a list, print all pages, a document a line.
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) jsonl: bool,
    /// No progress and no hints.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGTERM; a second one ends it at once. SIGHUP reads its configuration again.
    #[command(after_help = "Example:\n  callbackd run --config /etc/callbackd/callbackd.toml")]
    Run,
    /// Show the whole way of a callback in one process: broker, receiver, every path, a ledger at the end.
    #[command(after_help = "Example:\n  callbackd demo --events 200")]
    Demo(DemoArgs),
    /// Look at everything that would keep the daemon from its work, a line each with its fix, before it runs.
    #[command(
        after_help = "Exit status 1 if anything would fail.\n\nExample:\n  callbackd check --config /etc/callbackd/callbackd.toml"
    )]
    Check,
    /// Ask a running daemon's ops listener whether it is ready; for containers.
    #[command(after_help = "Example:\n  callbackd healthcheck --config /etc/callbackd/callbackd.toml")]
    Healthcheck,
    /// Show, check and explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The file that seals teams' keys.
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Bring the store to this program's schema, while no daemon runs. `run` does so by itself.
    #[command(after_help = "Example:\n  callbackd migrate --status --config /etc/callbackd/callbackd.toml")]
    Migrate(MigrateArgs),
    /// Look into the store itself, while no daemon runs.
    #[command(subcommand)]
    Store(StoreCommand),
    /// How the daemon stands: lag, pending, oldest due, worst endpoints, instances.
    #[command(after_help = "Example:\n  callbackd status")]
    Status(StatusArgs),
    /// Everything that happened to one task, or why nothing is known of it.
    #[command(subcommand, visible_alias = "task")]
    Tasks(TasksCommand),
    /// Callbacks and their attempts.
    #[command(subcommand, visible_alias = "callback")]
    Callbacks(CallbacksCommand),
    /// Endpoints: where callbacks go, and how that goes lately.
    #[command(subcommand, visible_alias = "endpoint")]
    Endpoints(EndpointsCommand),
    /// Task events that can't become a callback.
    #[command(subcommand, visible_alias = "dead-letter")]
    DeadLetters(DeadLettersCommand),
    /// How far each partition was read, and where to start.
    #[command(subcommand, visible_alias = "offset")]
    Offsets(OffsetsCommand),
    /// Teams: default URLs, allowed origins, form of the auth header.
    #[command(subcommand, visible_alias = "team")]
    Teams(TeamsCommand),
    /// Keys of a team: create (not used yet), promote (sent from now on), revoke (used no more).
    #[command(subcommand, visible_alias = "key")]
    Keys(KeysCommand),
    /// Bearer tokens of the API.
    #[command(subcommand, visible_alias = "token")]
    Tokens(TokensCommand),
    /// Who changed what, when, and from where.
    #[command(subcommand)]
    Audit(AuditCommand),
    #[command(flatten)]
    Receivers(scale_callback::cli::Command),
    /// Print a script that completes commands in a shell.
    #[command(after_help = "Example:\n  callbackd completion bash")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the API's description, OpenAPI 3.1 as JSON.
    #[command(after_help = "Example:\n  callbackd openapi")]
    Openapi,
    /// Print the version.
    #[command(after_help = "Example:\n  callbackd version")]
    Version,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Produce this many events as fast as they are taken, print the ledger, and end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) events: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Again every two seconds, until Ctrl-C.
    #[arg(long)]
    pub(super) watch: bool,
    /// With --watch: this many times, and end.
    #[arg(long, value_name = "N", requires = "watch")]
    pub(super) times: Option<u64>,
}
