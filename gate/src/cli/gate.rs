//! `gate`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, KeyArgs, parse_address, parse_duration, say, stop_on_signals};
use crate::gate::{Bounds, Config, Gate, UpstreamAt};
use crate::keys::KeySource;

/// The arguments.
#[derive(Debug, Args)]
pub struct GateArgs {
    /// Where callbacks come in.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: SocketAddr,
    /// Your server: http://HOST:PORT, with a path if it is another than --path, or unix:PATH.
    #[arg(long, value_name = "URL", value_parser = UpstreamAt::parse)]
    upstream: UpstreamAt,
    /// The path and query of the callback URL, compared as they are written.
    #[arg(long, value_name = "PATH", default_value = "/callbacks", value_parser = parse_path)]
    path: String,
    #[command(flatten)]
    keys: KeyArgs,
    /// A PEM file with the certificate chain: the listener speaks TLS, HTTP/1.1 and HTTP/2.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    admin: Option<SocketAddr>,
    /// A file with a token that the gate sends to your server as `authorization: Bearer`, so that your server can refuse
    /// whoever walks around the gate. A unix socket needs none.
    #[arg(long, value_name = "FILE")]
    upstream_token_file: Option<PathBuf>,
    /// Pass scale-callback-auth on to your server as well. In its key form it is a secret.
    #[arg(long)]
    keep_auth_header: bool,
    /// Accept the callback auth key alone, without a signature. Whoever saw one callback can make any other then.
    #[arg(long)]
    static_key_authenticates_no_body: bool,
    /// Connections open at once; one more is refused. Each may take two file descriptors.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// For your server's whole answer; the platform waits 15s. Then 504.
    #[arg(long, value_name = "DURATION", default_value = "14s", value_parser = parse_timeout)]
    upstream_timeout: Duration,
    /// Callbacks that are remembered, for 6 minutes each, so that one that is sent again is answered 200 and not handled
    /// again. Above it: 503, so this bounds the callbacks of 6 minutes. 100,000 take some 25 MB.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    remember: u32,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    if range.contains(&time) { Ok(time) } else { Err("it is between 100ms and 60s".to_owned()) }
}

fn parse_path(text: &str) -> Result<String, String> {
    let path: Result<http::uri::PathAndQuery, _> = text.parse();
    match path {
        Ok(path) if text.starts_with('/') && path.as_str() == text => Ok(text.to_owned()),
        _ => Err("a path begins with / and is written as a request writes it".to_owned()),
    }
}

/// As many connections as there may be descriptors for, two each: as many as the system gives are asked for first.
fn connections(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(descriptors.saturating_sub(64) / 2).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        say(&format!(
            "warning: {descriptors} file descriptors are enough for {possible} connections, not for {wanted}"
        ));
    }
    wanted.min(possible)
}

pub(super) async fn run(args: GateArgs) -> Result<ExitCode, Failure> {
    let static_key = args.static_key_authenticates_no_body;
    let usual = Bounds::default();
    let bounds = Bounds {
        connections: connections(args.connections as usize),
        upstream: args.upstream_timeout,
        remembered: args.remember as usize,
        drain: usual.drain.max(args.upstream_timeout + Duration::from_secs(5)),
        ..usual
    };
    let config = Config {
        listen: args.listen,
        tls: args.tls_cert.zip(args.tls_key),
        admin: args.admin,
        path: args.path.clone(),
        upstream: args.upstream,
        upstream_token: args.upstream_token_file,
        keys: KeySource { static_key, ..args.keys.source() },
        keep_auth_header: args.keep_auth_header,
        bounds,
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let gate = Gate::bind(config).await.map_err(Failure::refused)?;
    let stop = stop_on_signals()?;
    let reload = gate.reloader();
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| Failure::failed(error.to_string()))?;
    tokio::spawn(async move {
        let reload = std::sync::Arc::new(reload);
        while hang_up.recv().await.is_some() {
            let reload = std::sync::Arc::clone(&reload);
            // It reads files.
            let _ = tokio::task::spawn_blocking(move || reload()).await;
        }
    });
    say(&format!("the gate listens at {scheme}://{}{}", gate.address, args.path));
    if let Some(admin) = gate.admin_address {
        say(&format!("health and metrics at http://{admin}/readyz and /metrics"));
    }
    if static_key {
        say("warning: only the key is compared; nothing proves the body");
    }
    say("what was handled is remembered by this process alone: claim webhook-id in your own transaction as well");
    let mut stopping = stop.clone();
    tokio::spawn(async move {
        if stopping.wait_for(|stop| *stop).await.is_ok() {
            say("stopping: requests under way end first; a second signal ends them");
        }
    });
    gate.run(stop).await;
    Ok(ExitCode::SUCCESS)
}
