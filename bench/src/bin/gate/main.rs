//! What the gate costs, and what it bears: its CPU a request over a plain proxy's, then a hostile crowd before it.
//!
//! `make bench-gate`. The gate, the proxy, the receiver and the crowd are processes of their own on one machine; CPU
//! time is what the kernel charged each (`getrusage`, read from outside in `/proc`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a report")]

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
        _ => anyhow::bail!("it takes: cost, hostile, or nothing for both"),
    }
}
