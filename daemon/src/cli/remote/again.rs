//! The calls that send again, retry, cancel or set aside: one, or all that match.

use serde_json::{Value, json};

use super::super::Failure;
use super::super::args::{Filters, PendingArgs, ResendArgs};
use super::calls::{Call, escaped, filter_members, post};
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
pub(super) fn pending_all(verb: &str, filters: &Value, at_most: u64, next: Option<&str>) -> Call {
    let mut body = filters.clone();
    body["at_most"] = json!(at_most);
    body["next_token"] = json!(next);
    post(format!("/callbacks/{verb}"), body, View::Record)
}

/// Which pending callbacks. They are pending, whether the filter says so or not. Times such as "2h" are read once.
pub(super) fn pending_body(args: &PendingArgs) -> Result<Value, Failure> {
    let mut body = filter_body(&args.filters)?;
    if let Some(members) = body.as_object_mut() {
        members.remove("state");
    }
    Ok(body)
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

/// Sends one callback again.
pub(super) fn resend_one(id: &str, args: &ResendArgs) -> Call {
    let form =
        json!({ "to_default": args.to_default, "allow_new_origin": args.allow_new_origin, "new_id": args.new_id });
    post(format!("/callbacks/{}/resend", escaped(id)), form, View::Record)
}

/// Counts the callbacks that match.
pub(super) fn preview(body: &Value) -> Call {
    post("/resends/preview", body.clone(), View::Record)
}

/// Begins a job for all callbacks that match.
pub(super) fn resend_all(body: &Value, at_most: u64) -> Call {
    let mut body = body.clone();
    body["at_most"] = json!(at_most);
    post("/resends", body, View::Job)
}

/// What is asked for. Times such as "2h" are read once, so that all requests mean the same callbacks.
pub(super) fn resend_body(args: &ResendArgs) -> Result<Value, Failure> {
    let mut body = filter_body(&args.filters)?;
    for (name, value) in
        [("to_default", args.to_default), ("allow_new_origin", args.allow_new_origin), ("new_id", args.new_id)]
    {
        body[name] = json!(value);
    }
    body["rate"] = json!(args.rate);
    Ok(body)
}
