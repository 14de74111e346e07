//! `test-receiver`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use scale_callback_auth::Mode;
use scale_callback_auth::conformance::OwnKeys;

use super::{Failure, KeyArgs, ModeArg, read, say};
use crate::conformance::{Form, Outcome, Verdict, against_known, hold, is_case};
use crate::text::printable;

/// The arguments.
#[derive(Debug, Args)]
pub struct TestReceiverArgs {
    /// The receiver. It is sent more than a hundred requests, most of them wrong; some are right callbacks.
    url: String,
    #[command(flatten)]
    keys: KeyArgs,
    /// Whose keys the receiver holds.
    #[arg(long, default_value = "live")]
    mode: ModeArg,
    /// What the receiver checks; by default what the keys at hand say, and needed where they leave it open.
    #[arg(long)]
    form: Option<FormArg>,
    /// A file with the names of cases that are known to come out wrong, a line each; `#` begins a comment. One that no
    /// longer does is told.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Print every case, not only what is wrong.
    #[arg(long)]
    all: bool,
    /// Trust these certificate authorities beside the web's, a PEM file.
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

pub(super) async fn run(args: TestReceiverArgs) -> Result<ExitCode, Failure> {
    let at = super::receiver_at(&args.url, args.ca_file.as_ref())?;
    let keys = args.keys.source().look().and_then(|variables| variables.of(Mode::from(args.mode)));
    let keys = keys.map_err(Failure::refused)?;
    let own = OwnKeys {
        signing: keys.signing.as_deref().cloned(),
        auth: keys.auth.as_deref().cloned(),
        hmac: keys.hmac.as_deref().cloned(),
    };
    let form = form(args.form, &own)?;
    needed(form, &own)?;
    usable(&own)?;
    let known = match &args.known {
        None => BTreeSet::new(),
        Some(path) => {
            let text = read(path)?;
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        }
    };
    let outcomes = hold(&at, form, &own).await.map_err(Failure::failed)?;
    // Those of another form may stand in the same file.
    if let Some(name) = known.iter().find(|name| !is_case(name)) {
        return Err(Failure::refused(format!("--known: there is no case {:?}", printable(name.as_bytes(), 200))));
    }
    let (wrong, gone) = against_known(&outcomes, &known);
    if let Some(sentence) = all_alike(&outcomes) {
        return Err(Failure::failed(sentence));
    }
    for outcome in if args.all { outcomes.iter().collect() } else { wrong.clone() } {
        let told = match &outcome.verdict {
            Verdict::Right => "right".to_owned(),
            Verdict::WronglyAccepted(why) => format!("WRONGLY ACCEPTED, rule {}, {why}", rule(why)),
            Verdict::WronglyRefused => "WRONGLY REFUSED".to_owned(),
            Verdict::Failed => "FAILED".to_owned(),
        };
        let answer = printable(outcome.answer.as_bytes(), 200);
        say(&format!("{told}: {} ({answer})", printable(outcome.case.as_bytes(), 200)));
    }
    for name in &gone {
        say(&format!("known, and no longer so: {}", printable(name.as_bytes(), 200)));
    }
    let count = |wanted: fn(&Verdict) -> bool| wrong.iter().filter(|outcome| wanted(&outcome.verdict)).count();
    let accepted = count(|verdict| matches!(verdict, Verdict::WronglyAccepted(_)));
    let refused = count(|verdict| *verdict == Verdict::WronglyRefused);
    let failed = count(|verdict| *verdict == Verdict::Failed);
    say(&format!(
        "{} cases of the form {}: {} right, {accepted} wrongly accepted, {refused} wrongly refused, {failed} failed{}",
        outcomes.len(),
        form.name(),
        outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Right).count(),
        if known.is_empty() { String::new() } else { format!(", {} known deviations", shown_known(&outcomes, &known)) },
    ));
    if !wrong.is_empty() {
        say(
            "the rules stand in docs/receivers.md; a case's request is in the corpus of scale-callback-auth, by its name",
        );
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty() || !gone.is_empty())))
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

/// What is wrong where everything is, in the same way: no list then.
fn all_alike(outcomes: &[Outcome]) -> Option<String> {
    let first = outcomes.first()?;
    if outcomes.iter().all(|outcome| outcome.verdict == Verdict::Failed) {
        return Some(format!(
            "no request was answered as a receiver does; the first: {}",
            printable(first.answer.as_bytes(), 200)
        ));
    }
    let taken = |outcome: &Outcome| outcome.answer.starts_with('2');
    if !outcomes.iter().any(taken) {
        return Some(
            "every request was refused, the right ones too: does the receiver hold these keys, and of this mode and form?"
                .to_owned(),
        );
    }
    None
}

/// What the receiver checks, as it was said or as its keys say.
fn form(said: Option<FormArg>, own: &OwnKeys) -> Result<Form, Failure> {
    Ok(match (said, own) {
        (Some(FormArg::Signed), _) => Form::Signed,
        (Some(FormArg::Keyed), _) => Form::Keyed,
        (Some(FormArg::Hmac), _) => Form::Hmac,
        (None, OwnKeys { signing: Some(_), auth: None, hmac: None }) => Form::Signed,
        (None, OwnKeys { signing: Some(_), auth: Some(_), hmac: None }) => Form::Keyed,
        (None, OwnKeys { signing: None, hmac: Some(_), .. }) => Form::Hmac,
        (None, OwnKeys { signing: Some(_), hmac: Some(_), .. }) => {
            return Err(Failure::refused("keys of two forms are set; say which one the receiver checks: --form"));
        }
        (None, _) => {
            return Err(Failure::refused("no keys are set: give the receiver's own, by variables or --keys-file"));
        }
    })
}

/// Keys that can't be used are told by their names, before anything is sent.
fn usable(own: &OwnKeys) -> Result<(), Failure> {
    use scale_callback_auth::{CallbackAuthKey, HmacKey, SigningSecret};
    let problems = [
        ("the signing secret", own.signing.as_deref().and_then(|key| SigningSecret::parse(key).err())),
        ("the callback auth key", own.auth.as_deref().and_then(|key| CallbackAuthKey::parse(key).err())),
        ("the hmac key", own.hmac.as_deref().and_then(|key| HmacKey::parse(key).err())),
    ];
    match problems.into_iter().find_map(|(name, error)| error.map(|error| format!("{name}: {error}"))) {
        None => Ok(()),
        Some(sentence) => Err(Failure::refused(sentence)),
    }
}

fn needed(form: Form, own: &OwnKeys) -> Result<(), Failure> {
    let missing = match form {
        Form::Signed | Form::Keyed if own.signing.is_none() => Some("the signing secret"),
        Form::Keyed if own.auth.is_none() => Some("the callback auth key"),
        Form::Hmac if own.hmac.is_none() => Some("the hmac key"),
        _ => None,
    };
    match missing {
        None => Ok(()),
        Some(what) => Err(Failure::refused(format!("--form {} needs {what} of the receiver", form.name()))),
    }
}
