//! Measures the gate: first its CPU time per request, compared with plain proxies, then how it serves a good client
//! while a hostile crowd attacks it.
//!
//! `make bench-gate` runs it. The gate, the proxies, the receiver and the crowd are separate processes on one machine.
//! The CPU time of a process is what the kernel counted for its threads, which is read from `/proc`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a report")]

mod cost;
mod crowd;
mod hostile;
mod process;
mod proxy;
mod requests;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["receiver"] => runtime.block_on(callbackd_bench::load::receiver()),
        ["proxy", upstream, kind] => runtime.block_on(proxy::run(upstream, kind)),
        ["crowd", gate, requests, large] => {
            runtime.block_on(crowd::run(gate.parse()?, requests.parse()?, large.parse()?))
        }
        ["cost"] => runtime.block_on(cost::measure()),
        ["hostile"] => runtime.block_on(hostile::measure()),
        [] => {
            runtime.block_on(cost::measure())?;
            runtime.block_on(hostile::measure())
        }
        _ => anyhow::bail!("usage: gate [cost | hostile]; without an argument it runs both"),
    }
}
