//! How the history of an endpoint is written, in every database: several processes write it, so it is put together with the row that is
//! there, as `RecentOutcomes::merge` does it.

use std::sync::LazyLock;

/// What happens if the endpoint has a row: the end of an `INSERT`.
pub(super) static MERGE: LazyLock<String> = LazyLock::new(|| {
    // Whether a row of failures counts: the other one knows of no success since it began.
    let noted = "excluded.failing_since >= coalesce(endpoint.last_success_at, excluded.failing_since)";
    let known = "endpoint.failing_since >= coalesce(excluded.last_success_at, endpoint.failing_since)";
    format!(
        "ON CONFLICT (team, origin) DO UPDATE SET
             outcomes = CASE WHEN excluded.last_at >= endpoint.last_at THEN excluded.outcomes ELSE endpoint.outcomes END,
             last_at = CASE WHEN excluded.last_at >= endpoint.last_at THEN excluded.last_at ELSE endpoint.last_at END,
             last_success_at = CASE
                 WHEN excluded.last_success_at >= coalesce(endpoint.last_success_at, excluded.last_success_at)
                 THEN excluded.last_success_at ELSE endpoint.last_success_at END,
             failures = CASE
                 WHEN {noted} AND {known} AND endpoint.failures > excluded.failures THEN endpoint.failures
                 WHEN {noted} THEN excluded.failures
                 WHEN {known} THEN endpoint.failures ELSE 0 END,
             failing_since = CASE
                 WHEN {noted} AND {known} AND endpoint.failing_since < excluded.failing_since THEN endpoint.failing_since
                 WHEN {noted} THEN excluded.failing_since
                 WHEN {known} THEN endpoint.failing_since END"
    )
});

/// Takes back times that lie after now, which is the first parameter, because the clock was ahead.
pub(super) fn set_back(now: &str) -> String {
    let taken_back = |column| format!("{column} = CASE WHEN {column} > {now} THEN {now} ELSE {column} END");
    let columns = ["last_at", "last_success_at", "failing_since"].map(taken_back).join(", ");
    format!("UPDATE endpoint SET {columns} WHERE last_at > {now}")
}
