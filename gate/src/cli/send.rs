//! The command `send`: it sends one signed sample callback, and says what the answer means.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, Mode, SigningSecret};
use scale_callback_serve::client;
use scale_callback_serve::text::printable;
use serde_json::json;

use super::arguments::{KeyArgs, ModeArg, number, parse_duration, read, receiver_at};
use super::error::{ArgumentError, CommandError};
use super::output::Output;
use crate::clock::unix_millis;
use crate::receiver::BODY_LIMIT;
use crate::samples::{self, Kind, Seed, Wanted};

/// The time of a sample whose id is given, in milliseconds since 1970.
const SAMPLE_TIME: u64 = 1_764_000_000_000;

/// The arguments.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The URL of the receiver.
    url: String,
    /// The type of the sample task.
    #[arg(long, value_name = "TYPE", default_value = "imageannotation")]
    r#type: TaskType,
    /// Which keys sign the callback.
    #[arg(long, default_value = "live")]
    mode: ModeArg,
    /// The form of scale-callback-auth. The default is the best form that the given keys allow: hmac, then key, then none.
    #[arg(long)]
    form: Option<FormArg>,
    #[command(flatten)]
    keys: KeyArgs,
    /// The task's id. The default is a random one.
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// The webhook-id. The default is a random one. A second callback with the same id is a repeat.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: Option<String>,
    /// Send the bytes of this file as the body, instead of a sample.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The size of the sample: how many annotations or pages it has.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = number::<u64, 0, { u64::MAX }>)]
    items: u64,
    /// Sign the callback as if it were sent this long ago. Receivers refuse more than 5m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    age: Option<Duration>,
    /// A PEM file with certificate authorities to trust, in addition to the public ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long to wait for the whole answer.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormArg {
    /// The callback auth key itself.
    Key,
    /// t=...,v1=..., which proves the body.
    Hmac,
    /// No scale-callback-auth header.
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

fn parse_id(text: &str) -> Result<String, ArgumentError> {
    let sent = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(sent) { Ok(text.to_owned()) } else { Err(ArgumentError::Id) }
}

pub(super) async fn run(args: SendArgs, json: bool) -> Result<ExitCode, CommandError> {
    let out = Output::new(json);
    let at = receiver_at(&args.url, args.ca_file.as_ref())?;
    let signer = signer(&args)?;
    let now = unix_millis();
    let mut seed = Seed::new(now ^ u64::from(std::process::id()) << 32);
    let id = args.id.clone().unwrap_or_else(|| samples::callback_id(now, &mut seed));
    let body = match &args.body {
        Some(path) => read("--body", path)?,
        // A given id always makes the same callback, byte for byte.
        None if args.id.is_some() => sample(&args, SAMPLE_TIME, &mut Seed::new(number_of(&id)))?.into_bytes(),
        None => sample(&args, now, &mut seed)?.into_bytes(),
    };
    let bytes = body.len();
    if bytes > BODY_LIMIT {
        out.remark(|| {
            format!("{bytes} bytes are more than the {BODY_LIMIT} that a callback may have: a receiver refuses them")
        });
    }
    let time = (now / 1_000).saturating_sub(args.age.map_or(0, |age| age.as_secs()));
    let headers = headers(&signer, &id, time, &body)?;
    let (url, mode) = (printable(args.url.as_bytes(), 512), Mode::from(args.mode).name());
    out.remark(|| format!("POST {url} as {id}, {bytes} bytes, {mode} keys"));
    let began = Instant::now();
    let answer = client::call(&at.remote, Method::POST, &at.path, headers, Bytes::from(body), args.timeout).await;
    let answer = answer.map_err(|error| CommandError::failed(format!("{}: {error}", at.remote)))?;
    let said = printable(&answer.body, 1_024);
    let colon = if said.is_empty() { "" } else { ": " };
    let (status, time) = (answer.status, began.elapsed().as_millis());
    let meaning = (status == 401).then(|| meaning_of_401(&args));
    out.tell(
        || format!("{status} after {time} ms{colon}{said}"),
        || {
            json!({
                "url": url, "webhook_id": id, "bytes": bytes, "mode": mode,
                "status": status.as_u16(), "milliseconds": time, "answer": said, "hint": meaning,
            })
        },
    );
    if let Some(meaning) = meaning {
        out.remark(|| meaning.to_owned());
    }
    Ok(ExitCode::from(u8::from(!status.is_success())))
}

/// What a 401 means for what was sent.
fn meaning_of_401(args: &SendArgs) -> &'static str {
    match (args.age, args.form) {
        (Some(age), _) if age.as_secs() > 300 => {
            "401 is right: a receiver refuses callbacks that are older than 5 minutes"
        }
        (_, Some(FormArg::None)) => {
            "401 is right if the receiver asks for scale-callback-auth as well; otherwise the secret differs"
        }
        (_, Some(FormArg::Key)) => {
            "401 says that it did not verify: does the secret or the key differ, or does the receiver ask for the hmac form?"
        }
        (_, Some(FormArg::Hmac)) => {
            "401 says that it did not verify: does the hmac key differ, or does the receiver ask for another form?"
        }
        (_, None) => "401 says that it did not verify: do both sides have the same secret, of the same mode?",
    }
}

/// A number that a text always gives, so that the same id makes the same sample (FNV-1a).
fn number_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn signer(args: &SendArgs) -> Result<Signer, CommandError> {
    let variables = args.keys.source().look().map_err(CommandError::refused)?;
    let mode = Mode::from(args.mode);
    let keys = variables.of(mode).map_err(CommandError::refused)?;
    let prefix = if mode == Mode::Test { "SCALE_CALLBACK_TEST_" } else { "SCALE_CALLBACK_" };
    let missing = |name: &str| CommandError::refused(format!("{prefix}{name} is not set (nor {prefix}{name}_FILE)"));
    let wrong =
        |name: &str, error: scale_callback_auth::KeyError| CommandError::refused(format!("{prefix}{name}: {error}"));
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

fn sample(args: &SendArgs, now: u64, seed: &mut Seed) -> Result<String, CommandError> {
    let task_id = args.task_id.clone().unwrap_or_else(|| samples::task_id(now / 1_000, seed));
    if task_id.is_empty() || task_id.contains(['"', '\\']) || task_id.chars().any(char::is_control) {
        return Err(CommandError::refused("--task-id holds characters that a sample can't hold"));
    }
    let wanted = Wanted {
        kind: args.r#type.kind(),
        task_id: &task_id,
        callback_url: None,
        is_test: args.mode == ModeArg::Test,
        items: args.items.min(100_000),
    };
    let task = samples::task(&wanted, seed);
    samples::callback(&task).ok_or_else(|| CommandError::failed("the sample is not JSON"))
}

fn headers(signer: &Signer, id: &str, time: u64, body: &[u8]) -> Result<HeaderMap, CommandError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(scale_callback_auth::header::ATTEMPT, HeaderValue::from_static("1"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("scale-callback/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in signer.sign(id, time, body).to_pairs(id) {
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| CommandError::refused("a key can't be sent in a header"))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}
