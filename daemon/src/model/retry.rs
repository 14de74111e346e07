//! When a callback is tried again: a pure function of the outcome, the progress so far, the policy, the time and a
//! jitter. No retry is planned beyond the horizon.

use std::time::Duration;

use super::attempt::Outcome;
use crate::base::clock::Timestamp;
use crate::base::named::named;

/// The retry policy. The default is the platform's contract: 20 retries over 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait. Each of the next waits is twice as long.
    pub first: Duration,
    /// How many waits double. The waits after them share the rest of the horizon equally.
    pub doublings: u32,
    pub retries: u32,
    pub horizon: Duration,
    /// Whether an answer 410 ends the callback.
    pub end_on_gone: bool,
}

impl RetryPolicy {
    /// The longest horizon. A mistake in a setting must not keep a callback and its body for years.
    pub const LONGEST_HORIZON: Duration = Duration::from_secs(30 * 86_400);
    /// The most retries.
    pub const MOST_RETRIES: u32 = 1_000;

    /// Whether a retry follows the next failure of a callback that has come so far, as far as retries are counted.
    pub fn has_retry_after(&self, progress: &Progress) -> bool {
        progress.tries < self.retries
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            doublings: 11,
            retries: 20,
            horizon: Duration::from_secs(86_400),
            end_on_gone: false,
        }
    }
}

/// How far a callback has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// When the first attempt began; `None` before it.
    pub since: Option<Timestamp>,
    pub horizon: Option<Timestamp>,
    /// Failed attempts of this round.
    pub tries: u32,
    /// All attempts so far. The next one has this number plus 1.
    pub attempts: u32,
}

/// The facts of an attempt that decide about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// Every later attempt would fail as well: the URL is invalid, its literal address is denied, or attempts alone end their
    /// processes.
    pub hopeless: bool,
    pub begun_at: Timestamp,
    /// The wait that the receiver asked for with 429 or 503.
    pub retry_after: Option<Duration>,
    /// While the clock may be wrong, no callback ends because of its horizon.
    pub clock_is_trusted: bool,
}

named! {
    /// Why a callback was given up.
    pub enum Reason {
        NoUrl = "no_url",
        UrlInvalid = "url_invalid",
        EmailNotSupported = "email_not_supported",
        AddressDenied = "address_denied",
        OriginNotAllowed = "origin_not_allowed",
        HttpNotAllowed = "http_not_allowed",
        Gone = "gone",
        Cancelled = "cancelled",
        TeamDeleted = "team_deleted",
        RecordChanged = "record_changed",
        BodyGone = "body_gone",
        Poison = "poison",
        StoreRejected = "store_rejected",
    }
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Delivered,
    Retry {
        due: Timestamp,
        since: Timestamp,
        horizon: Timestamp,
    },
    Exhausted,
    Abandoned(Reason),
    /// A stop cut the attempt off. The callback is due at once, and this does not count as a try.
    Interrupted {
        due: Timestamp,
        since: Timestamp,
        horizon: Timestamp,
    },
}

impl Next {
    /// When the next attempt is due, if there is one.
    pub fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Retry { due, .. } | Self::Interrupted { due, .. } => Some(*due),
            Self::Delivered | Self::Exhausted | Self::Abandoned(_) => None,
        }
    }
}

/// How long a callback waits whose horizon has passed by a clock that may be wrong.
const UNTRUSTED_WAIT: Duration = Duration::from_secs(900);

/// The part of a wait by which jitter makes it shorter at most, so that callbacks that failed together are not retried together.
pub const JITTER: f64 = 0.1;

/// Decides what follows the attempt that ended `now`; `jitter` lies in [0, 1].
pub fn next(report: &Report, progress: &Progress, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Next {
    let since = progress.since.unwrap_or(report.begun_at);
    let horizon = progress.horizon.unwrap_or_else(|| since.plus(policy.horizon));
    match report.outcome {
        Outcome::Ok => return Next::Delivered,
        Outcome::Interrupted => return Next::Interrupted { due: now, since, horizon },
        _ => {}
    }
    if let Some(reason) = given_up(report, policy) {
        return Next::Abandoned(reason);
    }
    // This attempt is the progress's next failure: retry number `retry` would follow it.
    let retry = progress.tries.saturating_add(1);
    if !policy.has_retry_after(progress) {
        return ended_by(report.outcome);
    }
    if now >= horizon {
        // A clock that may be wrong ends nothing.
        let due = now.plus(UNTRUSTED_WAIT);
        return if report.clock_is_trusted { ended_by(report.outcome) } else { Next::Retry { due, since, horizon } };
    }
    let wait = scheduled(retry, policy, horizon.since(now)).mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0));
    let asked = report.retry_after.unwrap_or_default();
    let due = now.plus(wait.max(asked)).min(horizon);
    Next::Retry { due, since, horizon }
}

/// The waits that [`next`] plans for a callback of which each attempt fails at once, without jitter.
pub fn waits(policy: &RetryPolicy) -> Vec<Duration> {
    let begun_at = Timestamp::default();
    let report =
        Report { outcome: Outcome::ServerError, hopeless: false, begun_at, retry_after: None, clock_is_trusted: true };
    let (mut progress, mut now, mut waits) = (Progress::default(), begun_at, Vec::new());
    while let Next::Retry { due, since, horizon } = next(&report, &progress, policy, now, 0.0) {
        waits.push(due.since(now));
        let tries = progress.tries.saturating_add(1);
        progress = Progress { since: Some(since), horizon: Some(horizon), tries, attempts: tries };
        now = due;
    }
    waits
}

/// The wait before retry number `retry`, with `left` until the horizon.
fn scheduled(retry: u32, policy: &RetryPolicy, left: Duration) -> Duration {
    if retry <= policy.doublings {
        let doubled = 1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        policy.first.saturating_mul(doubled)
    } else {
        let retries_left = policy.retries.saturating_sub(retry).saturating_add(1);
        left.checked_div(retries_left).unwrap_or(left)
    }
}

fn given_up(report: &Report, policy: &RetryPolicy) -> Option<Reason> {
    match report.outcome {
        Outcome::NoUrl => Some(Reason::NoUrl),
        Outcome::UrlInvalid => Some(Reason::UrlInvalid),
        Outcome::EmailNotSupported => Some(Reason::EmailNotSupported),
        Outcome::OriginNotAllowed => Some(Reason::OriginNotAllowed),
        Outcome::HttpNotAllowed => Some(Reason::HttpNotAllowed),
        Outcome::RecordChanged => Some(Reason::RecordChanged),
        Outcome::BodyGone => Some(Reason::BodyGone),
        Outcome::StoreRejected => Some(Reason::StoreRejected),
        Outcome::Gone if policy.end_on_gone => Some(Reason::Gone),
        // It ended processes of its own, one after the other.
        Outcome::Panicked if report.hopeless => Some(Reason::Poison),
        Outcome::AddressDenied if report.hopeless => Some(Reason::AddressDenied),
        _ => None,
    }
}

/// If the name still resolves to a denied address at the end, this is the reason.
fn ended_by(last: Outcome) -> Next {
    if last == Outcome::AddressDenied { Next::Abandoned(Reason::AddressDenied) } else { Next::Exhausted }
}

/// Reads a `Retry-After` value: seconds, or an HTTP date in any of its three forms (RFC 9110, section 5.6.7). A value that
/// is too large is read as a very long wait.
pub fn retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds: longer than any horizon.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    Some(http_date(text)?.since(now))
}

fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(date) = httpdate::parse_http_date(text) {
        let since_1970 = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        return Some(Timestamp::from_millis(0).plus(since_1970));
    }
    // Some receivers send the date of an e-mail, which may have another zone.
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(outcome: Outcome) -> Report {
        Report {
            outcome,
            hopeless: false,
            begun_at: Timestamp::from_millis(0),
            retry_after: None,
            clock_is_trusted: true,
        }
    }

    /// Simulates the whole life of a callback that always fails, and returns the second of each attempt.
    fn life(policy: &RetryPolicy, jitter: f64) -> (Vec<f64>, Next) {
        let mut progress = Progress::default();
        let mut now = Timestamp::from_millis(0);
        let mut attempts = vec![0.0];
        loop {
            match next(&report(Outcome::ServerError), &progress, policy, now, jitter) {
                Next::Retry { due, since, horizon } => {
                    now = due;
                    attempts.push(due.millis() as f64 / 1000.0);
                    progress.since = Some(since);
                    progress.horizon = Some(horizon);
                    progress.tries += 1;
                    progress.attempts += 1;
                }
                end => return (attempts, end),
            }
        }
    }

    #[test]
    fn the_contract_is_one_attempt_and_20_retries_over_24_hours() {
        let (attempts, end) = life(&RetryPolicy::default(), 0.0);
        let doubling = [0.0, 5.0, 15.0, 35.0, 75.0, 155.0, 315.0, 635.0, 1275.0, 2555.0, 5115.0, 10235.0];
        assert_eq!(attempts[..12], doubling);
        assert_eq!(attempts.len(), 21);
        assert_eq!(end, Next::Exhausted);
        for pair in attempts[11..].windows(2) {
            assert!((pair[1] - pair[0] - 8462.777).abs() < 0.01, "{pair:?}");
        }
        assert!((attempts[20] - 86_400.0).abs() < 0.01, "{attempts:?}");
    }

    #[test]
    fn a_short_horizon_cuts_the_schedule() {
        let policy = RetryPolicy { horizon: Duration::from_secs(20), ..RetryPolicy::default() };
        assert_eq!(life(&policy, 0.0).0, [0.0, 5.0, 15.0, 20.0]);
        assert_eq!(waits(&policy), [5, 10, 5].map(Duration::from_secs));
    }

    #[test]
    fn the_waits_are_those_of_a_life_without_jitter() {
        for policy in [
            RetryPolicy::default(),
            RetryPolicy { retries: 0, ..RetryPolicy::default() },
            RetryPolicy { retries: RetryPolicy::MOST_RETRIES, doublings: 3, ..RetryPolicy::default() },
            RetryPolicy { first: Duration::ZERO, ..RetryPolicy::default() },
            RetryPolicy { first: Duration::from_secs(1 << 40), ..RetryPolicy::default() },
        ] {
            let (attempts, end) = life(&policy, 0.0);
            let mut at = Duration::ZERO;
            let due = waits(&policy).into_iter().map(|wait| {
                at += wait;
                at.as_millis() as f64 / 1000.0
            });
            assert_eq!(due.collect::<Vec<_>>(), attempts[1..], "{policy:?}");
            assert_eq!(end, Next::Exhausted);
        }
    }

    #[test]
    fn refusals_end_at_once_and_are_told_apart() {
        let ends = [
            (Outcome::NoUrl, Reason::NoUrl),
            (Outcome::UrlInvalid, Reason::UrlInvalid),
            (Outcome::EmailNotSupported, Reason::EmailNotSupported),
            (Outcome::OriginNotAllowed, Reason::OriginNotAllowed),
            (Outcome::HttpNotAllowed, Reason::HttpNotAllowed),
            (Outcome::RecordChanged, Reason::RecordChanged),
            (Outcome::BodyGone, Reason::BodyGone),
            (Outcome::StoreRejected, Reason::StoreRejected),
        ];
        let policy = RetryPolicy::default();
        let now = Timestamp::from_millis(1);
        for outcome in Outcome::ALL {
            let next = next(&report(*outcome), &Progress::default(), &policy, now, 0.5);
            match ends.iter().find(|(o, _)| o == outcome) {
                Some((_, reason)) => assert_eq!(next, Next::Abandoned(*reason)),
                None if *outcome == Outcome::Ok => assert_eq!(next, Next::Delivered),
                None if *outcome == Outcome::Interrupted => assert!(matches!(next, Next::Interrupted { .. })),
                None => assert!(matches!(next, Next::Retry { .. }), "{outcome:?}"),
            }
        }
    }

    #[test]
    fn what_ended_two_processes_of_its_own_ends_and_a_first_time_is_a_try() {
        let (policy, now) = (RetryPolicy::default(), Timestamp::from_millis(1));
        let first = report(Outcome::Panicked);
        assert!(matches!(next(&first, &Progress::default(), &policy, now, 0.0), Next::Retry { .. }));
        let second = Report { hopeless: true, ..first };
        assert_eq!(next(&second, &Progress::default(), &policy, now, 0.0), Next::Abandoned(Reason::Poison));
        // What somebody else ended is no failure of its own, whatever came before.
        let killed = Report { hopeless: true, ..report(Outcome::Interrupted) };
        assert!(matches!(next(&killed, &Progress::default(), &policy, now, 0.0), Next::Interrupted { .. }));
    }

    #[test]
    fn a_denied_literal_ends_and_a_denied_name_is_retried_to_the_end() {
        let policy = RetryPolicy { retries: 1, ..RetryPolicy::default() };
        let denied = report(Outcome::AddressDenied);
        let now = Timestamp::from_millis(1);
        let literal = Report { hopeless: true, ..denied };
        assert_eq!(next(&literal, &Progress::default(), &policy, now, 0.0), Next::Abandoned(Reason::AddressDenied));
        assert!(matches!(next(&denied, &Progress::default(), &policy, now, 0.0), Next::Retry { .. }));
        let last = Progress { tries: 1, attempts: 1, ..Progress::default() };
        assert_eq!(next(&denied, &last, &policy, now, 0.0), Next::Abandoned(Reason::AddressDenied));
        assert_eq!(next(&report(Outcome::ServerError), &last, &policy, now, 0.0), Next::Exhausted);
    }

    #[test]
    fn a_clock_that_may_be_wrong_ends_nothing() {
        let policy = RetryPolicy::default();
        let far = Timestamp::from_millis(0).plus(policy.horizon * 2);
        let progress =
            Progress { tries: 3, attempts: 3, since: Some(Timestamp::from_millis(0)), ..Progress::default() };
        let trusted = report(Outcome::ServerError);
        assert_eq!(next(&trusted, &progress, &policy, far, 0.0), Next::Exhausted);
        let untrusted = Report { clock_is_trusted: false, ..trusted };
        let Next::Retry { due, horizon, .. } = next(&untrusted, &progress, &policy, far, 0.0) else {
            panic!("it ends")
        };
        assert_eq!(due, far.plus(UNTRUSTED_WAIT));
        assert_eq!(horizon, Timestamp::from_millis(0).plus(policy.horizon), "the horizon stays");
        let used_up = Progress { tries: policy.retries, ..progress };
        assert_eq!(next(&untrusted, &used_up, &policy, far, 0.0), Next::Exhausted, "the number of tries is certain");
    }

    #[test]
    fn gone_ends_only_where_the_team_chose_so() {
        let now = Timestamp::from_millis(1);
        let gone = report(Outcome::Gone);
        let usual = RetryPolicy::default();
        assert!(matches!(next(&gone, &Progress::default(), &usual, now, 0.0), Next::Retry { .. }));
        let ending = RetryPolicy { end_on_gone: true, ..usual };
        assert_eq!(next(&gone, &Progress::default(), &ending, now, 0.0), Next::Abandoned(Reason::Gone));
    }

    #[test]
    fn retry_after_is_obeyed_inside_the_horizon() {
        let policy = RetryPolicy::default();
        let now = Timestamp::from_millis(0);
        let asked = |secs| Report { retry_after: Some(Duration::from_secs(secs)), ..report(Outcome::RateLimited) };
        let due = |report| match next(&report, &Progress::default(), &policy, now, 0.0) {
            Next::Retry { due, .. } => due.millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(due(asked(1)), 5_000);
        assert_eq!(due(asked(60)), 60_000);
        assert_eq!(due(asked(u64::MAX)), 86_400_000);
    }

    #[test]
    fn retry_after_reads_seconds_and_dates_and_survives_nonsense() {
        let now = Timestamp::from_millis(784_111_770_000);
        assert_eq!(retry_after(b"120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(b" 7 ", now), Some(Duration::from_secs(7)));
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 09:49:37 +0100",
        ] {
            assert_eq!(retry_after(date.as_bytes(), now), Some(Duration::from_secs(7)), "{date}");
        }
        assert_eq!(retry_after(b"Sun, 06 Nov 1994 08:49:20 GMT", now), Some(Duration::ZERO), "it has passed");
        assert_eq!(retry_after(b"99999999999999999999999", now), Some(Duration::from_secs(u64::from(u32::MAX))));
        for nonsense in [&b"1e300"[..], b"-5", b"", b"soon", b"\xff", b"1.5"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_date_far_ahead_waits_to_the_horizon() {
        let now = Timestamp::from_millis(784_111_770_000);
        for date in ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri Dec 31 23:59:59 9999", "Fri, 31 Dec 9999 23:59:59 -1200"] {
            let retry_after = retry_after(date.as_bytes(), now);
            let asked = Report { retry_after, begun_at: now, ..report(Outcome::ServerError) };
            let next = next(&asked, &Progress::default(), &RetryPolicy::default(), now, 0.0);
            let Next::Retry { due, horizon, .. } = next else { panic!("{next:?}") };
            if asked.retry_after.is_some() {
                assert_eq!(due, horizon, "{date}");
            } else {
                assert!(date.ends_with("-1200"), "{date} is not read");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_receiver_asks_for_panics(value in proptest::collection::vec(any::<u8>(), 0..60), at in any::<i64>()) {
            retry_after(&value, Timestamp::from_millis(at));
        }

        #[test]
        fn a_retry_is_never_in_the_past_nor_beyond_the_horizon(
            tries in 0..40_u32, at in 0..90_000_000_i64, jitter in -1.0..2.0_f64, asked in proptest::option::of(any::<u64>()),
            retries in 0..60_u32, doublings in 0..80_u32,
        ) {
            let policy = RetryPolicy { retries, doublings, ..RetryPolicy::default() };
            let since = Timestamp::from_millis(0);
            let progress = Progress { since: Some(since), horizon: Some(since.plus(policy.horizon)), tries, attempts: tries };
            let report = Report { retry_after: asked.map(Duration::from_secs), ..report(Outcome::RateLimited) };
            let now = Timestamp::from_millis(at);
            match next(&report, &progress, &policy, now, jitter) {
                Next::Retry { due, horizon, .. } => {
                    prop_assert!(due >= now && due <= horizon);
                    prop_assert!(tries < retries);
                }
                Next::Exhausted => prop_assert!(tries >= retries || at >= 86_400_000),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
