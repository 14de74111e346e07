//! Moves the watermarks of partitions: shows first what is at risk, and asks.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::super::Failure;
use super::super::args::ConsentArgs;
use super::calls::{Call, post, time};
use super::client::Client;
use super::resend::{ALL, may_ask, says_yes};
use super::views::View;
use super::{one, show};
use crate::base::clock::{Clock as _, SystemClock};

/// Which partitions are moved.
pub(super) struct Which {
    pub(super) topic: Option<String>,
    pub(super) partition: Option<u32>,
}

pub(super) fn run(
    client: &Client,
    verb: &str,
    to: &str,
    which: Which,
    consent: &ConsentArgs,
) -> Result<ExitCode, Failure> {
    let mut body = json!({ "to": place(to)?, "topic": which.topic, "partition": which.partition });
    if consent.dry_run {
        return one(client, planned(verb, &body));
    }
    if consent.yes {
        body["at_most"] = json!(ALL);
    } else if may_ask(client) {
        agree(client, verb, &mut body)?;
    }
    one(client, call(verb, body))
}

/// Shows what would be done, and asks if records are at risk.
fn agree(client: &Client, verb: &str, body: &mut Value) -> Result<(), Failure> {
    let plan = client.ask(&planned(verb, body))?;
    let at_risk = plan["at_risk"].as_u64().unwrap_or(0);
    if at_risk == 0 {
        return Ok(());
    }
    show(client, &View::Reset, &plan);
    let question = match verb {
        "skip" => format!("Leave up to {at_risk} records out, which are then never read? [y/N] "),
        _ => format!("Read them again, although up to {at_risk} of their callbacks may be sent again? [y/N] "),
    };
    if !says_yes(&question)? {
        return Err(Failure::new(Failure::REFUSED, "nothing is moved"));
    }
    body["at_most"] = json!(at_risk);
    // What was shown is what is done, even if further records have come meanwhile.
    if let (Some([only]), true) = (plan["docs"].as_array().map(Vec::as_slice), body["partition"].is_u64()) {
        body["to"] = json!(only["to"].to_string());
    }
    Ok(())
}

fn planned(verb: &str, body: &Value) -> Call {
    let mut body = body.clone();
    body["dry_run"] = json!(true);
    call(verb, body)
}

fn call(verb: &str, body: Value) -> Call {
    Call { fails_unless: Some("succeeded"), ..post(format!("/offsets/{verb}"), body, View::Reset) }
}

/// A place for the API: `2h` means that long ago.
fn place(text: &str) -> Result<String, Failure> {
    let is_offset = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_offset || ["earliest", "end"].contains(&text) {
        return Ok(text.to_owned());
    }
    time(text, SystemClock.now()).map_err(|failure| {
        let sentence = format!("--to: {}; or an offset, \"earliest\" or \"end\"", failure.sentence);
        Failure::new(Failure::REFUSED, sentence)
    })
}
