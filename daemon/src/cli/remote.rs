//! Commands that ask a running daemon through its API.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use scale_callback::client::{self, ClientError};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Failure;
use super::args::{
    CallbacksCommand, Command, DeadLettersCommand, KeysCommand, OffsetsCommand, Remote, TasksCommand, TeamFields,
    TeamsCommand,
};
use super::table::{Column, record, say, table};
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_KEY_BYTES: u64 = 4096;

const CALLBACKS: [Column; 8] = [
    ("CALLBACK", "callback_id"),
    ("TEAM", "team_id"),
    ("TASK", "task_id"),
    ("STATE", "state"),
    ("REASON", "reason"),
    ("ATTEMPTS", "attempts"),
    ("LAST", "last_outcome"),
    ("DUE", "due"),
];
const ATTEMPTS: [Column; 7] = [
    ("#", "attempt"),
    ("BEGUN", "begun_at"),
    ("OUTCOME", "outcome"),
    ("STATUS", "status"),
    ("MS", "duration_ms"),
    ("PEER", "peer"),
    ("ANSWER", "answer"),
];
const DEAD_LETTERS: [Column; 6] = [
    ("DEAD LETTER", "dead_letter_id"),
    ("REASON", "reason"),
    ("DETAIL", "detail"),
    ("TASK", "task_id"),
    ("SOURCE", "source"),
    ("OFFSET", "offset"),
];
const SOURCES: [Column; 7] = [
    ("TOPIC", "topic"),
    ("PARTITION", "partition"),
    ("WATERMARK", "done_upto"),
    ("SEEN", "seen_upto"),
    ("EPOCH", "epoch"),
    ("OWNED", "owned"),
    ("MOVED", "moved_at"),
];
const TEAMS: [Column; 5] = [
    ("TEAM", "team_id"),
    ("NAME", "name"),
    ("AUTH FORM", "auth_form"),
    ("DEFAULT URL", "default_url"),
    ("FOR TEST TASKS", "default_url_test"),
];
const KEYS: [Column; 7] = [
    ("KEY", "key_id"),
    ("KIND", "kind"),
    ("MODE", "mode"),
    ("STATE", "state"),
    ("ENDS IN", "last4"),
    ("PROMOTED", "promoted_at"),
    ("REVOKED", "revoked_at"),
];

/// How an answer is shown to a person.
enum View {
    Record,
    List(&'static [Column]),
    Attempts,
    Task,
    /// One member, alone.
    Member(&'static str),
}

struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
    view: View,
}

fn get(path: impl Into<String>, view: View) -> Call {
    Call { method: Method::GET, path: path.into(), body: None, view }
}

fn post(path: impl Into<String>, body: Value, view: View) -> Call {
    Call { method: Method::POST, path: path.into(), body: Some(body), view }
}

pub(super) fn run(remote: &Remote, command: Command) -> Result<ExitCode, Failure> {
    let call = call_of(command)?;
    let address = address(remote)?;
    let answer = send(&address, &call, remote.json)?;
    if remote.json {
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default();
        say(&text);
    } else {
        say(&shown(&call.view, &answer));
    }
    Ok(ExitCode::SUCCESS)
}

fn call_of(command: Command) -> Result<Call, Failure> {
    Ok(match command {
        Command::Status => get("/status", View::Record),
        Command::Tasks(TasksCommand::Get { task }) => get(format!("/tasks/{}", escaped(&task)), View::Task),
        Command::Callbacks(command) => callbacks(command),
        Command::DeadLetters(DeadLettersCommand::List { task, before, limit }) => {
            let query = query(&[("task", task), ("before", before), ("limit", Some(limit.to_string()))]);
            get(format!("/dead_letters{query}"), View::List(&DEAD_LETTERS))
        }
        Command::DeadLetters(DeadLettersCommand::Get { id }) => {
            get(format!("/dead_letters/{}", escaped(&id)), View::Record)
        }
        Command::Offsets(OffsetsCommand::Show) => get("/sources", View::List(&SOURCES)),
        Command::Offsets(OffsetsCommand::Accept { from }) => {
            post("/sources/accept", json!({ "from": from }), View::Record)
        }
        Command::Teams(command) => teams(command)?,
        Command::Keys(command) => keys(command)?,
        Command::Run(_) | Command::Demo(_) | Command::Config(_) | Command::Keyring(_) | Command::Version => {
            return Err(Failure::new(Failure::REFUSED, "this command asks no daemon"));
        }
    })
}

fn callbacks(command: CallbacksCommand) -> Call {
    match command {
        CallbacksCommand::List { team, task, state, before, limit } => {
            let query = query(&[
                ("team", team),
                ("task", task),
                ("state", state),
                ("before", before),
                ("limit", Some(limit.to_string())),
            ]);
            get(format!("/callbacks{query}"), View::List(&CALLBACKS))
        }
        CallbacksCommand::Get { id } => get(format!("/callbacks/{}", escaped(&id)), View::Record),
        CallbacksCommand::Attempts { id } => get(format!("/callbacks/{}/attempts", escaped(&id)), View::Attempts),
    }
}

fn teams(command: TeamsCommand) -> Result<Call, Failure> {
    Ok(match command {
        TeamsCommand::List { before, limit } => {
            let query = query(&[("after", before), ("limit", Some(limit.to_string()))]);
            get(format!("/teams{query}"), View::List(&TEAMS))
        }
        TeamsCommand::Get { team } => get(format!("/teams/{}", escaped(&team)), View::Record),
        TeamsCommand::Create { team, fields } => {
            let mut body = patch(fields)?;
            body["team_id"] = json!(team);
            post("/teams", body, View::Record)
        }
        TeamsCommand::Update { team, fields } => Call {
            method: Method::PATCH,
            path: format!("/teams/{}", escaped(&team)),
            body: Some(patch(fields)?),
            view: View::Record,
        },
    })
}

/// What was given, as the API takes it; "" takes a value away.
fn patch(fields: TeamFields) -> Result<Value, Failure> {
    let mut body = json!({});
    let nullable = |text: String| if text.is_empty() { Value::Null } else { json!(text) };
    for (name, value) in [
        ("name", fields.name.map(|name| json!(name))),
        ("default_url", fields.default_url.map(nullable)),
        ("default_url_test", fields.default_url_test.map(nullable)),
        ("auth_form", fields.auth_form.map(|form| json!(form))),
        ("http", fields.http.map(nullable)),
        ("retries", fields.retries.map(|retries| json!(retries))),
        ("horizon_seconds", fields.horizon_hours.map(|hours| json!(hours.saturating_mul(3600)))),
        ("end_on_gone", fields.end_on_gone.map(|end| json!(end))),
    ] {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    if !fields.allow_origin.is_empty() {
        let origins: Vec<_> = fields.allow_origin.into_iter().filter(|origin| !origin.is_empty()).collect();
        body["allowed_origins"] = json!(origins);
    }
    if !fields.origin_form.is_empty() {
        let given = fields.origin_form.iter().filter(|text| !text.is_empty());
        let forms = given.map(|text| match text.rsplit_once('=') {
            Some((origin, form)) => Ok(json!({ "origin": origin, "auth_form": form })),
            None => {
                Err(Failure::new(Failure::REFUSED, format!("--origin-form {text}: write ORIGIN=key or ORIGIN=hmac")))
            }
        });
        body["origin_forms"] = Value::Array(forms.collect::<Result<_, _>>()?);
    }
    Ok(body)
}

fn keys(command: KeysCommand) -> Result<Call, Failure> {
    let of = |team: &str, key: &str, verb: &str| format!("/teams/{}/keys/{}/{verb}", escaped(team), escaped(key));
    Ok(match command {
        KeysCommand::List { team } => get(format!("/teams/{}/keys", escaped(&team)), View::List(&KEYS)),
        KeysCommand::Create { team, kind, mode, from_file } => {
            let mut body = json!({ "kind": kind, "mode": mode });
            if let Some(file) = from_file {
                body["value"] = json!(key_from(&file)?.as_str());
            }
            post(format!("/teams/{}/keys", escaped(&team)), body, View::Record)
        }
        KeysCommand::Promote { key, team, at } => {
            let body = at.map_or_else(|| json!({}), |at| json!({ "at": at }));
            post(of(&team, &key, "promote"), body, View::Record)
        }
        KeysCommand::Revoke { key, team, force } => {
            post(of(&team, &key, "revoke"), json!({ "force": force }), View::Record)
        }
        KeysCommand::Reveal { key, team } => post(of(&team, &key, "reveal"), json!({}), View::Member("value")),
    })
}

/// A key from a file or standard input, never from an argument.
fn key_from(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_KEY_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_KEY_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::new(Failure::FAILED, format!("{}: {error}", file.display())))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// The daemon's socket: an argument, a variable, or what the configuration says.
fn address(remote: &Remote) -> Result<PathBuf, Failure> {
    let given = remote.api.clone().or_else(|| std::env::var("CALLBACKD_API_URL").ok());
    match given {
        Some(url) => match url.strip_prefix("unix:") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(Failure::new(Failure::REFUSED, format!("{url:?} is no API address; write unix:PATH"))),
        },
        None => {
            let file = std::env::var_os("CALLBACKD_CONFIG").map(PathBuf::from);
            let config =
                Config::load(file.as_deref()).map_err(|error| Failure::new(Failure::REFUSED, error.to_string()))?;
            Ok(config.api_socket)
        }
    }
}

fn send(socket: &Path, call: &Call, json: bool) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Failure::FAILED, error.to_string()))?;
    let mut headers = HeaderMap::new();
    let body = match &call.body {
        None => Bytes::new(),
        Some(value) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Bytes::from(value.to_string())
        }
    };
    let remote = client::Remote::Unix(socket.to_owned());
    let path = format!("/admin/v1{}", call.path);
    let answer = runtime.block_on(client::call(&remote, call.method.clone(), &path, headers, body, TIMEOUT));
    let answer = answer.map_err(|error| unreachable(&error, socket))?;
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if answer.status.is_success() {
        return Ok(value);
    }
    let status = match answer.status.as_u16() {
        404 => Failure::NOT_FOUND,
        401 | 403 => Failure::NOT_ALLOWED,
        400..=499 => Failure::REFUSED,
        _ => Failure::FAILED,
    };
    let detail =
        value["detail"].as_str().map_or_else(|| format!("the daemon answered {}", answer.status), str::to_owned);
    let failure = Failure::new(status, crate::base::text::printable(detail.as_bytes(), 2_000));
    Err(if json { failure.with_problem(value.to_string()) } else { failure })
}

fn unreachable(error: &ClientError, socket: &Path) -> Failure {
    let sentence = match error {
        ClientError::Unreachable(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            let sentence = format!("{} is for the daemon's own user and root", socket.display());
            return Failure::new(Failure::NOT_ALLOWED, sentence);
        }
        ClientError::Unreachable(_) => {
            format!("no daemon listens at {}; is it running? (see --api)", socket.display())
        }
        other => format!("the daemon at {}: {other}", socket.display()),
    };
    Failure::new(Failure::UNREACHABLE, sentence)
}

fn shown(view: &View, answer: &Value) -> String {
    let docs = |member: &str| answer[member].as_array().cloned().unwrap_or_default();
    match view {
        View::Record => record(answer),
        View::Member(member) => answer[*member].as_str().unwrap_or_default().to_owned(),
        View::List(columns) => {
            let mut text = table(&docs("docs"), columns);
            if let Some(token) = answer["next_token"].as_str() {
                text.push_str(&format!("\n\nMore follow: --before {token}"));
            }
            text
        }
        View::Attempts => {
            format!("{}\n\n{}", record(&answer["callback"]), attempts(&docs("docs"), &answer["callback"]))
        }
        View::Task => {
            let mut parts = Vec::new();
            if !docs("callbacks").is_empty() {
                parts.push(table(&docs("callbacks"), &CALLBACKS));
            }
            if !docs("dead_letters").is_empty() {
                parts.push(table(&docs("dead_letters"), &DEAD_LETTERS));
            }
            parts.join("\n\n")
        }
    }
}

/// The attempts; a first delivery has no row of its own, and is told by the callback.
fn attempts(docs: &[Value], callback: &Value) -> String {
    let mut text = table(docs, &ATTEMPTS);
    if callback["state"] == "delivered" {
        text.push_str(&format!(
            "\nThe delivery itself stands in the callback: status {}, settled at {}.",
            callback["last_status"],
            callback["settled_at"].as_str().unwrap_or_default()
        ));
    }
    text
}

/// A path segment with everything but letters, digits and `-._~` percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

fn query(members: &[(&str, Option<String>)]) -> String {
    let given: Vec<_> = members
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", escaped(value))))
        .collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}
