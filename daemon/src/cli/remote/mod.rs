//! Commands that ask a running daemon through its API. Each is one call, and a view of its answer.

mod again;
mod attempts;
mod calls;
mod client;
mod command;
mod export;
mod follow;
mod job;
mod letters;
mod pending;
mod resend;
mod reset;
mod views;

#[cfg(test)]
pub(super) use views::LISTS;

use std::process::ExitCode;

use super::Failure;
use super::args::{
    AuditCommand, CallbacksCommand, Command, DeadLettersCommand, OffsetsCommand, Remote, ResendsCommand,
};
use super::table::{Look, say};
use client::Client;

pub(super) fn run(remote: &Remote, command: Command) -> Result<ExitCode, Failure> {
    let client = Client::new(remote)?;
    match command {
        Command::Status(args) if args.watch => follow::status(&client, args.times),
        Command::Callbacks(CallbacksCommand::Watch { filters, count }) => follow::watch(&client, &filters, count),
        Command::Callbacks(CallbacksCommand::Export { filters, attempts, export }) => {
            export::callbacks(&client, &filters, attempts, &export)
        }
        Command::DeadLetters(DeadLettersCommand::Export { letters, export }) => {
            export::list(&client, "dead letters", &calls::all_letters(&letters)?, &export)
        }
        Command::Audit(AuditCommand::Export { object, caller, export }) => {
            export::list(&client, "changes", &calls::all_audit(object, caller), &export)
        }
        Command::Callbacks(CallbacksCommand::Resend(args)) => resend::run(&client, &args),
        Command::Resends(ResendsCommand::Get { id, wait: true }) => resend::wait(&client, &id),
        Command::Callbacks(CallbacksCommand::Retry(args)) => pending::run(&client, "retry", &args),
        Command::Callbacks(CallbacksCommand::Cancel(args)) => pending::run(&client, "cancel", &args),
        Command::DeadLetters(DeadLettersCommand::Resend(args)) => letters::run(&client, "resend", &args),
        Command::DeadLetters(DeadLettersCommand::Discard(args)) => letters::run(&client, "discard", &args),
        Command::Offsets(OffsetsCommand::Rewind(args)) => {
            let which = reset::Which { topic: args.topic, partition: args.partition };
            reset::run(&client, "rewind", &args.to, which, &args.consent)
        }
        Command::Offsets(OffsetsCommand::Skip(args)) => {
            let which = reset::Which { topic: args.topic, partition: Some(args.partition) };
            reset::run(&client, "skip", &args.to, which, &args.consent)
        }
        Command::Callbacks(CallbacksCommand::Payload { id, headers }) => payload(&client, &id, headers),
        command => one(&client, calls::of(command, remote.jsonl)?),
    }
}

/// One call, and a view of its answer.
fn one(client: &Client, call: calls::Call) -> Result<ExitCode, Failure> {
    if client.remote.jsonl {
        if !call.is_list() {
            return Err(Failure::new(Failure::REFUSED, "--jsonl is for lists; use --json"));
        }
        return follow::all_pages(client, &call);
    }
    let answer = client.ask(&call)?;
    show(client, &call.view, &answer);
    let failed = call.fails_unless.is_some_and(|member| answer[member] != true);
    Ok(if failed { ExitCode::from(Failure::FAILED) } else { ExitCode::SUCCESS })
}

fn show(client: &Client, view: &views::View, answer: &serde_json::Value) {
    if client.remote.json {
        say(&serde_json::to_string_pretty(answer).unwrap_or_default());
    } else {
        let look = Look { hints: !client.remote.quiet, ..Look::of_stdout() };
        say(&views::shown(view, answer, look));
    }
}

/// Prints a body as it is sent, after the head of the last request if it is asked for. On a terminal, what the terminal would obey
/// is escaped.
fn payload(client: &Client, id: &str, headers: bool) -> Result<ExitCode, Failure> {
    use std::io::{IsTerminal as _, Write as _};
    let place = calls::escaped(id);
    let known = calls::get(format!("/callbacks/{place}/attempts"), views::View::Record);
    let known = if headers { Some(client.ask(&known)?) } else { None };
    let body = client.bytes(&format!("/callbacks/{place}/payload"));
    if let Some(known) = known {
        // The head is shown, too, if nobody has the body any more.
        let request = attempts::last_request(&known, body.as_ref().ok().map(bytes::Bytes::len));
        say(&format!("{}\n", request.unwrap_or_else(|| attempts::UNKNOWN_REQUEST.to_owned())));
    }
    let body = body?;
    let mut out = std::io::stdout().lock();
    let written = if out.is_terminal() {
        writeln!(out, "{}", scale_callback_serve::text::printable(&body, body.len()))
    } else {
        out.write_all(&body)
    };
    written.map_err(|error| Failure::unwritten(&error))?;
    Ok(ExitCode::SUCCESS)
}
