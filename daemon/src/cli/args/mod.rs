//! The arguments, as people type them.

mod callbacks;
mod installation;
mod local;
mod teams;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

pub(super) use callbacks::{
    CallbacksCommand, DeadLettersCommand, ExportArgs, ExportFormat, Filters, Letters, LettersArgs, PageArgs,
    PendingArgs, ResendArgs, ResendsCommand, TasksCommand,
};
pub(super) use installation::{
    ClockCommand, ConsentArgs, DeliveryCommand, EndpointsCommand, InstancesCommand, OffsetsCommand,
};
pub(super) use local::{ConfigCommand, CopyArgs, KeyringCommand, MigrateArgs, StoreCommand};
pub(super) use teams::{AuditCommand, KeysCommand, NewTokenArgs, TeamFields, TeamsCommand, TokensCommand};

#[derive(Debug, Parser)]
#[command(
    name = "callbackd",
    version,
    about = "Delivers the callbacks of finished tasks. It reads task events from Kafka, sends signed POST requests to the customers' URLs, and records what happened to each callback.",
    after_help = "To see it work, without Kafka and without any configuration: callbackd demo\n\
                  To explain a word such as lane or watermark: callbackd glossary WORD\n\
                  Exit status: 0 done, 1 failed, 2 wrong usage or refused, 3 not found, 4 not authenticated or not \
                  allowed, 5 the daemon can't be reached, 6 what was waited for ended badly, 130 Ctrl-C.\n\
                  Example:\n  callbackd demo --events 200"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) remote: Remote,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// The configuration file. Without it, only the defaults and the variables CALLBACKD_SECTION__KEY apply.
    #[arg(long, global = true, value_name = "FILE", env = "CALLBACKD_CONFIG", help_heading = "Configuration")]
    pub(super) config: Option<PathBuf>,
    /// The address of the daemon's API: unix:PATH, http://HOST:PORT or https://HOST:PORT. Without it,
    /// $CALLBACKD_API_URL is used, or else the unix socket that the configuration names.
    #[arg(long, global = true, value_name = "URL", help_heading = "API")]
    pub(super) api: Option<String>,
    /// A file with the bearer token for the API. Without it, $CALLBACKD_TOKEN is used, or else the file that
    /// $CALLBACKD_TOKEN_FILE names. The unix socket needs no token.
    #[arg(long, global = true, value_name = "FILE", help_heading = "API")]
    pub(super) token_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust for https://, in addition to the public ones.
    #[arg(long, global = true, value_name = "FILE", env = "CALLBACKD_API_CA_FILE", help_heading = "API")]
    pub(super) api_ca_file: Option<PathBuf>,
    /// Print the API's JSON. An error is printed as a problem object on standard error.
    #[arg(long, global = true, conflicts_with = "jsonl", help_heading = "Output")]
    pub(super) json: bool,
    /// Print all pages of a list, one JSON document per line.
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) jsonl: bool,
    /// Print no progress and no hints.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGTERM. A second SIGTERM ends it at once. On SIGHUP it reads its configuration again.
    #[command(after_help = "Example:\n  callbackd run --config /etc/callbackd/callbackd.toml")]
    Run(RunArgs),
    /// Show how callbacks are delivered, with a broker and a receiver in this one program. A ledger at the end compares
    /// what was produced, received and stored.
    #[command(after_help = "Example:\n  callbackd demo --events 200")]
    Demo(DemoArgs),
    /// Check everything that could stop the daemon from working, before it runs. Each problem is printed with its fix.
    #[command(
        after_help = "The exit status is 1 if anything would fail.\n\nExample:\n  callbackd check --config /etc/callbackd/callbackd.toml"
    )]
    Check,
    /// Ask a running daemon whether it is ready, at the address of ops.listen. Health checks of containers use this.
    #[command(after_help = "Example:\n  callbackd healthcheck --config /etc/callbackd/callbackd.toml")]
    Healthcheck,
    /// Show, check and explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage the keyring: the file with which the teams' keys are encrypted in the store.
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Bring the store to the schema of this program. The command run does this by itself. With SQLite, no daemon may use the store
    /// meanwhile.
    #[command(after_help = "Example:\n  callbackd migrate --status --config /etc/callbackd/callbackd.toml")]
    Migrate(MigrateArgs),
    /// Look into the store itself while no daemon uses it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show how the daemon is doing: how far it is behind, what waits, its worst endpoints, and its last instances.
    #[command(after_help = "Example:\n  callbackd status")]
    Status(StatusArgs),
    /// Show what happened to a task, or why nothing is known of it.
    #[command(subcommand, visible_alias = "task")]
    Tasks(TasksCommand),
    /// Show callbacks and their attempts, and send them again.
    #[command(subcommand, visible_alias = "callback")]
    Callbacks(CallbacksCommand),
    /// Show and control the jobs that send many callbacks again.
    #[command(subcommand, visible_alias = "resend")]
    Resends(ResendsCommand),
    /// Show endpoints: the places where callbacks go, and the outcomes of their last attempts.
    #[command(subcommand, visible_alias = "endpoint")]
    Endpoints(EndpointsCommand),
    /// Show dead letters: task events that can't become a callback. Send them again once they can.
    #[command(subcommand, visible_alias = "dead-letter")]
    DeadLetters(DeadLettersCommand),
    /// Show how far each partition was read, and choose where to start reading.
    #[command(subcommand, visible_alias = "offset")]
    Offsets(OffsetsCommand),
    /// Show which callbackd run on this store, and how many partitions each of them reads.
    #[command(subcommand, visible_alias = "instance")]
    Instances(InstancesCommand),
    /// Say that the wall clock is right, after it made a step.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Manage teams: their default URLs, allowed origins, and the form of the auth header.
    #[command(subcommand, visible_alias = "team")]
    Teams(TeamsCommand),
    /// Show what is paused; pause all deliveries, and resume them.
    #[command(subcommand)]
    Delivery(DeliveryCommand),
    /// Manage a team's keys. A created key is not used until it is promoted. A revoked key is not used any more.
    #[command(subcommand, visible_alias = "key")]
    Keys(KeysCommand),
    /// Manage bearer tokens of the API.
    #[command(subcommand, visible_alias = "token")]
    Tokens(TokensCommand),
    /// Show who changed what, when, and from where.
    #[command(subcommand)]
    Audit(AuditCommand),
    #[command(flatten)]
    Receivers(scale_callback::cli::Command),
    /// Explain the words that callbackd uses, all of them or one.
    #[command(after_help = "Example:\n  callbackd glossary lane")]
    Glossary {
        /// The word to explain. Without it, all words are explained.
        word: Option<String>,
    },
    /// Print a script with which a shell completes commands.
    #[command(after_help = "Example:\n  callbackd completion bash")]
    Completion {
        /// The shell that reads the script.
        shell: clap_complete::Shell,
    },
    /// Print the description of the API: OpenAPI 3.1, as JSON.
    #[command(after_help = "Example:\n  callbackd openapi")]
    Openapi,
    /// Print the version.
    #[command(after_help = "Example:\n  callbackd version")]
    Version,
    /// Read records in a process of its own. The daemon starts this; it is not for people.
    #[command(name = crate::intake::sandbox::COMMAND, hide = true)]
    ReadSandboxed,
    /// Make one attempt in a process of its own. The daemon starts this; it is not for people.
    #[command(name = crate::deliver::suspect::COMMAND, hide = true)]
    AttemptSandboxed,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Start everything but read no record from Kafka, so that teams can be created before their events are read. The daemon
    /// is not ready then. Restart it without this option to begin.
    #[arg(long)]
    pub(super) hold_intake: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Produce this many events as fast as possible, print the ledger, and end.
    #[arg(long, value_name = "N", value_parser = number_of_events)]
    pub(super) events: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show the status again every two seconds, until Ctrl-C.
    #[arg(long)]
    pub(super) watch: bool,
    /// With --watch: show the status this many times, then end.
    #[arg(long, value_name = "N", requires = "watch", value_parser = whole_number::<u64>)]
    pub(super) times: Option<u64>,
}

/// Reads a number. The sentence of the standard library says nothing to a person.
fn whole_number<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "write a whole number, such as 20")
}

fn number_of_events(text: &str) -> Result<u64, &'static str> {
    let events = text.parse().ok().filter(|events| (1..=100_000).contains(events));
    events.ok_or("write a whole number from 1 to 100000")
}
