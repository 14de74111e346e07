//! How a job that sends callbacks again is told to people, beside its own numbers.

use serde_json::Value;

use super::command::command;

/// How far a job has come. The numbers are of one answer, so they fit each other.
pub(super) fn progress(job: &Value) -> String {
    let id = job["resend_id"].as_str().unwrap_or_default();
    format!("{id}: {} of {} looked at, {} sent again", job["looked_at"], job["matched"], job["opened"])
}

/// For a job that has ended, the command that lists its callbacks. A job knows what it has sent again, but the store can't count
/// cheaply what became of that: no row of a callback names the job, and an index of them would be a cost for every callback.
pub(super) fn outlook(job: &Value) -> Option<String> {
    let has_ended = job["state"] == "done" || job["state"] == "cancelled";
    if !has_ended || job["opened"] == 0 {
        return None;
    }
    let listing = listing(&job["filter"]);
    let sentence =
        "The job does not know which of them arrived. This lists the callbacks of its filter, whatever became of them:";
    Some(format!("{sentence}\n  {listing}"))
}

/// The command that lists the callbacks of a filter, whatever became of them. Their state, and what it follows from, is left out:
/// it may be another one since the job began.
fn listing(filter: &Value) -> String {
    let text = |name: &str| filter[name].as_str().map(str::to_owned);
    let failed = text("failed_since").zip(text("failed_until")).map(|(since, until)| format!("{since}..{until}"));
    let options = [
        ("--team", text("team")),
        ("--task", text("task")),
        ("--endpoint", text("endpoint")),
        ("--mode", text("mode")),
        ("--since", text("since")),
        ("--until", text("until")),
        ("--failed-between", failed),
    ];
    command("callbackd callbacks list", options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_numbers_of_the_bar_are_those_of_one_answer() {
        let job = json!({ "resend_id": "rs_1", "matched": 4_999, "looked_at": 25, "opened": 24 });
        assert_eq!(progress(&job), "rs_1: 25 of 4999 looked at, 24 sent again");
    }

    #[test]
    fn a_job_that_has_ended_names_the_command_that_lists_its_callbacks() {
        let filter = json!({
            "team": "team_acme", "task": null, "endpoint": null, "state": "undelivered", "reason": null,
            "outcome": "server_error", "status": 503, "mode": "live", "since": null, "until": "2026-12-02T00:00:00.000Z",
            "failed_since": "2026-12-01T06:08:00.000Z", "failed_until": "2026-12-01T06:10:00.000Z",
        });
        let job = |state: &str, opened: u64| json!({ "state": state, "opened": opened, "filter": filter });
        let told = outlook(&job("done", 7)).expect("it has ended");
        let listing = "\n  callbackd callbacks list --team team_acme --mode live --until 2026-12-02T00:00:00.000Z \
                       --failed-between 2026-12-01T06:08:00.000Z..2026-12-01T06:10:00.000Z";
        assert!(told.ends_with(listing), "{told}");
        assert!(outlook(&job("cancelled", 1)).is_some(), "what it has sent goes on");
        for (state, opened) in [("running", 7), ("paused", 7), ("done", 0)] {
            assert_eq!(outlook(&job(state, opened)), None, "{state}");
        }
    }
}
