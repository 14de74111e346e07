//! Arguments about teams, keys, tokens and the audit.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ExportArgs, PageArgs, whole_number};

#[derive(Debug, Args)]
pub(in crate::cli) struct TeamFields {
    /// A name for people to read.
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// The URL for callbacks whose task has no URL of its own. "" removes it.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) default_url: Option<String>,
    /// The default URL for test tasks, if they need a different one. "" removes it.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) default_url_test: Option<String>,
    /// An origin that callbacks may go to, written https://HOST:PORT. Repeat the option for several origins. Then no
    /// other origin is allowed. "" allows any.
    #[arg(long, value_name = "ORIGIN")]
    pub(in crate::cli) allow_origin: Vec<String>,
    /// The form of the header scale-callback-auth: key or hmac.
    #[arg(long, value_name = "FORM")]
    pub(in crate::cli) auth_form: Option<String>,
    /// An origin that has a form of its own: ORIGIN=key or ORIGIN=hmac. Repeat the option for several. "" removes all.
    #[arg(long, value_name = "ORIGIN=FORM")]
    pub(in crate::cli) origin_form: Vec<String>,
    /// What to do with http:// URLs: allow, hmac-only or refuse. A team can only be stricter than the setting egress.http.
    /// "" means that this setting decides.
    #[arg(long, value_name = "POLICY")]
    pub(in crate::cli) http: Option<String>,
    /// How many retries there are, instead of the setting retry.retries.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    pub(in crate::cli) retries: Option<u32>,
    /// Within how many hours all retries happen (1 to 720), instead of the setting retry.horizon.
    #[arg(long, value_name = "HOURS", value_parser = whole_number::<u64>)]
    pub(in crate::cli) horizon_hours: Option<u64>,
    /// Whether the answer 410 (Gone) ends a callback: true or false.
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) end_on_gone: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TeamsCommand {
    /// List all teams.
    #[command(after_help = "Example:\n  callbackd teams list")]
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one team.
    #[command(after_help = "Example:\n  callbackd teams get team_acme")]
    Get {
        /// The team's id.
        team: String,
    },
    /// Send a signed test callback to the team's default URL from the daemon's network, and show each step.
    #[command(
        after_help = "The exit status is 1 if the receiver does not answer with 2xx.\n\nExample:\n  callbackd teams check team_acme"
    )]
    Check {
        /// The team's id.
        team: String,
        /// The URL to try instead of the team's default URL.
        #[arg(long)]
        url: Option<String>,
        /// The mode whose keys sign the callback: live or test.
        #[arg(long, default_value = "test")]
        mode: String,
    },
    /// Switch to the other form of the header scale-callback-auth. The daemon switches only if the receiver accepts a
    /// valid test callback in that form and refuses a forged one.
    #[command(
        after_help = "The exit status is 1 if nothing was switched.\n\nExample:\n  callbackd teams switch-auth team_acme --to hmac"
    )]
    SwitchAuth {
        /// The team's id.
        team: String,
        /// The form to switch to: key or hmac.
        #[arg(long, value_name = "FORM")]
        to: String,
        /// Switch only this origin.
        #[arg(long)]
        origin: Option<String>,
        /// The URL to try instead of the team's default URL.
        #[arg(long)]
        url: Option<String>,
    },
    /// Create a team. Its keys are created with it and are in use at once.
    #[command(after_help = "Example:\n  callbackd teams create team_acme --default-url https://acme.example/callbacks")]
    Create {
        /// The team's id, as task events name it.
        team: String,
        #[command(flatten)]
        fields: TeamFields,
    },
    /// Change a team. What is not given stays as it is. A change that would end pending callbacks changes nothing, and says
    /// how many would end.
    #[command(after_help = "Example:\n  callbackd teams update team_acme --auth-form hmac")]
    Update {
        /// The team's id.
        team: String,
        #[command(flatten)]
        fields: TeamFields,
        /// Change the team even if this ends pending callbacks.
        #[arg(long)]
        yes: bool,
    },
    /// Pause the deliveries of a team. Its callbacks wait, and those of other teams go on.
    #[command(after_help = "Example:\n  callbackd teams pause team_acme --reason maintenance")]
    Pause {
        /// The team's id.
        team: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Resume the deliveries of a team.
    #[command(after_help = "Example:\n  callbackd teams resume team_acme")]
    Resume {
        /// The team's id.
        team: String,
    },
    /// Delete a team for good. Its pending callbacks end as abandoned, its keys are revoked, its new events become dead letters,
    /// and its id is never used again. Its history stays.
    #[command(
        after_help = "Without --yes, nothing is deleted, and the command says how many callbacks would end.\n\nExample:\n  callbackd teams delete team_acme --yes"
    )]
    Delete {
        /// The team's id.
        team: String,
        /// Delete the team without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// List a team's keys, without their values.
    #[command(after_help = "Example:\n  callbackd keys list --team team_acme")]
    List {
        /// The team's id.
        #[arg(long)]
        team: String,
    },
    /// Create a key, or take over one that the customer already has. Its value is printed. It is not used until it is
    /// promoted.
    #[command(after_help = "Example:\n  callbackd keys create --team team_acme --kind signing --mode live")]
    Create {
        /// The team's id.
        #[arg(long)]
        team: String,
        /// The kind of key.
        #[arg(long, value_parser = ["callback-auth", "hmac", "signing"])]
        kind: String,
        /// Whether it is for live or for test callbacks.
        #[arg(long, value_parser = ["live", "test"])]
        mode: String,
        /// A file with the value of a key that the customer already has. "-" means standard input.
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Start to use a key now, or at a given time.
    #[command(after_help = "Example:\n  callbackd keys promote key_0123456789abcdef --team team_acme")]
    Promote {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
        /// Start to use the key at this time, written as in RFC 3339: 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Stop using a key.
    #[command(after_help = "Example:\n  callbackd keys revoke key_0123456789abcdef --team team_acme")]
    Revoke {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
        /// Revoke the key even if it is the last active one of its kind and mode. Callbacks then wait for another key.
        #[arg(long)]
        force: bool,
    },
    /// Print the value of a key. This needs the right secrets, and is written to the audit.
    #[command(after_help = "Example:\n  callbackd keys reveal key_0123456789abcdef --team team_acme")]
    Reveal {
        /// The key's id.
        key: String,
        /// The team's id.
        #[arg(long)]
        team: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokensCommand {
    /// List all tokens, without their values.
    #[command(after_help = "Example:\n  callbackd tokens list")]
    List,
    /// Create a token. Its value is printed only now and can't be shown again.
    #[command(after_help = "Example:\n  callbackd tokens create --name grafana --scope read --valid-for 30d")]
    Create(NewTokenArgs),
    /// Revoke a token. It is refused from now on.
    #[command(after_help = "Example:\n  callbackd tokens revoke tok_0123456789abcdef")]
    Revoke {
        /// The token's id.
        token: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NewTokenArgs {
    /// A name that says whose token it is. The audit shows this name.
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// What the token may do: read, operate (includes read) or secrets (reveal keys). Write several with commas.
    #[arg(long)]
    pub(in crate::cli) scope: String,
    /// A team that the token may see and change. Repeat the option for several teams. Without it, the token is for all
    /// teams, and for the daemon as a whole.
    #[arg(long)]
    pub(in crate::cli) team: Vec<String>,
    /// How long the token is valid, for example 12h or 30d. At most 366d. Without it: 90d, but not longer than the token
    /// with which it is created.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) valid_for: Option<String>,
    /// Print only the value.
    #[arg(long)]
    pub(in crate::cli) value_only: bool,
    /// Write the token directly into the store. No daemon may use the store meanwhile.
    #[arg(long)]
    pub(in crate::cli) bootstrap: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// List changes, newest first.
    #[command(after_help = "Example:\n  callbackd audit list --object team_acme")]
    List {
        /// Only changes of this team, token or setting.
        #[arg(long)]
        object: Option<String>,
        /// Only changes by this caller.
        #[arg(long)]
        caller: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Write all changes that match to a file.
    #[command(after_help = "Example:\n  callbackd audit export --format csv --output audit.csv")]
    Export {
        /// Only changes of this team, token or setting.
        #[arg(long)]
        object: Option<String>,
        /// Only changes by this caller.
        #[arg(long)]
        caller: Option<String>,
        #[command(flatten)]
        export: ExportArgs,
    },
}
