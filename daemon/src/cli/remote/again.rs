//! The calls that send again, retry, cancel or set aside: one, or all that match.

use serde_json::{Value, json};

use super::super::Failure;
use super::super::args::{Filters, PendingArgs, ResendArgs};
use super::calls::{Call, escaped, filter_members, get, post};
use super::views::View;

/// Sends one dead letter again, or sets it aside.
pub(super) fn letter(verb: &str, id: &str) -> Call {
    post(format!("/dead_letters/{}/{verb}", escaped(id)), json!({}), View::Record)
}

/// Retries or cancels one callback.
pub(super) fn pending_one(verb: &str, id: &str) -> Call {
    post(format!("/callbacks/{}/{verb}", escaped(id)), json!({}), View::Record)
}

/// Retries or cancels pending callbacks that match.
pub(super) fn pending_all(verb: &str, args: &PendingArgs, at_most: u64, next: Option<&str>) -> Result<Call, Failure> {
    let mut body = filter_body(&args.filters)?;
    // They are pending, whether the filter says so or not.
    if body["state"] == "pending" {
        body.as_object_mut().map(|body| body.remove("state"));
    }
    body["at_most"] = json!(at_most);
    body["next_token"] = json!(next);
    Ok(post(format!("/callbacks/{verb}"), body, View::Record))
}

/// The given filters as members of a request. The status is a number here, and no text as in a query.
fn filter_body(filters: &Filters) -> Result<Value, Failure> {
    let mut body = json!({});
    for (name, value) in filter_members(filters)? {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body["status"] = json!(filters.status);
    Ok(body)
}

/// One job.
pub(super) fn resend_job(id: &str) -> Call {
    get(format!("/resends/{}", escaped(id)), View::Record)
}

/// Sends one callback again.
pub(super) fn resend_one(id: &str, args: &ResendArgs) -> Call {
    let form =
        json!({ "to_default": args.to_default, "allow_new_origin": args.allow_new_origin, "new_id": args.new_id });
    post(format!("/callbacks/{}/resend", escaped(id)), form, View::Record)
}

/// Counts the callbacks that match.
pub(super) fn preview(args: &ResendArgs) -> Result<Call, Failure> {
    Ok(post("/resends/preview", resend_body(args)?, View::Record))
}

/// Begins a job for all callbacks that match.
pub(super) fn resend_all(args: &ResendArgs, at_most: u64) -> Result<Call, Failure> {
    let mut body = resend_body(args)?;
    body["at_most"] = json!(at_most);
    Ok(post("/resends", body, View::Record))
}

fn resend_body(args: &ResendArgs) -> Result<Value, Failure> {
    let mut body = filter_body(&args.filters)?;
    for (name, value) in
        [("to_default", args.to_default), ("allow_new_origin", args.allow_new_origin), ("new_id", args.new_id)]
    {
        body[name] = json!(value);
    }
    body["rate"] = json!(args.rate);
    Ok(body)
}
