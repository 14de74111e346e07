//! How answers are shown to people.

use serde_json::Value;

use super::super::table::{Column, Look, date, record, table, text, time, whole};
use super::attempts::{REBUILT, attempts, last_request};
use super::command::argument;
use super::job;
use crate::model::team::Mode;
use crate::net::probe::Step;

pub(super) type Columns = &'static [Column];

pub(super) const CALLBACKS: [Column; 9] = [
    whole("CALLBACK", "callback_id", 0),
    time("EVENT AT", "record_at", 5),
    whole("TEAM", "team_id", 1),
    whole("TASK", "task_id", 0),
    whole("STATE", "state", 0),
    whole("REASON", "reason", 4),
    whole("ATTEMPTS", "attempts", 6),
    whole("LAST", "last_outcome", 3),
    time("DUE", "due", 7),
];
const UNDER_WAY: [Column; 5] = [
    whole("CALLBACK", "callback_id", 0),
    whole("TEAM", "team_id", 2),
    text("EVENT TYPE", "event_type", 3, 10),
    whole("STAGE", "stage", 0),
    time("READ AT", "since", 1),
];
pub(super) const DEAD_LETTERS: [Column; 8] = [
    whole("DEAD LETTER", "dead_letter_id", 0),
    time("BURIED", "buried_at", 4),
    whole("REASON", "reason", 0),
    text("DETAIL", "detail", 3, 16),
    whole("TEAM", "team_id", 5),
    whole("TASK", "task_id", 1),
    whole("TOPIC PARTITION", "topic_partition", 2),
    whole("OFFSET", "offset", 2),
];
pub(super) const OFFSETS: [Column; 8] = [
    whole("TOPIC", "topic", 0),
    whole("PARTITION", "partition", 0),
    whole("WATERMARK", "watermark", 0),
    whole("SEEN", "seen_upto", 4),
    whole("LAG", "lag", 1),
    whole("EPOCH", "epoch", 5),
    whole("OWNED", "owned", 3),
    time("RECORDED UP TO", "recorded_upto", 2),
];
const RESETS: [Column; 7] = [
    whole("TOPIC", "topic", 0),
    whole("PARTITION", "partition", 0),
    whole("STATE", "state", 0),
    whole("FROM", "from", 0),
    whole("TO", "to", 0),
    whole("RECORDS", "records", 2),
    text("NOTE", "note", 1, 16),
];
pub(super) const TEAMS: [Column; 5] = [
    whole("TEAM", "team_id", 0),
    text("NAME", "name", 1, 8),
    whole("AUTH FORM", "auth_form", 3),
    text("DEFAULT URL", "default_url", 2, 24),
    text("FOR TEST TASKS", "default_url_test", 4, 24),
];
pub(super) const KEYS: [Column; 8] = [
    whole("KEY", "key_id", 0),
    whole("KIND", "kind", 0),
    whole("MODE", "mode", 0),
    whole("STATE", "state", 0),
    whole("LAST 4", "last4", 1),
    date("PROMOTED", "promoted_at", 2),
    date("REVOKED", "revoked_at", 3),
    date("LAST USED", "used_at", 4),
];

pub(super) const ENDPOINTS: [Column; 9] = [
    whole("TEAM", "team_id", 0),
    whole("ORIGIN", "origin", 0),
    whole("STATE", "state", 1),
    whole("IN FLIGHT", "in_flight", 5),
    whole("PENDING", "pending", 3),
    time("FIRST DUE", "oldest_due", 6),
    whole("FAILED IN A ROW", "consecutive_failures", 4),
    whole("LAST", "last_outcome", 2),
    text("RECENT", "recent", 7, 12),
];
pub(super) const RESENDS: [Column; 9] = [
    whole("JOB", "resend_id", 0),
    whole("STATE", "state", 0),
    whole("MATCHED", "matched", 1),
    whole("LOOKED AT", "looked_at", 2),
    whole("SENT AGAIN", "opened", 0),
    whole("LEFT ALONE", "left_alone", 3),
    whole("RATE", "rate", 5),
    text("BY", "created_by", 6, 8),
    time("CREATED", "created_at", 4),
];
const PAUSES: [Column; 5] = [
    whole("TEAM", "team_id", 0),
    whole("ENDPOINT", "origin", 0),
    time("SINCE", "since", 1),
    text("BY", "paused_by", 3, 8),
    text("REASON", "reason", 2, 16),
];
const WORST: [Column; 6] = [
    whole("TEAM", "team_id", 0),
    whole("ORIGIN", "origin", 0),
    whole("STATE", "state", 1),
    whole("FAILED IN A ROW", "consecutive_failures", 1),
    whole("LAST", "last_outcome", 2),
    time("LAST SUCCESS", "last_success_at", 3),
];
pub(super) const INSTANCES: [Column; 8] = [
    whole("INSTANCE", "instance_id", 0),
    whole("STATE", "state", 0),
    whole("PARTITIONS", "partitions", 2),
    text("NAME", "name", 3, 8),
    text("HOST", "host", 4, 8),
    whole("VERSION", "version", 6),
    time("STARTED", "started_at", 1),
    time("SEEN", "seen_at", 5),
];
const STEPS: [Column; 5] = [
    whole("STEP", "step", 0),
    whole("OK", "ok", 0),
    whole("MS", "duration_ms", 2),
    whole("OUTCOME", "outcome", 1),
    text("DETAIL", "detail", 0, 24),
];
pub(super) const TOKENS: [Column; 9] = [
    whole("TOKEN", "token_id", 0),
    text("NAME", "name", 1, 8),
    text("SCOPE", "scope", 2, 8),
    text("TEAMS", "teams", 6, 12),
    whole("STATE", "state", 0),
    whole("LAST 4", "last4", 4),
    date("CREATED", "created_at", 5),
    date("EXPIRES", "expires_at", 3),
    date("LAST USED", "used_at", 7),
];
pub(super) const AUDIT: [Column; 6] = [
    time("AT", "at", 0),
    whole("CALLER", "caller", 2),
    text("FROM", "address", 5, 9),
    whole("ACTION", "action", 0),
    whole("OBJECT", "object", 0),
    text("CHANGE", "change", 3, 16),
];

/// Every list, by the name of what it lists.
#[cfg(test)]
pub(in crate::cli) const LISTS: [(&str, &[Column]); 17] = [
    ("callbacks", &CALLBACKS),
    ("callbacks under way", &UNDER_WAY),
    ("attempts", &super::attempts::ATTEMPTS),
    ("attempts of rounds", &super::attempts::ATTEMPTS_OF_ROUNDS),
    ("dead letters", &DEAD_LETTERS),
    ("resends", &RESENDS),
    ("offsets", &OFFSETS),
    ("resets of offsets", &RESETS),
    ("teams", &TEAMS),
    ("keys", &KEYS),
    ("endpoints", &ENDPOINTS),
    ("pauses", &PAUSES),
    ("worst endpoints", &WORST),
    ("instances", &INSTANCES),
    ("steps", &STEPS),
    ("tokens", &TOKENS),
    ("audit", &AUDIT),
];

/// How an answer is shown.
pub(super) enum View {
    Record,
    List(Columns),
    /// A job that sends callbacks again.
    Job,
    /// A team that was created now.
    NewTeam,
    Status,
    Delivery,
    Attempts,
    Task,
    Check,
    Switch,
    Reset,
    /// Only one member of the answer.
    Member(&'static str),
}

/// The answer as text for people. A look without hints leaves out sentences about what else there is.
pub(super) fn shown(view: &View, answer: &Value, look: Look) -> String {
    let titled = |title: &str, member: &str, columns: &[Column]| titled(title, &docs(answer, member), columns, look);
    match view {
        View::Record => record(answer),
        View::Member(member) => answer[*member].as_str().unwrap_or_default().to_owned(),
        View::List(columns) => list(columns, answer, look),
        View::Job => joined([Some(record(answer)), job::outlook(answer).filter(|_| look.hints)]),
        View::NewTeam => joined([Some(record(answer)), look.hints.then(|| next_of_team(answer))]),
        View::Status => joined([
            Some(record(answer)),
            titled("Worst endpoints", "worst_endpoints", &WORST),
            titled("Instances", "instances", &INSTANCES),
        ]),
        View::Delivery => {
            joined([Some(record(answer)), titled("Paused (an empty place stands for all)", "pauses", &PAUSES)])
        }
        View::Attempts => {
            let request = last_request(answer, None).map(|request| format!("The last request, {REBUILT}:\n{request}"));
            joined([Some(record(&answer["callback"])), Some(attempts(answer, look)), request])
        }
        View::Task => joined([
            titled("Under way", "under_way", &UNDER_WAY),
            titled("Callbacks", "callbacks", &CALLBACKS),
            titled("Dead letters", "dead_letters", &DEAD_LETTERS),
        ]),
        View::Check => joined([Some(table(&docs(answer, "steps"), &STEPS, look)), Some(verdict(answer))]),
        View::Reset => joined([Some(table(&docs(answer, "docs"), &RESETS, look)), reset_verdict(answer)]),
        View::Switch => {
            let steps = |title, member: &str| titled_steps(title, &answer[member], look);
            joined([
                steps("A valid callback with the team's test keys, which the receiver must accept", "valid"),
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

/// The documents of a member. One that is in flight is due now, and a count that ended at its bound is a lower one.
fn docs(answer: &Value, member: &str) -> Vec<Value> {
    let mut docs = answer[member].as_array().cloned().unwrap_or_default();
    docs.iter_mut().filter(|doc| doc["in_flight"] == true).for_each(|doc| doc["due"] = "now".into());
    for doc in docs.iter_mut().filter(|doc| doc["pending_is_all"] == false) {
        doc["pending"] = format!("{}+", doc["pending"]).into();
    }
    docs
}

fn titled(title: &str, docs: &[Value], columns: &[Column], look: Look) -> Option<String> {
    (!docs.is_empty()).then(|| format!("{title}\n{}", table(docs, columns, look)))
}

fn titled_steps(title: &str, check: &Value, look: Look) -> Option<String> {
    check["steps"].as_array().map(|steps| format!("{title}\n{}", table(steps, &STEPS, look)))
}

/// What follows the creation of a team: its customer needs its keys.
fn next_of_team(answer: &Value) -> String {
    let team = argument(answer["team_id"].as_str().unwrap_or_default());
    format!(
        "It has keys of each kind already, for live and for test callbacks. The customer needs some of them:\n  \
         callbackd keys list --team {team}\n  callbackd keys reveal KEY --team {team}\n\
         Keys that the customer has already are taken over by callbackd keys create --from-file."
    )
}

/// How a check went, and with which keys: a receiver that holds only keys of the other mode refuses the callback.
fn verdict(answer: &Value) -> String {
    let mode = answer["mode"].as_str().unwrap_or_default();
    let sent = answer["steps"].as_array().into_iter().flatten().find(|step| step["step"] == Step::POST);
    let Some(sent) = sent else { return "No request was sent; the last step says why.".to_owned() };
    if answer["succeeded"] == true {
        return format!("The receiver accepted it, signed with the team's {mode} keys.");
    }
    let is_unauthenticated = matches!(sent["status"].as_u64(), Some(401 | 403));
    let hint = if is_unauthenticated && mode == Mode::Test.name() {
        " If the receiver holds only the live keys, try --mode live."
    } else {
        ""
    };
    format!(
        "The receiver did not accept it, signed with the team's {mode} keys; the last step says what it answered.{hint}"
    )
}

/// What remains to be said of watermarks that were moved, or would be.
fn reset_verdict(answer: &Value) -> Option<String> {
    let is_elsewhere = answer["docs"].as_array().into_iter().flatten().any(|doc| doc["state"] == "elsewhere");
    let sentences = [
        (answer["dry_run"] == true).then_some("This was a dry run: nothing was moved."),
        is_elsewhere.then_some("Partitions that are elsewhere are not moved by this daemon."),
    ];
    let sentences: Vec<_> = sentences.into_iter().flatten().collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

fn list(columns: Columns, answer: &Value, look: Look) -> String {
    let docs = docs(answer, "docs");
    let shown = table(&docs, columns, look);
    let Some(token) = answer["next_token"].as_str().filter(|_| look.hints) else { return shown };
    let found = if docs.is_empty() { "Nothing found so far; there is more to look at" } else { "More follow" };
    format!("{shown}\n\n{found}: --next {token}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_team_is_told_of_its_keys_unless_hints_are_not_wanted() {
        let answer = json!({ "team_id": "team_acme", "name": "Acme" });
        let told = |hints: bool| shown(&View::NewTeam, &answer, Look { hints, ..Look::default() });
        assert!(told(true).contains("\n  callbackd keys list --team team_acme\n"), "{}", told(true));
        assert_eq!(told(false), "team_id  team_acme\nname     Acme");
    }

    #[test]
    fn a_count_that_ended_at_its_bound_says_that_there_are_more() {
        let endpoint =
            |team: &str, is_all: bool| json!({ "team_id": team, "pending": 1_000, "pending_is_all": is_all });
        let answer = json!({ "docs": [endpoint("team_one", true), endpoint("team_two", false)] });
        let shown = shown(&View::List(&ENDPOINTS), &answer, Look::default());
        let cells: Vec<Vec<_>> = shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((cells[0][4], cells[1][4]), ("1000", "1000+"), "{shown}");
    }

    #[test]
    fn a_check_says_which_keys_signed_and_whether_anything_was_sent() {
        let check = |mode: &str, succeeded: bool, step: &str, status: Option<u16>| {
            verdict(&json!({ "mode": mode, "succeeded": succeeded, "steps": [{ "step": step, "status": status }] }))
        };
        assert_eq!(
            check("live", true, "post", Some(204)),
            "The receiver accepted it, signed with the team's live keys."
        );
        assert_eq!(check("test", false, "egress", None), "No request was sent; the last step says why.");
        for status in [401, 403] {
            let said = check("test", false, "post", Some(status));
            assert!(said.contains("test keys") && said.contains("--mode live"), "{said}");
            assert!(!check("live", false, "post", Some(status)).contains("--mode"), "it was signed with the live ones");
        }
        assert!(!check("test", false, "post", Some(503)).contains("--mode"), "the keys are not the reason");
    }
}
