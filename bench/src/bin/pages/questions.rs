//! What people ask the API.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http::{HeaderMap, Method};
use scale_callback::samples::Seed;
use scale_callback_serve::client::{Remote, call};
use serde_json::Value;

use super::filled::{ENDPOINTS_A_TEAM, Filled, TEAMS, task, team};

const HOUR: u64 = 3_600_000;
/// The rows of a page that is full.
const PAGE: usize = 50;

pub(crate) struct Question {
    pub(crate) kind: &'static str,
    path: String,
}

/// What an answer holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Nothing was found.
    pub(crate) nothing: bool,
    /// The page is not full, although there is more to look at: its time was over.
    pub(crate) cut: bool,
}

/// One question of each kind. `n` decides about which rows.
pub(crate) fn all(filled: Filled, n: u64) -> Vec<Question> {
    let mut seed = Seed::new(n);
    let team = team(seed.below(TEAMS));
    let origin = format!("https%3A%2F%2Fr{}.example%3A443", seed.below(ENDPOINTS_A_TEAM));
    let row = seed.below(filled.rows);
    // A second later, so that the row itself is in the answer.
    let until = rfc3339(filled.at(row) + 1_000);
    let failed = |from: u64, hours: u64| {
        format!("/callbacks?failed_since={}&failed_until={}", rfc3339(from), rfc3339(from + hours * HOUR))
    };
    let questions = [
        ("callback id", format!("/callbacks/{}", filled.id_text(row))),
        ("task", format!("/callbacks?task={}", task(row))),
        ("time", format!("/callbacks?until={until}")),
        ("state", "/callbacks?state=exhausted".to_owned()),
        ("reason", "/callbacks?reason=url_invalid".to_owned()),
        ("team, not delivered", format!("/callbacks?team={team}&state=exhausted")),
        ("endpoint, not delivered", format!("/callbacks?team={team}&endpoint={origin}&state=abandoned")),
        ("team, any state", format!("/callbacks?team={team}")),
        ("HTTP status, not delivered", "/callbacks?status=503&state=exhausted".to_owned()),
        ("HTTP status", "/callbacks?status=503".to_owned()),
        ("failed in the newest hour", failed(filled.newest - HOUR, 1)),
        ("failed in some hour", failed(filled.at(row), 1)),
        ("failed on some day", failed(filled.at(row), 24)),
        ("failed in some three days", failed(filled.at(row), 72)),
    ];
    questions.into_iter().map(|(kind, path)| Question { kind, path }).collect()
}

impl Question {
    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&self, api: &Remote) -> anyhow::Result<Found> {
        let answer = get(api, &self.path).await?;
        let docs = answer["docs"].as_array().map_or(1, Vec::len);
        Ok(Found { nothing: docs == 0, cut: docs < PAGE && answer["has_more"] == true })
    }
}

pub(crate) async fn get(api: &Remote, path: &str) -> anyhow::Result<Value> {
    let path = format!("/admin/v1{path}");
    let answer = call(api, Method::GET, &path, HeaderMap::new(), Bytes::new(), Duration::from_secs(20)).await?;
    ensure!(answer.status.is_success(), "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(serde_json::from_slice(&answer.body)?)
}

fn rfc3339(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    // The well-known algorithm that turns a number of days into a date. It is right for this century.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}
