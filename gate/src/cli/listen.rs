//! `listen`.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use scale_callback_auth::{Verified, Verifier, VerifyError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Failure, KeyArgs, parse_address, parse_duration, say, stop_on_signals};
use crate::body::whole;
use crate::client;
use crate::conformance::{ReceiverAt, unix_millis};
use crate::keys::{Change, LiveKeys};
use crate::receiver::BODY_LIMIT;
use crate::server::{Limits, Listener, serve};
use crate::text::{hex, printable};

/// How much of a body is shown.
const SHOWN: usize = 4_096;
/// Ids of callbacks that are remembered, to tell repeats.
const REMEMBERED: usize = 10_000;
/// For a whole body.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The arguments.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Where to listen; any path is taken.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: SocketAddr,
    #[command(flatten)]
    keys: KeyArgs,
    /// Print the keys it verifies with, as lines for a shell. Without any keys it makes some for this run and prints them.
    #[arg(long)]
    print_secret: bool,
    /// Print bodies as well, up to 4 KiB of each.
    #[arg(long)]
    print_body: bool,
    /// Send verified callbacks on to this URL, as they came, and answer what it answers.
    #[arg(long, value_name = "URL", conflicts_with_all = ["status", "delay"])]
    forward_to: Option<String>,
    /// Answer verified callbacks with this status, to see them come again.
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// With --status: this many times, and 204 from then on.
    #[arg(long, value_name = "N", requires = "status")]
    times: Option<u64>,
    /// Answer after this long; the platform waits 15s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// End with status 0 after this many verified callbacks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// With --count: end with status 1 if they did not come within this time.
    #[arg(long, value_name = "DURATION", requires = "count", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

struct Listening {
    keys: Keys,
    forward: Option<ReceiverAt>,
    status: StatusCode,
    /// Answers with `status` that are left; 204 from then on.
    times: AtomicU64,
    delay: Duration,
    print_body: bool,
    verified: watch::Sender<u64>,
    seen: Mutex<HashSet<String>>,
}

enum Keys {
    Given(LiveKeys),
    /// Made for this run.
    Made(Arc<Verifier>),
}

impl Keys {
    fn verifier(&self) -> Arc<Verifier> {
        match self {
            Self::Given(keys) => keys.verifier(),
            Self::Made(verifier) => Arc::clone(verifier),
        }
    }
}

pub(super) async fn run(args: ListenArgs) -> Result<ExitCode, Failure> {
    let forward = args.forward_to.as_deref().map(|url| ReceiverAt::parse(url, None));
    let forward = forward.transpose().map_err(Failure::refused)?;
    let keys = keys(&args)?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| Failure::refused(format!("can't listen at {}: {error}", args.listen)))?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let mut stopped = stop_on_signals()?;
    let (verified, mut count) = watch::channel(0);
    let status = args.status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::NO_CONTENT);
    if let Keys::Given(keys) = &keys {
        let keys = keys.clone();
        tokio::spawn(async move {
            keys.follow(|change| match change {
                Change::Refused(why) => say(&format!("the keys were read again and refused: {why}")),
                _ => say("other keys are in force"),
            })
            .await;
        });
    }
    let listening = Arc::new(Listening {
        keys,
        forward,
        status,
        times: AtomicU64::new(args.times.unwrap_or(u64::MAX)),
        delay: args.delay.unwrap_or_default(),
        print_body: args.print_body,
        verified,
        seen: Mutex::default(),
    });
    say(&format!("listening at http://{address}/ (any path)"));
    let (stop, stop_seen) = watch::channel(false);
    let serving = tokio::spawn(serve(
        Listener::Tcp(listener),
        Limits { drain: Duration::from_secs(2), ..Limits::default() },
        move |_| {
            let listening = Arc::clone(&listening);
            service_fn(move |request| respond(Arc::clone(&listening), request))
        },
        stop_seen,
    ));
    let (wanted, seen) = (args.count.unwrap_or(u64::MAX), count.clone());
    let patience = args.timeout.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
    let code = tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => if args.count.is_some() { ExitCode::from(130) } else { ExitCode::SUCCESS },
        _ = count.wait_for(|count| *count >= wanted) => ExitCode::SUCCESS,
        () = tokio::time::sleep(patience) => {
            say(&format!("{} of {wanted} verified callbacks came in time", *seen.borrow()));
            ExitCode::FAILURE
        }
    };
    stop.send_replace(true);
    let _ = serving.await;
    Ok(code)
}

fn keys(args: &ListenArgs) -> Result<Keys, Failure> {
    let source = args.keys.source();
    let variables = source.look().map_err(Failure::refused)?;
    if args.keys.keys_file.is_some() || variables != crate::keys::Variables::default() {
        let keys = LiveKeys::load(source).map_err(Failure::refused)?;
        if args.print_secret {
            for (name, value) in variables.shown().map_err(Failure::refused)? {
                say(&format!("export {name}={}", value.as_str()));
            }
        }
        return Ok(Keys::Given(keys));
    }
    let random = |bytes: &mut [u8]| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(bytes).map_err(|_| Failure::failed("the system gives no random bytes"))
    };
    let (mut secret, mut key) = ([0; 32], [0; 16]);
    random(&mut secret)?;
    random(&mut key)?;
    let file: Zeroizing<String> = Zeroizing::new(format!(
        "SCALE_CALLBACK_SIGNING_SECRET=whsec_{}\nSCALE_CALLBACK_AUTH_KEY=live_auth_{}\n",
        base64::engine::Engine::encode(&base64::engine::general_purpose::STANDARD, secret),
        hex(&key),
    ));
    say("no keys are set: these are made for this run, for `send` in another terminal");
    for line in file.lines() {
        say(&format!("export {line}"));
    }
    let value = |name: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(std::ffi::OsString::from)
    };
    let verifier = Verifier::from_variables(value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Keys::Made(Arc::new(verifier)))
}

async fn respond(listening: Arc<Listening>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(Ok(body)) = tokio::time::timeout(BODY_TIME, whole(body, BODY_LIMIT)).await else {
        say(&line("REFUSED", "the body is longer than 12 MiB, too slow, or broke off"));
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
    };
    if head.method != Method::POST {
        say(&line(
            "REFUSED",
            &format!("a {} request; callbacks are POST", printable(head.method.as_str().as_bytes(), 16)),
        ));
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
    }
    let verifier = listening.keys.verifier();
    match verifier.verify(&head.headers, &body) {
        Err(why) => {
            say(&line("REFUSED", &refused(&head.headers, why, &body)));
            listening.show(&body);
            Ok(plain(StatusCode::UNAUTHORIZED))
        }
        Ok(verified) => {
            let told = accepted(&verified, &head.headers);
            if let Err(why) = verified.callback() {
                say(&line("REFUSED", &format!("{told}: it is signed, but {why}, answered 400")));
                listening.show(&body);
                return Ok(plain(StatusCode::BAD_REQUEST));
            }
            let repeat = if listening.came_before(verified.id()) { ", a repeat" } else { "" };
            if !listening.delay.is_zero() {
                say(&line("valid", &format!("{told}{repeat}, to be answered after {:?}", listening.delay)));
            }
            let answer = listening.answer(&head, &body).await;
            say(&line("valid", &format!("{told}{repeat}, answered {}", answer.status())));
            listening.show(&body);
            listening.verified.send_modify(|count| *count += 1);
            Ok(answer)
        }
    }
}

impl Listening {
    fn show(&self, body: &[u8]) {
        if self.print_body {
            say(&format!("          {}", printable(body, SHOWN)));
        }
    }

    /// Whether a callback of this id came before, as far as is remembered.
    fn came_before(&self, id: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        !seen.insert(id.to_owned())
    }

    async fn answer(&self, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
        if let Some(at) = &self.forward {
            return self.forwarded(at, head, body).await;
        }
        tokio::time::sleep(self.delay).await;
        let left = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        plain(if left.is_ok() { self.status } else { StatusCode::NO_CONTENT })
    }

    async fn forwarded(&self, at: &ReceiverAt, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
        // What was verified, and what describes the body; nothing that is about this connection.
        let mut headers = HeaderMap::new();
        for (name, value) in &head.headers {
            let own = name == header::CONTENT_TYPE
                || name == header::USER_AGENT
                || name.as_str().starts_with("webhook-")
                || name.as_str().starts_with("scale-callback-");
            if own {
                headers.append(name, value.clone());
            }
        }
        let timeout = Duration::from_secs(15);
        match client::call(&at.remote, Method::POST, &at.path, headers, body.clone(), timeout).await {
            Ok(answer) => {
                let mut response = Response::new(Full::new(answer.body));
                *response.status_mut() = answer.status;
                for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
                    if let Some(value) = answer.headers.get(&name) {
                        response.headers_mut().insert(name, value.clone());
                    }
                }
                response
            }
            Err(error) => {
                say(&line("FAILED", &format!("{}: {error}", at.remote)));
                plain(StatusCode::BAD_GATEWAY)
            }
        }
    }
}

fn accepted(verified: &Verified<'_>, headers: &HeaderMap) -> String {
    let task = match verified.callback() {
        Ok(callback) => format!(
            "task {} {} {}",
            printable(callback.task_id().as_bytes(), 64),
            printable(callback.task_type().unwrap_or("-").as_bytes(), 64),
            printable(callback.status().unwrap_or("-").as_bytes(), 32),
        ),
        Err(_) => "no callback".to_owned(),
    };
    let attempt = headers.get(scale_callback_auth::header::ATTEMPT).and_then(|value| value.to_str().ok());
    let attempt = attempt.map(|n| format!(", attempt {}", printable(n.as_bytes(), 8))).unwrap_or_default();
    format!("{}  {task}, {} keys, {} bytes{attempt}", verified.id(), verified.mode().name(), verified.body().len())
}

fn refused(headers: &HeaderMap, why: VerifyError, body: &[u8]) -> String {
    let id = headers.get(scale_callback_auth::header::ID).map_or(&b"-"[..], |value| value.as_bytes());
    format!("{}  {why} ({}), {} bytes", printable(id, 64), why.code(), body.len())
}

/// A line with the time of day, UTC.
fn line(verdict: &str, told: &str) -> String {
    let seconds = unix_millis() / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z  {verdict:<7}  {told}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
