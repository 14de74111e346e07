//! The command `listen`: it receives callbacks on this machine, and prints each with its verdict.

mod keys;
mod line;
mod respond;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use hyper::service::service_fn;
use scale_callback_serve::bind::bind;
use scale_callback_serve::server::{Limits, Listener, serve};
use serde_json::json;
use tokio::sync::watch;

use super::arguments::{KeyArgs, number, parse_address, parse_duration};
use super::error::CommandError;
use super::output::Output;
use super::signals::stop_on_signals;
use crate::receiver_at::ReceiverAt;
use keys::keys;
use respond::{Answers, Listening};

/// How long open requests may take once the command stops.
const DRAIN: Duration = Duration::from_secs(2);
/// The exit status of a command that was stopped before it was done.
const STOPPED: u8 = 130;

/// The arguments.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// The address at which to listen. Every path is accepted.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: SocketAddr,
    #[command(flatten)]
    keys: KeyArgs,
    /// Print the keys that verify, as lines for a shell. If no keys are set, the command makes some for this run and prints
    /// them.
    #[arg(long)]
    print_secret: bool,
    /// Print bodies as well, up to 4 KiB of each.
    #[arg(long)]
    print_body: bool,
    /// Forward verified callbacks to this URL, unchanged, and return its answer.
    #[arg(long, value_name = "URL", conflicts_with_all = ["status", "delay"])]
    forward_to: Option<String>,
    /// Answer verified callbacks with this status, for example 500, so that the platform sends them again.
    #[arg(long, value_name = "CODE", value_parser = number::<u16, 200, 599>)]
    status: Option<u16>,
    /// With --status: use it this many times, and answer 204 from then on.
    #[arg(long, value_name = "N", requires = "status", value_parser = number::<u64, 0, { u64::MAX }>)]
    times: Option<u64>,
    /// Wait this long before the answer. The platform waits 15s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// End with exit status 0 after this many verified callbacks.
    #[arg(long, value_name = "N", value_parser = number::<u64, 1, { u64::MAX }>)]
    count: Option<u64>,
    /// With --count: end with exit status 1 if they do not arrive within this time.
    #[arg(long, value_name = "DURATION", requires = "count", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

pub(super) async fn run(args: ListenArgs, json: bool) -> Result<ExitCode, CommandError> {
    let out = Arc::new(Output::new(json));
    // Signals are caught before anything is printed, since whoever reads a line may stop us at once.
    let stopped = stop_on_signals()?;
    let forward = args.forward_to.as_deref().map(|url| ReceiverAt::parse(url, None));
    let forward = forward.transpose().map_err(CommandError::refused)?;
    // The port comes before the keys, so that nobody copies the keys of a run that can't begin.
    let listener = bind(args.listen).await.map_err(|error| CommandError::failed(format!("--listen: {error}")))?;
    let address = listener.local_addr().map_err(CommandError::failed)?;
    let keys = keys(&args.keys, args.print_secret, &out)?;
    keys.follow(Arc::clone(&out));
    let (verified, count) = watch::channel(0);
    let status = args.status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::NO_CONTENT);
    let answers = Answers::new(status, args.times, args.delay.unwrap_or_default(), forward);
    let listening = Arc::new(Listening::new(keys, answers, args.print_body, Arc::clone(&out), verified));
    out.tell(
        || format!("listening at http://{address}/ (any path)"),
        || json!({ "event": "listening", "url": format!("http://{address}/") }),
    );
    let (stop, until_stopped) = watch::channel(false);
    let serving = tokio::spawn(serve(
        Listener::Tcp(listener),
        Limits { drain: DRAIN, ..Limits::default() },
        move |_| {
            let listening = Arc::clone(&listening);
            service_fn(move |request| Arc::clone(&listening).respond(request))
        },
        until_stopped,
    ));
    let code = until_done(&args, stopped, count, &out).await;
    stop.send_replace(true);
    serving.await.map_err(CommandError::failed)?;
    Ok(code)
}

/// Waits for the signal, for the last callback that is counted, for the end of the time, or until nobody reads the output.
async fn until_done(
    args: &ListenArgs,
    mut stopped: watch::Receiver<bool>,
    mut count: watch::Receiver<u64>,
    out: &Output,
) -> ExitCode {
    let (wanted, latest) = (args.count.unwrap_or(u64::MAX), count.clone());
    let patience = args.timeout.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {
            if args.count.is_some() { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS }
        }
        _ = count.wait_for(|count| *count >= wanted) => ExitCode::SUCCESS,
        // Nobody sees any further line.
        () = out.reader_gone() => ExitCode::SUCCESS,
        () = tokio::time::sleep(patience) => {
            let arrived = *latest.borrow();
            out.tell(
                || format!("{arrived} of {wanted} verified callbacks arrived in time"),
                || json!({ "event": "timeout", "arrived": arrived, "wanted": wanted }),
            );
            ExitCode::FAILURE
        }
    }
}
