//! `test-receiver`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use scale_callback_auth::Mode;
use scale_callback_auth::conformance::OwnKeys;

use super::{Failure, KeyArgs, ModeArg, say};
use crate::conformance::{Form, ReceiverAt, Verdict, against_known, hold, is_case};
use crate::text::printable;

/// The arguments.
#[derive(Debug, Args)]
pub struct TestReceiverArgs {
    /// The receiver. It is sent some two hundred requests, most of them wrong.
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
    let at = ReceiverAt::parse(&args.url, args.ca_file.clone()).map_err(Failure::refused)?;
    let keys = args.keys.source().look().and_then(|variables| variables.of(Mode::from(args.mode)));
    let keys = keys.map_err(Failure::refused)?;
    let own = OwnKeys {
        signing: keys.signing.as_deref().cloned(),
        auth: keys.auth.as_deref().cloned(),
        hmac: keys.hmac.as_deref().cloned(),
    };
    let form = match (args.form, &own) {
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
    };
    needed(form, &own)?;
    usable(&own)?;
    let known = match &args.known {
        None => BTreeSet::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
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
    for outcome in if args.all { outcomes.iter().collect() } else { wrong.clone() } {
        let told = match &outcome.verdict {
            Verdict::Right => "right".to_owned(),
            Verdict::WronglyAccepted(why) => format!("WRONGLY ACCEPTED, though {why}"),
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
        if known.is_empty() { String::new() } else { format!(", {} known", known.len()) },
    ));
    Ok(ExitCode::from(u8::from(!wrong.is_empty() || !gone.is_empty())))
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
