//! Retries or cancels one pending callback, or all that match.

use std::process::ExitCode;

use serde_json::json;

use super::super::Failure;
use super::super::args::{Filters, PendingArgs};
use super::client::Client;
use super::resend::{ALL, WITHOUT_ASKING, chosen};
use super::views::View;
use super::{again, one, show};

pub(super) fn run(client: &Client, verb: &str, args: &PendingArgs) -> Result<ExitCode, Failure> {
    let Filters { state, reason, .. } = &args.filters;
    if reason.is_some() || state.as_ref().is_some_and(|state| state != "pending") {
        let sentence = "only pending callbacks can be retried or cancelled; to send ended ones again, say resend";
        return Err(Failure::new(Failure::REFUSED, sentence));
    }
    match chosen(args.id.as_deref(), args.filters.is_empty())? {
        Some(id) => one(client, again::pending_one(verb, id)),
        None => many(client, verb, args),
    }
}

fn many(client: &Client, verb: &str, args: &PendingArgs) -> Result<ExitCode, Failure> {
    let at_most = if args.yes { ALL } else { WITHOUT_ASKING };
    let filters = again::pending_body(args)?;
    let (mut changed, mut left_alone, mut next) = (0, 0, None::<String>);
    loop {
        let answer = client.ask(&again::pending_all(verb, &filters, at_most, next.as_deref()))?;
        changed += answer["changed"].as_u64().unwrap_or(0);
        left_alone += answer["left_alone"].as_u64().unwrap_or(0);
        next = answer["next_token"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    show(client, &View::Record, &json!({ "changed": changed, "left_alone": left_alone }));
    Ok(ExitCode::SUCCESS)
}
