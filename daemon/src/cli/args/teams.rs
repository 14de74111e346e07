//! Arguments about teams, keys, tokens and the audit.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::PageArgs;

#[derive(Debug, Args)]
pub(in crate::cli) struct TeamFields {
    /// A name for people.
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// Where callbacks go whose task has no URL; "" takes it away.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) default_url: Option<String>,
    /// The same for test tasks, where it is another one; "" takes it away.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) default_url_test: Option<String>,
    /// The only origins that callbacks may go to; repeat it, or "" for any.
    #[arg(long, value_name = "ORIGIN")]
    pub(in crate::cli) allow_origin: Vec<String>,
    /// The form of scale-callback-auth: key or hmac.
    #[arg(long, value_name = "FORM")]
    pub(in crate::cli) auth_form: Option<String>,
    /// An origin with a form of its own: ORIGIN=key or ORIGIN=hmac; repeat it, or "" for none.
    #[arg(long, value_name = "ORIGIN=FORM")]
    pub(in crate::cli) origin_form: Vec<String>,
    /// http:// URLs: allow, hmac-only or refuse; "" follows the installation.
    #[arg(long, value_name = "POLICY")]
    pub(in crate::cli) http: Option<String>,
    /// Retries instead of the installation's number.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) retries: Option<u32>,
    /// Hours of retries instead of the installation's horizon.
    #[arg(long, value_name = "HOURS")]
    pub(in crate::cli) horizon_hours: Option<u64>,
    /// Whether a 410 ends a callback.
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) end_on_gone: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TeamsCommand {
    /// All teams.
    #[command(after_help = "Example:\n  callbackd teams list")]
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// One team.
    #[command(after_help = "Example:\n  callbackd teams get team_acme")]
    Get {
        /// The team's id.
        team: String,
    },
    /// Send a signed test callback to the team's default URL, from the daemon's network, and tell each step.
    #[command(after_help = "Exit status 1 if it does not get a 2xx.\n\nExample:\n  callbackd teams check team_acme")]
    Check {
        /// The team's id.
        team: String,
        /// Another URL than the team's default.
        #[arg(long)]
        url: Option<String>,
        /// With the keys of this mode.
        #[arg(long, default_value = "test")]
        mode: String,
    },
    /// Send another form of scale-callback-auth from now on, if the receiver tells a right test callback in it from a
    /// spoiled one.
    #[command(
        after_help = "Exit status 1 if nothing was switched.\n\nExample:\n  callbackd teams switch-auth team_acme --to hmac"
    )]
    SwitchAuth {
        /// The team's id.
        team: String,
        /// key or hmac.
        #[arg(long, value_name = "FORM")]
        to: String,
        /// Of this origin alone.
        #[arg(long)]
        origin: Option<String>,
        /// Where to try it, instead of the team's default URL.
        #[arg(long)]
        url: Option<String>,
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
pub(in crate::cli) enum KeysCommand {
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

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokensCommand {
    /// All tokens, without their values.
    #[command(after_help = "Example:\n  callbackd tokens list")]
    List,
    /// Make a token; its value is printed this once.
    #[command(after_help = "Example:\n  callbackd tokens create --name grafana --scope read --valid-for 30d")]
    Create {
        /// Whose it is; it stands in the audit.
        #[arg(long)]
        name: String,
        /// read or operate; operate includes read.
        #[arg(long)]
        scope: String,
        /// How long: 12h, 30d, at most 366d.
        #[arg(long, value_name = "TIME", default_value = "90d")]
        valid_for: String,
        /// Print the value alone.
        #[arg(long)]
        value_only: bool,
        /// Straight into the store, while no daemon runs.
        #[arg(long)]
        bootstrap: bool,
    },
    /// Revoke a token: it is refused from now on.
    #[command(after_help = "Example:\n  callbackd tokens revoke tok_0123456789abcdef")]
    Revoke {
        /// The token's id.
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Changes, newest first.
    #[command(after_help = "Example:\n  callbackd audit list --object team_acme")]
    List {
        /// Of this team, token or setting.
        #[arg(long)]
        object: Option<String>,
        /// By this caller.
        #[arg(long)]
        caller: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
}
