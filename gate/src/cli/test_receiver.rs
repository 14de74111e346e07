//! The command `test-receiver`: it holds a running receiver to the conformance corpus and prints what is wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use scale_callback_auth::Mode;
use scale_callback_auth::conformance::OwnKeys;
use scale_callback_serve::text::printable;

use super::arguments::{KeyArgs, ModeArg, read, receiver_at};
use super::error::CommandError;
use super::output::say;
use crate::conformance::{Form, Outcome, Verdict, against_known, hold, is_case};

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

pub(super) async fn run(args: TestReceiverArgs) -> Result<ExitCode, CommandError> {
    let at = receiver_at(&args.url, args.ca_file.as_ref())?;
    let own = own_keys(&args)?;
    let form = form(args.form, &own)?;
    needed(form, &own)?;
    usable(&own)?;
    let known = args.known.as_deref().map_or_else(|| Ok(BTreeSet::new()), known)?;
    let outcomes = hold(&at, form, &own).await.map_err(CommandError::failed)?;
    // The file may hold cases of other forms as well.
    if let Some(name) = known.iter().find(|name| !is_case(name)) {
        let shown = printable(name.as_bytes(), 200);
        return Err(CommandError::refused(format!("--known: there is no case {shown:?}")));
    }
    let (wrong, gone) = against_known(&outcomes, &known);
    if let Some(sentence) = all_alike(&outcomes) {
        return Err(CommandError::failed(sentence));
    }
    for outcome in if args.all { outcomes.iter().collect() } else { wrong.clone() } {
        say(&line(outcome));
    }
    for name in &gone {
        say(&format!("known, and no longer so: {}", printable(name.as_bytes(), 200)));
    }
    say(&summary(form, &outcomes, &wrong, &known));
    if !wrong.is_empty() {
        say(
            "docs/receivers.md has the rules; the corpus of scale-callback-auth has each case's request under its name",
        );
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty() || !gone.is_empty())))
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
    let text = read(path)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The line of one case.
fn line(outcome: &Outcome) -> String {
    let verdict = match &outcome.verdict {
        Verdict::Right => "right".to_owned(),
        Verdict::WronglyAccepted(why) => format!("WRONGLY ACCEPTED, rule {}, {why}", rule(why)),
        Verdict::WronglyRefused => "WRONGLY REFUSED".to_owned(),
        Verdict::Failed => "FAILED".to_owned(),
    };
    let (case, answer) = (printable(outcome.case.as_bytes(), 200), printable(outcome.answer.as_bytes(), 200));
    format!("{verdict}: {case} ({answer})")
}

/// How many cases came out in which way.
fn summary(form: Form, outcomes: &[Outcome], wrong: &[&Outcome], known: &BTreeSet<String>) -> String {
    let count = |wanted: fn(&Verdict) -> bool| wrong.iter().filter(|outcome| wanted(&outcome.verdict)).count();
    let accepted = count(|verdict| matches!(verdict, Verdict::WronglyAccepted(_)));
    let refused = count(|verdict| *verdict == Verdict::WronglyRefused);
    let failed = count(|verdict| *verdict == Verdict::Failed);
    let right = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Right).count();
    let deviations =
        if known.is_empty() { String::new() } else { format!(", {} known deviations", shown_known(outcomes, known)) };
    format!(
        "{} cases of the form {}: {right} right, {accepted} wrongly accepted, {refused} wrongly refused, \
         {failed} failed{deviations}",
        outcomes.len(),
        form.name(),
    )
}

/// The rule of docs/receivers.md that a refusal's reason belongs to.
fn rule(why: &str) -> u8 {
    match why {
        "too_large" => 1,
        "id_duplicate" | "timestamp_duplicate" | "auth_duplicate" | "too_many_signatures" | "header_too_long" => 2,
        "id_missing" | "id_invalid" | "timestamp_missing" | "timestamp_invalid" => 3,
        "timestamp_too_old" | "timestamp_too_new" => 4,
        "signature_missing" | "signature_mismatch" => 5,
        "test_refused" => 7,
        _ => 6,
    }
}

fn shown_known(outcomes: &[Outcome], known: &BTreeSet<String>) -> usize {
    outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right && known.contains(&outcome.case)).count()
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
