//! Arguments about callbacks, tasks, endpoints, dead letters and offsets.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which callbacks; every given one must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Filters {
    /// Of this team.
    #[arg(long)]
    pub(in crate::cli) team: Option<String>,
    /// Of this task.
    #[arg(long)]
    pub(in crate::cli) task: Option<String>,
    /// To this origin (https://HOST:PORT), or following a default: default:live, default:test.
    #[arg(long, value_name = "ORIGIN")]
    pub(in crate::cli) endpoint: Option<String>,
    /// pending, delivered, exhausted or abandoned.
    #[arg(long)]
    pub(in crate::cli) state: Option<String>,
    /// Why it was abandoned: no_url, url_invalid, address_denied, ...
    #[arg(long)]
    pub(in crate::cli) reason: Option<String>,
    /// What its last attempt came to: ok, server_error, connect_refused, ...
    #[arg(long)]
    pub(in crate::cli) outcome: Option<String>,
    /// live or test.
    #[arg(long)]
    pub(in crate::cli) mode: Option<String>,
    /// Whose event is of this time or later: RFC 3339, or so long ago: 30m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Whose event is older than this.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pages")]
pub(in crate::cli) struct PageArgs {
    /// How many at most: 1 to 1000 a page; with --jsonl in all, and then any number.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
    /// Go on where the page before ended.
    #[arg(long, value_name = "TOKEN")]
    pub(in crate::cli) next: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TasksCommand {
    /// Every callback and dead letter of a task, or why there is none.
    #[command(after_help = "Example:\n  callbackd tasks get 6583f1a2b0c4d5e6f7081920")]
    Get {
        /// The task's id.
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CallbacksCommand {
    /// Callbacks that match, newest event first.
    #[command(after_help = "Example:\n  callbackd callbacks list --team team_acme --state exhausted --since 7d")]
    List {
        #[command(flatten)]
        filters: Filters,
        #[command(flatten)]
        page: PageArgs,
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
    /// The body of a pending callback, as it is sent; control characters escaped on a terminal.
    #[command(after_help = "Example:\n  callbackd callbacks payload cb_01kav9ft00zkek0kfes3qvf608")]
    Payload {
        /// The callback's id.
        id: String,
    },
    /// Print the last ten callbacks that match, and then each as it comes or changes, until Ctrl-C.
    #[command(after_help = "Example:\n  callbackd callbacks watch --team team_acme --count 2")]
    Watch {
        #[command(flatten)]
        filters: Filters,
        /// End after this many lines.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// All callbacks that match, into a file.
    #[command(
        after_help = "Example:\n  callbackd callbacks export --state exhausted --format csv --output exhausted.csv"
    )]
    Export {
        #[command(flatten)]
        filters: Filters,
        /// A document a line, or a table with a header.
        #[arg(long, value_enum, default_value = "jsonl")]
        format: ExportFormat,
        /// Where to; standard output where not given. Never overwrites a file.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    Jsonl,
    Csv,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EndpointsCommand {
    /// Endpoints in use lately or with pending callbacks.
    #[command(after_help = "Example:\n  callbackd endpoints list --team team_acme")]
    List {
        /// Of this team.
        #[arg(long)]
        team: Option<String>,
        /// active or limited.
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// One endpoint.
    #[command(after_help = "Example:\n  callbackd endpoints get team_acme https://acme.example:443")]
    Get {
        /// The team's id.
        team: String,
        /// Scheme, host and port.
        origin: String,
    },
    /// Send a signed test callback to a URL, from the daemon's network, and tell each step.
    #[command(
        after_help = "Exit status 1 if it does not get a 2xx.\n\nExample:\n  callbackd endpoints check team_acme https://acme.example/callbacks"
    )]
    Check {
        /// The team's id.
        team: String,
        /// The URL.
        url: String,
        /// With the keys of this mode.
        #[arg(long, default_value = "test")]
        mode: String,
    },
}

/// Which dead letters; every given one must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Letters {
    /// Of this team, as far as the record named one.
    #[arg(long)]
    pub(in crate::cli) team: Option<String>,
    /// Of this task, as far as the record named one.
    #[arg(long)]
    pub(in crate::cli) task: Option<String>,
    /// Why: not_json, unknown_team, ...
    #[arg(long)]
    pub(in crate::cli) reason: Option<String>,
    /// Of a record of this time or later: RFC 3339, or so long ago: 30m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Of a record older than this.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadLettersCommand {
    /// Dead letters, newest first.
    #[command(after_help = "Example:\n  callbackd dead-letters list --reason unknown_team")]
    List {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        page: PageArgs,
    },
    /// One dead letter, with its bytes.
    #[command(after_help = "Example:\n  callbackd dead-letters get dl_01kav9ft00zkek0kfes3qvf608")]
    Get {
        /// The dead letter's id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum OffsetsCommand {
    /// Every partition's watermark, and how far behind it is.
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
