//! The command `test-receiver`: it holds a running receiver to the conformance corpus and prints what is wrong.

mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use scale_callback_auth::Mode;
use scale_callback_auth::conformance::{Corpus, OwnKeys, Request};
use scale_callback_serve::text::printable;

use super::arguments::{KeyArgs, ModeArg, read, receiver_at};
use super::error::CommandError;
use super::output::{complain, say};
use crate::conformance::{Form, Outcome, Verdict, hold, hold_one, is_case};
use crate::receiver_at::ReceiverAt;
use report::Report;

/// The exit status of a receiver that accepts no forgery but is too lenient.
const TOO_LENIENT: u8 = 3;
/// How much of a body `--case` prints, in bytes.
const SHOWN_BODY: usize = 4_096;

/// The arguments.
#[derive(Debug, Args)]
pub struct TestReceiverArgs {
    /// The URL of the receiver. It gets more than a hundred requests. Most of them are wrong, some are valid callbacks.
    url: String,
    #[command(flatten)]
    keys: KeyArgs,
    /// Which keys the receiver holds.
    #[arg(long, default_value = "live")]
    mode: ModeArg,
    /// What the receiver checks. By default the given keys decide. If they allow several forms, give this option.
    #[arg(long)]
    form: Option<FormArg>,
    /// A file with the names of cases that the receiver is known to answer wrongly, one on each line. A `#` begins a
    /// comment. The command reports a known case that is now answered correctly.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Print every case, not only those that the receiver answers wrongly.
    #[arg(long)]
    all: bool,
    /// Send only this case, and print its request with your key as well as the answer.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["known", "all", "format"])]
    case: Option<String>,
    /// How the outcome is printed. The default is `human`, or `json` with --json.
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatArg>,
    /// A PEM file with certificate authorities to trust, in addition to the public ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormArg {
    /// The signature alone.
    Signed,
    /// The signature and the callback auth key.
    Keyed,
    /// The hmac form of scale-callback-auth.
    Hmac,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// A line for each case that the receiver answers wrongly.
    Human,
    /// One JSON object with every case.
    Json,
    /// JUnit's XML with every case, as continuous integration reads it.
    Junit,
}

pub(super) async fn run(args: TestReceiverArgs, json: bool) -> Result<ExitCode, CommandError> {
    let at = receiver_at(&args.url, args.ca_file.as_ref())?;
    let own = own_keys(&args)?;
    let form = form(args.form, &own)?;
    needed(form, &own)?;
    usable(&own)?;
    not_published(&own)?;
    if let Some(name) = &args.case {
        return one_case(&at, form, &own, name, json).await;
    }
    let known = args.known.as_deref().map_or_else(|| Ok(BTreeSet::new()), known)?;
    let outcomes = hold(&at, form, &own).await.map_err(CommandError::failed)?;
    // The file may hold cases of other forms as well.
    if let Some(name) = known.iter().find(|name| !is_case(name)) {
        let shown = printable(name.as_bytes(), 200);
        return Err(CommandError::refused(format!("--known: there is no case {shown:?}")));
    }
    if let Some(sentence) = all_alike(&outcomes) {
        return Err(CommandError::failed(sentence));
    }
    let report = Report { form, outcomes: &outcomes, known: &known };
    match args.format.unwrap_or(if json { FormatArg::Json } else { FormatArg::Human }) {
        FormatArg::Human => report.human(args.all).iter().for_each(|line| say(line)),
        FormatArg::Json => say(&report.json().to_string()),
        FormatArg::Junit => say(&report.junit()),
    }
    Ok(ExitCode::from(status(&report)))
}

/// The exit status: what is wrong counts before what is too lenient.
fn status(report: &Report<'_>) -> u8 {
    let is_lenient = |outcome: &&Outcome| matches!(outcome.verdict, Verdict::TooLenient(_));
    let wrong = report.new_ones();
    if wrong.iter().any(|outcome| !is_lenient(outcome)) || !report.gone().is_empty() {
        1
    } else if wrong.is_empty() {
        0
    } else {
        TOO_LENIENT
    }
}

/// Sends one case and prints its request.
async fn one_case(
    at: &ReceiverAt,
    form: Form,
    own: &OwnKeys,
    name: &str,
    json: bool,
) -> Result<ExitCode, CommandError> {
    let (request, outcome) = hold_one(at, form, own, name).await.map_err(CommandError::failed)?;
    let known = BTreeSet::new();
    let report = Report { form, outcomes: std::slice::from_ref(&outcome), known: &known };
    if json {
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| serde_json::json!([name, value])).collect();
        let body = String::from_utf8_lossy(&request.body);
        let request = serde_json::json!({ "path": at.path, "headers": headers, "body": body });
        say(&serde_json::json!({ "request": request, "outcome": report.json()["cases"][0] }).to_string());
    } else {
        printed(at, &request).iter().for_each(|line| say(line));
        say(&report::line(&outcome));
    }
    Ok(ExitCode::from(status(&report)))
}

/// A request as it is sent, made safe to print.
fn printed(at: &ReceiverAt, request: &Request) -> Vec<String> {
    let mut lines = vec![format!("POST {} HTTP/1.1", printable(at.path.as_bytes(), 1_024))];
    lines.extend(request.headers.iter().map(|(name, value)| format!("{name}: {}", printable(value.as_bytes(), 8_192))));
    lines.extend([String::new(), printable(&request.body, SHOWN_BODY), String::new()]);
    lines
}

/// Refuses keys with which the outcome would mean nothing: those that the corpus holds for other teams.
fn not_published(own: &OwnKeys) -> Result<(), CommandError> {
    let corpus = Corpus::embedded();
    for (name, key) in
        [("the signing secret", &own.signing), ("the callback auth key", &own.auth), ("the hmac key", &own.hmac)]
    {
        let Some(key) = key else { continue };
        if corpus.holds_for_others(key) {
            return Err(CommandError::refused(format!(
                "{name} is one that the test itself publishes for a stranger: give the receiver a key of its own"
            )));
        }
        if corpus.publishes(key) {
            complain(&format!("warning: {name} is a published example, so anybody can sign with it"));
        }
    }
    Ok(())
}

fn own_keys(args: &TestReceiverArgs) -> Result<OwnKeys, CommandError> {
    let keys = args.keys.source().look().and_then(|variables| variables.of(Mode::from(args.mode)));
    let keys = keys.map_err(CommandError::refused)?;
    Ok(OwnKeys {
        signing: keys.signing.as_deref().cloned(),
        auth: keys.auth.as_deref().cloned(),
        hmac: keys.hmac.as_deref().cloned(),
    })
}

/// The names in a file of known deviations.
fn known(path: &Path) -> Result<BTreeSet<String>, CommandError> {
    let text = read("--known", path)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// One sentence, instead of a list, where every case came out wrong in the same way.
fn all_alike(outcomes: &[Outcome]) -> Option<String> {
    let first = outcomes.first()?;
    if outcomes.iter().all(|outcome| outcome.verdict == Verdict::Failed) {
        return Some(format!(
            "no request was answered as a receiver would; the first answer: {}",
            printable(first.answer.as_bytes(), 200)
        ));
    }
    let is_accepted = |outcome: &Outcome| outcome.answer.starts_with('2');
    if !outcomes.iter().any(is_accepted) {
        return Some(
            "every request was refused, the right ones too: does the receiver hold these keys, of this mode and form?"
                .to_owned(),
        );
    }
    None
}

/// What the receiver checks, as the argument says or as the keys imply.
fn form(said: Option<FormArg>, own: &OwnKeys) -> Result<Form, CommandError> {
    Ok(match (said, own) {
        (Some(FormArg::Signed), _) => Form::Signed,
        (Some(FormArg::Keyed), _) => Form::Keyed,
        (Some(FormArg::Hmac), _) => Form::Hmac,
        (None, OwnKeys { signing: Some(_), auth: None, hmac: None }) => Form::Signed,
        (None, OwnKeys { signing: Some(_), auth: Some(_), hmac: None }) => Form::Keyed,
        (None, OwnKeys { signing: None, hmac: Some(_), .. }) => Form::Hmac,
        (None, OwnKeys { signing: Some(_), hmac: Some(_), .. }) => {
            return Err(CommandError::refused("keys of two forms are set; say which one the receiver checks: --form"));
        }
        (None, _) => {
            return Err(CommandError::refused("no keys are set: give the receiver's own, by variables or --keys-file"));
        }
    })
}

/// Refuses keys that cannot be used, by their names, before anything is sent.
fn usable(own: &OwnKeys) -> Result<(), CommandError> {
    use scale_callback_auth::{CallbackAuthKey, HmacKey, SigningSecret};
    let problems = [
        ("the signing secret", own.signing.as_deref().and_then(|key| SigningSecret::parse(key).err())),
        ("the callback auth key", own.auth.as_deref().and_then(|key| CallbackAuthKey::parse(key).err())),
        ("the hmac key", own.hmac.as_deref().and_then(|key| HmacKey::parse(key).err())),
    ];
    match problems.into_iter().find_map(|(name, error)| error.map(|error| format!("{name}: {error}"))) {
        None => Ok(()),
        Some(sentence) => Err(CommandError::refused(sentence)),
    }
}

fn needed(form: Form, own: &OwnKeys) -> Result<(), CommandError> {
    let missing = match form {
        Form::Signed | Form::Keyed if own.signing.is_none() => Some("the signing secret"),
        Form::Keyed if own.auth.is_none() => Some("the callback auth key"),
        Form::Hmac if own.hmac.is_none() => Some("the hmac key"),
        _ => None,
    };
    match missing {
        None => Ok(()),
        Some(what) => Err(CommandError::refused(format!("--form {} needs {what} of the receiver", form.name()))),
    }
}
