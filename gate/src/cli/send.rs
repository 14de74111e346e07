//! `send`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, Mode, SigningSecret};

use super::{Failure, KeyArgs, ModeArg, parse_duration, read, say};
use crate::client;
use crate::conformance::unix_millis;
use crate::receiver::BODY_LIMIT;
use crate::samples::{self, Kind, Seed, Wanted};
use crate::text::printable;

/// The arguments.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The receiver.
    url: String,
    /// The type of the sample task.
    #[arg(long, value_name = "TYPE", default_value = "imageannotation")]
    r#type: TaskType,
    /// Whose keys sign it.
    #[arg(long, default_value = "live")]
    mode: ModeArg,
    /// The form of scale-callback-auth; by default what the keys at hand allow, hmac first.
    #[arg(long)]
    form: Option<FormArg>,
    #[command(flatten)]
    keys: KeyArgs,
    /// The task's id; made at random otherwise.
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// The webhook-id; made at random otherwise. The same id twice is a repeat.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: Option<String>,
    /// Send this file's bytes as the body instead of a sample.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The sample's size: annotations, pages.
    #[arg(long, value_name = "N", default_value_t = 3)]
    items: u64,
    /// Sign it as if it were sent this long ago: receivers refuse more than 5m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    age: Option<Duration>,
    /// Trust these certificate authorities beside the web's, a PEM file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// For the whole answer.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormArg {
    /// The callback auth key itself.
    Key,
    /// t=...,v1=...
    Hmac,
    /// No scale-callback-auth at all.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TaskType {
    Imageannotation,
    Lidarannotation,
    Textcollection,
    Categorization,
    Namedentityrecognition,
    Documenttranscription,
    /// A task that ended in an error.
    Error,
}

impl TaskType {
    fn kind(self) -> Kind {
        match self {
            Self::Imageannotation => Kind::Image,
            Self::Lidarannotation => Kind::Lidar,
            Self::Textcollection => Kind::Text,
            Self::Categorization => Kind::Categorization,
            Self::Namedentityrecognition => Kind::Entities,
            Self::Documenttranscription => Kind::Document,
            Self::Error => Kind::Error,
        }
    }
}

fn parse_id(text: &str) -> Result<String, String> {
    let sent = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(sent) {
        Ok(text.to_owned())
    } else {
        Err("an id is 1 to 64 of A-Z a-z 0-9 _ -".to_owned())
    }
}

pub(super) async fn run(args: SendArgs) -> Result<ExitCode, Failure> {
    let at = super::receiver_at(&args.url, args.ca_file.as_ref())?;
    let signer = signer(&args)?;
    let now = u64::try_from(unix_millis()).unwrap_or_default();
    let mut seed = Seed::new(now ^ u64::from(std::process::id()) << 32);
    let id = args.id.clone().unwrap_or_else(|| samples::callback_id(now, &mut seed));
    let body = match &args.body {
        Some(path) => read(path)?,
        // The same id is the same callback, byte for byte.
        None if args.id.is_some() => sample(&args, 1_764_000_000_000, &mut Seed::new(of(&id)))?.into_bytes(),
        None => sample(&args, now, &mut seed)?.into_bytes(),
    };
    if body.len() > BODY_LIMIT {
        say(&format!(
            "{} bytes are more than a callback may have, which is {BODY_LIMIT}: a receiver refuses them",
            body.len()
        ));
    }
    let time = (now / 1_000).saturating_sub(args.age.map_or(0, |age| age.as_secs()));
    let headers = headers(&signer, &id, time, &body)?;
    say(&format!(
        "POST {} as {id}, {} bytes, {} keys",
        printable(args.url.as_bytes(), 512),
        body.len(),
        Mode::from(args.mode).name()
    ));
    let began = Instant::now();
    let answer = client::call(&at.remote, Method::POST, &at.path, headers, Bytes::from(body), args.timeout).await;
    let answer = answer.map_err(|error| Failure::failed(format!("{}: {error}", at.remote)))?;
    let said = printable(&answer.body, 1_024);
    say(&format!(
        "{} after {} ms{}{said}",
        answer.status,
        began.elapsed().as_millis(),
        if said.is_empty() { "" } else { ": " }
    ));
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    if answer.status == 401 {
        say(not_verified(&args));
    }
    Ok(ExitCode::from(1))
}

/// What a 401 says of what was sent.
fn not_verified(args: &SendArgs) -> &'static str {
    match (args.age, args.form) {
        (Some(age), _) if age.as_secs() > 300 => "401 is right: what is older than 5 minutes is refused",
        (_, Some(FormArg::None)) => {
            "401 is right if the receiver wants scale-callback-auth as well; else the secret differs"
        }
        (_, Some(FormArg::Key)) => {
            "401 says that it did not verify: do secret and key differ, or is the hmac form wanted?"
        }
        (_, Some(FormArg::Hmac)) => {
            "401 says that it did not verify: does the hmac key differ, or is another form wanted?"
        }
        (_, None) => "401 says that it did not verify: do both sides have the same secret, and of the same mode?",
    }
}

/// A number of a text.
fn of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn signer(args: &SendArgs) -> Result<Signer, Failure> {
    let variables = args.keys.source().look().map_err(Failure::refused)?;
    let mode = Mode::from(args.mode);
    let keys = variables.of(mode).map_err(Failure::refused)?;
    let prefix = if mode == Mode::Test { "SCALE_CALLBACK_TEST_" } else { "SCALE_CALLBACK_" };
    let missing = |name: &str| Failure::refused(format!("{prefix}{name} is not set (nor {prefix}{name}_FILE)"));
    let wrong = |name: &str, error: scale_callback_auth::KeyError| Failure::refused(format!("{prefix}{name}: {error}"));
    let form = args.form.unwrap_or(match (&keys.hmac, &keys.auth) {
        (Some(_), _) => FormArg::Hmac,
        (None, Some(_)) => FormArg::Key,
        (None, None) => FormArg::None,
    });
    let auth = match form {
        FormArg::None => AuthHeader::Absent,
        FormArg::Key => {
            let key = keys.auth.ok_or_else(|| missing("AUTH_KEY"))?;
            AuthHeader::Key(CallbackAuthKey::parse(&key).map_err(|error| wrong("AUTH_KEY", error))?)
        }
        FormArg::Hmac => {
            let key = keys.hmac.ok_or_else(|| missing("HMAC_KEY"))?;
            AuthHeader::Hmac(HmacKey::parse(&key).map_err(|error| wrong("HMAC_KEY", error))?, None)
        }
    };
    let secret =
        keys.signing.map(|secret| SigningSecret::parse(&secret).map_err(|error| wrong("SIGNING_SECRET", error)));
    let secrets: Vec<_> = secret.transpose()?.into_iter().collect();
    if secrets.is_empty() && form != FormArg::Hmac {
        return Err(missing("SIGNING_SECRET"));
    }
    Ok(Signer::new(secrets, auth))
}

fn sample(args: &SendArgs, now: u64, seed: &mut Seed) -> Result<String, Failure> {
    let task_id = args.task_id.clone().unwrap_or_else(|| samples::task_id(now / 1_000, seed));
    if task_id.is_empty() || task_id.contains(['"', '\\']) || task_id.chars().any(char::is_control) {
        return Err(Failure::refused("--task-id holds characters that can't stand in a sample"));
    }
    let wanted = Wanted {
        kind: args.r#type.kind(),
        task_id: &task_id,
        callback_url: None,
        is_test: args.mode == ModeArg::Test,
        items: args.items.min(100_000),
    };
    let task = samples::task(&wanted, seed);
    samples::callback(&task).ok_or_else(|| Failure::failed("the sample is no JSON"))
}

fn headers(signer: &Signer, id: &str, time: u64, body: &[u8]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(scale_callback_auth::header::ATTEMPT, HeaderValue::from_static("1"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("scale-callback/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in signer.sign(id, time, body).to_pairs(id) {
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| Failure::refused("a key can't be sent in a header"))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}
