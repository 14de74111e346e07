//! The process of one suspect's attempt: it reads its order, makes the exchange as the daemon would, and answers. It knows no
//! team and no store, and it decides nothing about the callback.

use std::io::{self, Read as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use bytes::Bytes;

use super::wire::{Answer, BEGUN, Order, Ordered};
use crate::base::child_process::{bound_memory, go_first};
use crate::model::attempt::Outcome;
use crate::net::exchange::{Client, Exchange};

/// The longest order with its body. An event has at most 16 MiB.
const ORDER: u64 = 64 << 20;

/// Runs as the process of one attempt.
pub fn run() -> ExitCode {
    go_first();
    let exchange = attempt().unwrap_or_else(|why| Exchange::refused(Outcome::Interrupted, why));
    let mut output = io::stdout().lock();
    let answered = serde_json::to_writer(&mut output, &Answer::of(&exchange)).is_ok() && output.flush().is_ok();
    if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of the attempt, or a sentence that says why it could not begin.
fn attempt() -> Result<Exchange, String> {
    let mut input = Vec::new();
    io::stdin().lock().take(ORDER).read_to_end(&mut input).map_err(|error| error.to_string())?;
    let mut order = Bytes::from(input);
    let line = order.iter().position(|byte| *byte == b'\n').ok_or("the order breaks off")?;
    let body = order.split_off(line.saturating_add(1));
    let order: Order = serde_json::from_slice(&order).map_err(|error| error.to_string())?;
    let left = order.left;
    let Ordered { outgoing, policy, client, now } = order.open(body).ok_or("the order makes no sense")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _inside = runtime.enter();
    let client = Client::new(&client, policy).map_err(|error| error.to_string())?;
    bound_memory()?;
    // From here on, a death accuses the callback.
    let mut output = io::stdout().lock();
    output.write_all(BEGUN).and_then(|()| output.flush()).map_err(|error| error.to_string())?;
    drop(output);
    let end = tokio::time::Instant::now() + left;
    let trying = AssertUnwindSafe(|| runtime.block_on(client.post(&outgoing, now, end)));
    Ok(std::panic::catch_unwind(trying).unwrap_or_else(|_| {
        let exchange = Exchange::refused(Outcome::Panicked, "the attempt panicked; the log says where");
        Exchange { sent: true, ..exchange }
    }))
}
