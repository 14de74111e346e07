//! Arguments about callbacks, tasks, endpoints, dead letters and offsets.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::whole_number;

/// Which callbacks. Every given filter must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Filters {
    /// Only callbacks of this team.
    #[arg(long)]
    pub(in crate::cli) team: Option<String>,
    /// Only callbacks of this task.
    #[arg(long)]
    pub(in crate::cli) task: Option<String>,
    /// Only callbacks to this origin (https://HOST:PORT), only those that use the team's default URL (default:live,
    /// default:test), or only those whose task has an invalid URL of its own (none).
    #[arg(long, value_name = "ORIGIN")]
    pub(in crate::cli) endpoint: Option<String>,
    /// Only callbacks in this state: pending, delivered, exhausted or abandoned.
    #[arg(long)]
    pub(in crate::cli) state: Option<String>,
    /// Only callbacks that were abandoned for this reason: no_url, url_invalid, address_denied, ...
    #[arg(long)]
    pub(in crate::cli) reason: Option<String>,
    /// Only callbacks whose last attempt had this outcome: ok, server_error, connect_refused, ...
    #[arg(long)]
    pub(in crate::cli) outcome: Option<String>,
    /// Only callbacks whose last attempt was answered with this HTTP status.
    #[arg(long, value_name = "CODE", value_parser = whole_number::<u16>)]
    pub(in crate::cli) status: Option<u16>,
    /// Only callbacks of this mode: live or test.
    #[arg(long)]
    pub(in crate::cli) mode: Option<String>,
    /// Only callbacks with an attempt that failed between these two times, for example while a receiver was down: 3h..2h, or
    /// 2026-11-24T14:00:00Z..2026-11-24T15:00:00Z. Without the second time, as in 3h, until now.
    #[arg(long, value_name = "FROM..UNTIL")]
    pub(in crate::cli) failed_between: Option<String>,
    /// Only callbacks whose event happened at this time or later. Write how long ago (30m, 2h, 7d), a date (its
    /// midnight in UTC), or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Only callbacks whose event is older than this time.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
}

impl Filters {
    /// Whether no filter is given.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        let Self { team, task, endpoint, state, reason, outcome, status, mode, failed_between, since, until } = self;
        let texts = [team, task, endpoint, state, reason, outcome, mode, failed_between, since, until];
        texts.iter().all(|text| text.is_none()) && status.is_none()
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pages")]
pub(in crate::cli) struct PageArgs {
    /// How many entries a page has at most, 1 to 1000. With --jsonl it limits all pages together, and may be larger.
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    pub(in crate::cli) limit: Option<usize>,
    /// Show the next page. The page before it printed this token.
    #[arg(long, value_name = "TOKEN")]
    pub(in crate::cli) next: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TasksCommand {
    /// Show every callback and dead letter of a task, or why there is none.
    #[command(after_help = "Example:\n  callbackd tasks get 6583f1a2b0c4d5e6f7081920")]
    Get {
        /// The task's id.
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CallbacksCommand {
    /// List callbacks, newest event first.
    #[command(after_help = "Example:\n  callbackd callbacks list --team team_acme --state exhausted --since 7d")]
    List {
        #[command(flatten)]
        filters: Filters,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one callback.
    #[command(after_help = "Example:\n  callbackd callbacks get cb_01kav9ft00zkek0kfes3qvf608")]
    Get {
        /// The callback's id, which is also its webhook-id.
        id: String,
    },
    /// Show a callback, with the outcome of each of its attempts.
    #[command(after_help = "Example:\n  callbackd callbacks attempts cb_01kav9ft00zkek0kfes3qvf608")]
    Attempts {
        /// The callback's id.
        id: String,
    },
    /// Print the body of a callback as it is sent. On a terminal, control characters are escaped.
    #[command(after_help = "Example:\n  callbackd callbacks payload cb_01kav9ft00zkek0kfes3qvf608")]
    Payload {
        /// The callback's id.
        id: String,
        /// Print the request line and the headers first, rebuilt from the settings that the last request was sent with.
        /// Signatures and keys are masked.
        #[arg(long)]
        headers: bool,
    },
    /// Make the next attempt of a pending callback now, or of all that match the filters. It takes the place of the planned one.
    #[command(after_help = "Example:\n  callbackd callbacks retry --endpoint https://acme.example:443 --yes")]
    Retry(PendingArgs),
    /// Send a callback that has ended once more, or all that match the filters: the same id and body, signed with the keys of
    /// now. Without --state and --reason, the filters mean callbacks that have ended and were not delivered.
    #[command(
        after_help = "With filters, a job does it, which goes on if this command or the daemon ends: see callbackd resends.\nThe exit status is 6 if --wait was given and the job was cancelled or paused.\n\nExample:\n  callbackd callbacks resend --team team_acme --failed-between 3h..2h --yes"
    )]
    Resend(Box<ResendArgs>),
    /// End a pending callback without another attempt, or all that match the filters. An attempt that is under way goes on.
    #[command(after_help = "Example:\n  callbackd callbacks cancel cb_01kav9ft00zkek0kfes3qvf608")]
    Cancel(PendingArgs),
    /// Print the last ten callbacks, and then each new or changed one, until Ctrl-C.
    #[command(after_help = "Example:\n  callbackd callbacks watch --team team_acme --count 2")]
    Watch {
        #[command(flatten)]
        filters: Filters,
        /// Stop after this many lines.
        #[arg(long, value_name = "N", value_parser = whole_number::<u64>)]
        count: Option<u64>,
    },
    /// Write all callbacks that match to a file.
    #[command(
        after_help = "Example:\n  callbackd callbacks export --state exhausted --format csv --output exhausted.csv"
    )]
    Export {
        #[command(flatten)]
        filters: Filters,
        /// Write the attempts of these callbacks, those that the store keeps. Of a callback that was delivered at once, no attempt is
        /// kept: its own document says all of it.
        #[arg(long)]
        attempts: bool,
        #[command(flatten)]
        export: ExportArgs,
    },
}

/// Where an export goes, and in which form.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// jsonl writes one JSON document per line; csv writes a table with a header, whose lines end with CR LF (RFC 4180).
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(in crate::cli) format: ExportFormat,
    /// The file to write. An existing file is never overwritten. At the end, the command says how many rows are in it. Without
    /// this option, standard output is used.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PendingArgs {
    /// The callback's id. Without it, filters say which callbacks.
    pub(in crate::cli) id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) filters: Filters,
    /// Do not ask, however many callbacks match.
    #[arg(long, conflicts_with = "id")]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResendArgs {
    /// The callback's id. Without it, filters say which callbacks.
    pub(in crate::cli) id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) filters: Filters,
    /// Send to the team's default URL, and not to the task's own.
    #[arg(long, help_heading = "How")]
    pub(in crate::cli) to_default: bool,
    /// Send there also if that is an origin where the callback never went.
    #[arg(long, requires = "to_default", help_heading = "How")]
    pub(in crate::cli) allow_new_origin: bool,
    /// Send each with an id of its own, so that a receiver that knows the callback's id takes it as new.
    #[arg(long, help_heading = "How")]
    pub(in crate::cli) new_id: bool,
    /// At most so many callbacks a second. Without it, as many as there is room for.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>, conflicts_with = "id", help_heading = "How")]
    pub(in crate::cli) rate: Option<u32>,
    /// Only count the callbacks that match. If is_all is no, the time for counting was too short, and there are more.
    #[arg(long, conflicts_with_all = ["id", "wait"], help_heading = "How")]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask, however many callbacks match.
    #[arg(long, conflicts_with = "id", help_heading = "How")]
    pub(in crate::cli) yes: bool,
    /// Wait until the job is over, and show how far it has come. Ctrl-C ends the waiting, and the job goes on.
    #[arg(long, conflicts_with = "id", help_heading = "How")]
    pub(in crate::cli) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ResendsCommand {
    /// List the jobs that send many callbacks again, newest first.
    #[command(after_help = "Example:\n  callbackd resends list")]
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one job.
    #[command(
        after_help = "The exit status is 6 if --wait was given and the job was cancelled or paused.\n\nExample:\n  callbackd resends get rs_019ab1c2d3e4f5a6b7c8"
    )]
    Get {
        /// The job's id.
        id: String,
        /// Wait until the job is over, and show how far it has come. Ctrl-C ends the waiting, and the job goes on.
        #[arg(long)]
        wait: bool,
    },
    /// Open no more rounds until the job is resumed. Those that are open go on.
    #[command(after_help = "Example:\n  callbackd resends pause rs_019ab1c2d3e4f5a6b7c8")]
    Pause {
        /// The job's id.
        id: String,
    },
    /// Go on with a paused job.
    #[command(after_help = "Example:\n  callbackd resends resume rs_019ab1c2d3e4f5a6b7c8 --rate 50")]
    Resume {
        /// The job's id.
        id: String,
        /// At most so many callbacks a second from now on.
        #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
        rate: Option<u32>,
    },
    /// End a job. Rounds that are open go on.
    #[command(after_help = "Example:\n  callbackd resends cancel rs_019ab1c2d3e4f5a6b7c8")]
    Cancel {
        /// The job's id.
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    Jsonl,
    Csv,
}

/// Which dead letters. Every given filter must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Letters {
    /// Only records that name this team.
    #[arg(long)]
    pub(in crate::cli) team: Option<String>,
    /// Only records that name this task.
    #[arg(long)]
    pub(in crate::cli) task: Option<String>,
    /// Only records that can't become a callback for this reason: not_json, unknown_team, ...
    #[arg(long)]
    pub(in crate::cli) reason: Option<String>,
    /// Only dead letters in this state: open, resent or discarded. all shows all of them. [default: open]
    #[arg(long)]
    pub(in crate::cli) state: Option<String>,
    /// Only records of this time or later. Write how long ago (30m, 2h, 7d), a date (its
    /// midnight in UTC), or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Only records that are older than this time.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
}

impl Letters {
    /// Whether no filter is given.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        let Self { team, task, reason, state, since, until } = self;
        [team, task, reason, state, since, until].iter().all(|text| text.is_none())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LettersArgs {
    /// The dead letter's id. Without it, filters say which dead letters.
    pub(in crate::cli) id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) letters: Letters,
    /// Do not ask, however many dead letters match.
    #[arg(long, conflicts_with = "id")]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadLettersCommand {
    /// List dead letters, newest first.
    #[command(after_help = "Example:\n  callbackd dead-letters list --reason unknown_team")]
    List {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one dead letter, with its bytes.
    #[command(after_help = "Example:\n  callbackd dead-letters get dl_01kav9ft00zkek0kfes3qvf608")]
    Get {
        /// The dead letter's id.
        id: String,
    },
    /// Read a dead letter once more, or all that match the filters, after what was wrong was mended, for example when its team was
    /// created. What can be read now becomes a callback.
    #[command(
        after_help = "The exit status is 1 if any of them still can't become a callback.\n\nExample:\n  callbackd dead-letters resend --team team_acme --reason unknown_team --yes"
    )]
    Resend(LettersArgs),
    /// Write all dead letters that match to a file.
    #[command(after_help = "Example:\n  callbackd dead-letters export --format csv --output letters.csv")]
    Export {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        export: ExportArgs,
    },
    /// Set a dead letter aside, or all that match the filters. Lists do not show it unless they are asked for it.
    #[command(after_help = "Example:\n  callbackd dead-letters discard dl_01kav9ft00zkek0kfes3qvf608")]
    Discard(LettersArgs),
}
