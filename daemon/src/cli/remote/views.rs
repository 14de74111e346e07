//! How answers are shown to people.

use serde_json::Value;

use super::super::table::{Column, Look, record, table};

pub(super) type Columns = &'static [Column];

pub(super) const CALLBACKS: [Column; 9] = [
    ("CALLBACK", "callback_id"),
    ("EVENT AT", "record_at"),
    ("TEAM", "team_id"),
    ("TASK", "task_id"),
    ("STATE", "state"),
    ("REASON", "reason"),
    ("ATTEMPTS", "attempts"),
    ("LAST", "last_outcome"),
    ("DUE", "due"),
];
const ATTEMPTS: [Column; 7] = [
    ("#", "attempt"),
    ("BEGUN", "begun_at"),
    ("OUTCOME", "outcome"),
    ("STATUS", "status"),
    ("MS", "duration_ms"),
    ("PEER", "peer"),
    ("ANSWER", "answer"),
];
pub(super) const DEAD_LETTERS: [Column; 8] = [
    ("DEAD LETTER", "dead_letter_id"),
    ("BURIED", "buried_at"),
    ("REASON", "reason"),
    ("DETAIL", "detail"),
    ("TEAM", "team_id"),
    ("TASK", "task_id"),
    ("TOPIC PARTITION", "topic_partition"),
    ("OFFSET", "offset"),
];
pub(super) const OFFSETS: [Column; 8] = [
    ("TOPIC", "topic"),
    ("PARTITION", "partition"),
    ("WATERMARK", "watermark"),
    ("SEEN", "seen_upto"),
    ("LAG", "lag"),
    ("EPOCH", "epoch"),
    ("OWNED", "owned"),
    ("RECORDED UP TO", "recorded_upto"),
];
pub(super) const TEAMS: [Column; 5] = [
    ("TEAM", "team_id"),
    ("NAME", "name"),
    ("AUTH FORM", "auth_form"),
    ("DEFAULT URL", "default_url"),
    ("FOR TEST TASKS", "default_url_test"),
];
pub(super) const KEYS: [Column; 8] = [
    ("KEY", "key_id"),
    ("KIND", "kind"),
    ("MODE", "mode"),
    ("STATE", "state"),
    ("LAST 4", "last4"),
    ("PROMOTED", "promoted_at"),
    ("REVOKED", "revoked_at"),
    ("LAST USED", "used_at"),
];

pub(super) const ENDPOINTS: [Column; 9] = [
    ("TEAM", "team_id"),
    ("ORIGIN", "origin"),
    ("STATE", "state"),
    ("IN FLIGHT", "in_flight"),
    ("PENDING", "pending"),
    ("OLDEST DUE", "oldest_due"),
    ("FAILED IN A ROW", "consecutive_failures"),
    ("LAST", "last_outcome"),
    ("RECENT", "recent"),
];
const WORST: [Column; 5] = [
    ("TEAM", "team_id"),
    ("ORIGIN", "origin"),
    ("FAILED IN A ROW", "consecutive_failures"),
    ("LAST", "last_outcome"),
    ("LAST SUCCESS", "last_success_at"),
];
const INSTANCES: [Column; 4] =
    [("INSTANCE", "instance_id"), ("STATE", "state"), ("STARTED", "started_at"), ("SEEN", "seen_at")];
const STEPS: [Column; 5] =
    [("STEP", "step"), ("OK", "ok"), ("MS", "duration_ms"), ("OUTCOME", "outcome"), ("DETAIL", "detail")];
pub(super) const TOKENS: [Column; 9] = [
    ("TOKEN", "token_id"),
    ("NAME", "name"),
    ("SCOPE", "scope"),
    ("TEAMS", "teams"),
    ("STATE", "state"),
    ("LAST 4", "last4"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "used_at"),
];
pub(super) const AUDIT: [Column; 6] = [
    ("AT", "at"),
    ("CALLER", "caller"),
    ("FROM", "address"),
    ("ACTION", "action"),
    ("OBJECT", "object"),
    ("CHANGE", "change"),
];

/// How an answer is shown.
pub(super) enum View {
    Record,
    List(Columns),
    Status,
    Attempts,
    Task,
    Check,
    Switch,
    /// Only one member of the answer.
    Member(&'static str),
}

pub(super) fn shown(view: &View, answer: &Value, look: Look, quiet: bool) -> String {
    let titled = |title: &str, member: &str, columns: &[Column]| titled(title, &docs(answer, member), columns, look);
    match view {
        View::Record => record(answer),
        View::Member(member) => answer[*member].as_str().unwrap_or_default().to_owned(),
        View::List(columns) => list(columns, answer, look, quiet),
        View::Status => joined([
            Some(record(answer)),
            titled("Endpoints that fail", "worst_endpoints", &WORST),
            titled("Instances", "instances", &INSTANCES),
        ]),
        View::Attempts => {
            let callback = &answer["callback"];
            joined([Some(record(callback)), Some(attempts(&docs(answer, "docs"), callback, look))])
        }
        View::Task => joined([
            titled("Callbacks", "callbacks", &CALLBACKS),
            titled("Dead letters", "dead_letters", &DEAD_LETTERS),
        ]),
        View::Check => {
            let verdict = if answer["succeeded"] == true {
                "The receiver accepted it."
            } else {
                "The receiver did not accept it; the last step says why."
            };
            joined([Some(table(&docs(answer, "steps"), &STEPS, look)), Some(verdict.to_owned())])
        }
        View::Switch => {
            let steps = |title, member: &str| titled_steps(title, &answer[member], look);
            joined([
                steps("A valid test callback, which the receiver must accept", "valid"),
                steps("A forged one, which it must refuse", "forged"),
                answer["result"].as_str().map(str::to_owned),
            ])
        }
    }
}

/// Parts of an answer, with an empty line between them.
fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// The documents of a member. One that is in flight is due now.
fn docs(answer: &Value, member: &str) -> Vec<Value> {
    let mut docs = answer[member].as_array().cloned().unwrap_or_default();
    docs.iter_mut().filter(|doc| doc["in_flight"] == true).for_each(|doc| doc["due"] = "now".into());
    docs
}

fn titled(title: &str, docs: &[Value], columns: &[Column], look: Look) -> Option<String> {
    (!docs.is_empty()).then(|| format!("{title}\n{}", table(docs, columns, look)))
}

fn titled_steps(title: &str, check: &Value, look: Look) -> Option<String> {
    check["steps"].as_array().map(|steps| format!("{title}\n{}", table(steps, &STEPS, look)))
}

fn list(columns: Columns, answer: &Value, look: Look, quiet: bool) -> String {
    let docs = docs(answer, "docs");
    let shown = table(&docs, columns, look);
    let Some(token) = answer["next_token"].as_str().filter(|_| !quiet) else { return shown };
    let found = if docs.is_empty() { "Nothing found so far; there is more to look at" } else { "More follow" };
    format!("{shown}\n\n{found}: --next {token}")
}

/// The attempts. If the first one delivered the callback, it is not listed, and a sentence tells it.
fn attempts(docs: &[Value], callback: &Value, look: Look) -> String {
    let mut text = if docs.is_empty() { String::new() } else { format!("{}\n", table(docs, &ATTEMPTS, look)) };
    if callback["state"] == "delivered" {
        text.push_str(&format!(
            "The attempt that delivered it is told by the callback: status {}, settled at {}.",
            callback["last_status"],
            callback["settled_at"].as_str().unwrap_or_default()
        ));
    } else if docs.is_empty() {
        text.push_str("No attempt has ended yet.");
    }
    text.trim_end().to_owned()
}
