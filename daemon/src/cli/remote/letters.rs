//! Sends one dead letter again or sets it aside, or all that match, one after the other.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use super::super::Failure;
use super::super::args::LettersArgs;
use super::calls::{self, get, letter_members, query};
use super::client::Client;
use super::follow::{each_page, progress};
use super::resend::{WITHOUT_ASKING, chosen};
use super::views::View;
use super::{again, one, show};

pub(super) fn run(client: &Client, verb: &'static str, args: &LettersArgs) -> Result<ExitCode, Failure> {
    match chosen(args.id.as_deref(), args.letters.is_empty())? {
        Some(id) => one(client, again::letter(verb, id)),
        None => many(client, verb, args),
    }
}

fn many(client: &Client, verb: &'static str, args: &LettersArgs) -> Result<ExitCode, Failure> {
    let ids = matching(client, args)?;
    if ids.len() as u64 > WITHOUT_ASKING && !args.yes {
        let sentence = format!("{} dead letters match; for all of them, add --yes", ids.len());
        return Err(Failure::new(Failure::REFUSED, sentence));
    }
    let bar = progress(client, "dead letters");
    let (mut changed, mut refused) = (0, BTreeMap::<String, u64>::new());
    for id in &ids {
        match client.ask(&again::letter(verb, id)) {
            Ok(_) => changed += 1,
            // It still can't become a callback, its record is gone, or it is gone itself.
            Err(failure) if matches!(failure.status, Failure::REFUSED | Failure::NOT_FOUND) => {
                let sentence = failure.sentence.replace(id.as_str(), "it");
                *refused.entry(sentence).or_default() += 1;
            }
            Err(failure) => return Err(failure),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let left: Vec<_> = refused.iter().map(|(why, count)| format!("{count} of them: {why}")).collect();
    show(
        client,
        &View::Record,
        &json!({ "changed": changed, "left_alone": refused.values().sum::<u64>(), "why": left }),
    );
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Failure::FAILED) })
}

/// The ids of all dead letters that match. They are read first, because each that is changed leaves the list.
fn matching(client: &Client, args: &LettersArgs) -> Result<Vec<String>, Failure> {
    let mut members = letter_members(&args.letters)?;
    members.push(("limit", Some(calls::PAGE.to_string())));
    let call = get(format!("/dead_letters{}", query(&members)), View::Record);
    let mut ids = Vec::new();
    each_page(client, &call, |docs| {
        ids.extend(docs.iter().filter_map(|doc| doc["dead_letter_id"].as_str()).map(str::to_owned));
        Ok(())
    })?;
    Ok(ids)
}
