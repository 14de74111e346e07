//! The arguments, as people type them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "callbackd",
    version,
    about = "Delivers the callbacks of finished tasks: Kafka in, signed POST out, a durable record of every one.",
    after_help = "Exit status: 0 done, 1 failed, 2 usage or refused, 3 not found, 4 not allowed, 5 daemon unreachable.",
    disable_help_subcommand = true
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) remote: Remote,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Where the daemon's API is: unix:PATH. Else $CALLBACKD_API_URL, else the socket of the configuration.
    #[arg(long, global = true, value_name = "URL")]
    pub(super) api: Option<String>,
    /// Print the API's JSON instead of a table.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGTERM; a second one ends it at once.
    #[command(after_help = "Example:\n  callbackd run --config /etc/callbackd/callbackd.toml")]
    Run(RunArgs),
    /// Show the whole way of a callback in one process: broker, receiver, every path, a ledger at the end.
    #[command(after_help = "Example:\n  callbackd demo --events 200")]
    Demo(DemoArgs),
    /// Show, check and explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The file that seals teams' keys.
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// How the daemon stands.
    #[command(after_help = "Example:\n  callbackd status")]
    Status,
    /// Everything that happened to one task.
    #[command(subcommand, visible_alias = "task")]
    Tasks(TasksCommand),
    /// Callbacks and their attempts.
    #[command(subcommand, visible_alias = "callback")]
    Callbacks(CallbacksCommand),
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
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration file; without it, the defaults and CALLBACKD_ variables.
    #[arg(long, value_name = "FILE", env = "CALLBACKD_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Produce this many events as fast as they are taken, print the ledger, and end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) events: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "CALLBACKD_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Every value, and where it came from.
    #[command(after_help = "Example:\n  callbackd config show --config callbackd.toml")]
    Show(ConfigFile),
    /// Read and check it, and say nothing if it is good.
    #[command(after_help = "Example:\n  callbackd config check --config callbackd.toml")]
    Check(ConfigFile),
    /// The complete, commented defaults.
    #[command(after_help = "Example:\n  callbackd config default > callbackd.toml")]
    Default,
    /// What one key means.
    #[command(after_help = "Example:\n  callbackd config explain deliver.lease")]
    Explain {
        /// A key, as section.key.
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyringCommand {
    /// Make a keyring file (0600). Never overwrites one.
    #[command(after_help = "Example:\n  callbackd keyring create /etc/callbackd/keyring")]
    Create {
        /// The file to make.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// Every callback and dead letter of a task, or why there is none.
    #[command(after_help = "Example:\n  callbackd tasks get 6583f1a2b0c4d5e6f7081920")]
    Get {
        /// The task's id.
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CallbacksCommand {
    /// Callbacks that match, newest event first.
    #[command(after_help = "Example:\n  callbackd callbacks list --team team_acme --state exhausted")]
    List {
        /// Of this team.
        #[arg(long)]
        team: Option<String>,
        /// Of this task.
        #[arg(long)]
        task: Option<String>,
        /// pending, delivered, exhausted or abandoned.
        #[arg(long)]
        state: Option<String>,
        /// Go on below this id: the next_token of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One callback.
    #[command(after_help = "Example:\n  callbackd callbacks get cb_01kav9ft00zkek0kfes3qvf608")]
    Get {
        /// The callback's id, which is its webhook-id.
        id: String,
    },
    /// What each attempt came to.
    #[command(after_help = "Example:\n  callbackd callbacks attempts cb_01kav9ft00zkek0kfes3qvf608")]
    Attempts {
        /// The callback's id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Dead letters, newest first.
    #[command(after_help = "Example:\n  callbackd dead-letters list")]
    List {
        /// Of this task.
        #[arg(long)]
        task: Option<String>,
        /// Go on below this id: the next_token of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One dead letter, with its bytes.
    #[command(after_help = "Example:\n  callbackd dead-letters get dl_01kav9ft00zkek0kfes3qvf608")]
    Get {
        /// The dead letter's id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum OffsetsCommand {
    /// Every partition's watermark.
    #[command(after_help = "Example:\n  callbackd offsets show")]
    Show,
    /// Start partitions whose Kafka offsets speak of another store.
    #[command(after_help = "Example:\n  callbackd offsets accept --from committed")]
    Accept {
        /// earliest (repeats what the lost store had sent), committed (may lose what it had not), or end.
        #[arg(long, value_parser = ["earliest", "committed", "end"])]
        from: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct TeamFields {
    /// A name for people.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Where callbacks go whose task has no URL; "" takes it away.
    #[arg(long, value_name = "URL")]
    pub(super) default_url: Option<String>,
    /// The same for test tasks, where it is another one; "" takes it away.
    #[arg(long, value_name = "URL")]
    pub(super) default_url_test: Option<String>,
    /// The only origins that callbacks may go to; repeat it, or "" for any.
    #[arg(long, value_name = "ORIGIN")]
    pub(super) allow_origin: Vec<String>,
    /// The form of scale-callback-auth: key or hmac.
    #[arg(long, value_name = "FORM")]
    pub(super) auth_form: Option<String>,
    /// An origin with a form of its own: ORIGIN=key or ORIGIN=hmac; repeat it, or "" for none.
    #[arg(long, value_name = "ORIGIN=FORM")]
    pub(super) origin_form: Vec<String>,
    /// http:// URLs: allow, hmac-only or refuse; "" follows the installation.
    #[arg(long, value_name = "POLICY")]
    pub(super) http: Option<String>,
    /// Retries instead of the installation's number.
    #[arg(long, value_name = "N")]
    pub(super) retries: Option<u32>,
    /// Hours of retries instead of the installation's horizon.
    #[arg(long, value_name = "HOURS")]
    pub(super) horizon_hours: Option<u64>,
    /// Whether a 410 ends a callback.
    #[arg(long, value_name = "BOOL")]
    pub(super) end_on_gone: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TeamsCommand {
    /// All teams.
    #[command(after_help = "Example:\n  callbackd teams list")]
    List {
        /// Go on behind this id: the next_token of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One team.
    #[command(after_help = "Example:\n  callbackd teams get team_acme")]
    Get {
        /// The team's id.
        team: String,
    },
    /// Make a team; its keys are made and promoted.
    #[command(after_help = "Example:\n  callbackd teams create team_acme --default-url https://acme.example/callbacks")]
    Create {
        /// The team's id, as task events name it.
        team: String,
        #[command(flatten)]
        fields: TeamFields,
    },
    /// Change what is given.
    #[command(after_help = "Example:\n  callbackd teams update team_acme --auth-form hmac")]
    Update {
        /// The team's id.
        team: String,
        #[command(flatten)]
        fields: TeamFields,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// A team's keys, without their values.
    #[command(after_help = "Example:\n  callbackd keys list --team team_acme")]
    List {
        /// The team's id.
        #[arg(long)]
        team: String,
    },
    /// Make a key that is not used yet, or take over one; its value is printed this once.
    #[command(after_help = "Example:\n  callbackd keys create --team team_acme --kind signing --mode live")]
    Create {
        /// The team's id.
        #[arg(long)]
        team: String,
        /// callback-auth, hmac or signing.
        #[arg(long, value_parser = ["callback-auth", "hmac", "signing"])]
        kind: String,
        /// live or test.
        #[arg(long, value_parser = ["live", "test"])]
        mode: String,
        /// Take over the key in this file ("-" for standard input) that was handed out before.
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Use a key from now on, or from a time.
    #[command(after_help = "Example:\n  callbackd keys promote key_0123456789abcdef --team team_acme")]
    Promote {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
        /// From this time on, RFC 3339.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Use a key no more.
    #[command(after_help = "Example:\n  callbackd keys revoke key_0123456789abcdef --team team_acme")]
    Revoke {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
        /// Even the last one: callbacks then wait for another.
        #[arg(long)]
        force: bool,
    },
    /// Print a key's value. It is audited.
    #[command(after_help = "Example:\n  callbackd keys reveal key_0123456789abcdef --team team_acme")]
    Reveal {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
    },
}
