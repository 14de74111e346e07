//! Prints what came out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::causes::Cause;
use super::event::{DELIVERED, Fate};
use super::incidents::Incident;
use super::judge::{Books, Findings, Wrong};
use super::plan::Kind;
use super::produced::Said;
use super::takeover::{self, Takeover};

/// Violations that are printed one by one.
const SHOWN: usize = 20;

fn line(what: &str, value: impl std::fmt::Display) {
    println!("{what:<52}{value:>10}");
}

pub(crate) fn print(books: &Books, findings: &Findings, takeovers: &[Takeover], took: Duration) {
    println!("\nproduced");
    for (what, said) in [
        ("acknowledged", Said::Acknowledged),
        ("in transactions that were aborted", Said::Aborted),
        ("not known, because Kafka did not answer", Said::Unknown),
        ("not sent", Said::NotSent),
    ] {
        line(&format!("  {what}"), books.produced.count(said));
    }
    println!("\nwhat must become of them                              produced    stored");
    for (fate, (produced, stored)) in &findings.fates {
        println!("{:<52}{produced:>10}{stored:>10}", format!("  {}", name(*fate)));
    }
    println!("\nreceived");
    line("  requests that verified", books.receipts.len());
    let delivered = findings.fates.get(&DELIVERED).map_or(0, |counts| counts.0);
    line("  delivered: callbacks answered with 2xx", format!("{} of {delivered}", findings.accepted));
    line("  retries of attempts that failed", findings.retries);
    line("  repeats that a fault explains", findings.repeats.values().sum::<u64>());
    for cause in Cause::ALL {
        line(&format!("    {}", cause.name()), findings.repeats.get(&cause).unwrap_or(&0));
    }
    line("    of all these, answered with 2xx before", findings.repeats_of_accepted);
    faults(&books.incidents);
    print_takeovers(takeovers);
    println!("\nviolations");
    let kinds: BTreeSet<_> = findings.violations.iter().map(|violation| violation.wrong).collect();
    for wrong in [Wrong::Lost, Wrong::State, Wrong::Repeat].into_iter().collect::<BTreeSet<_>>().union(&kinds) {
        line(&format!("  {}", wrong.name()), findings.count(*wrong));
    }
    println!("\nthe run took {:.0} s", took.as_secs_f64());
    for violation in findings.violations.iter().take(SHOWN) {
        println!("WRONG ({}) {}: {}", violation.wrong.name(), violation.id, violation.why);
    }
    if findings.violations.len() > SHOWN {
        println!("... and {} more", findings.violations.len() - SHOWN);
    }
}

fn name(fate: Fate) -> String {
    match fate {
        Fate::Ends(state, None) => state.to_owned(),
        Fate::Ends(state, Some(reason)) => format!("{state}: {reason}"),
        Fate::DeadLetter(reason) => format!("dead letter: {reason}"),
        Fate::NoSecondCallback => "no second callback".to_owned(),
    }
}

fn faults(incidents: &[Incident]) {
    println!("\nfaults");
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for incident in incidents {
        *counts.entry(incident.kind).or_default() += 1;
    }
    for (kind, count) in counts {
        line(&format!("  {}", kind.name()), count);
    }
}

fn print_takeovers(takeovers: &[Takeover]) {
    println!("\ntakeover after a kill (bound {} s)", takeover::bound().as_secs());
    for (what, is_disturbed) in [("no other fault near", false), ("another fault near, so without a bound", true)] {
        let mut times: Vec<Duration> = takeovers
            .iter()
            .filter(|takeover| takeover.is_disturbed == is_disturbed)
            .map(|takeover| takeover.took)
            .collect();
        times.sort();
        if let (Some(longest), Some(median)) = (times.last(), times.get(times.len() / 2)) {
            let (count, median, longest) = (times.len(), median.as_secs_f64(), longest.as_secs_f64());
            println!("  {what}: {count} kills, median {median:.1} s, longest {longest:.1} s");
        }
    }
}

/// The faults with the times of the wall clock, in UTC, a line each. `now` is the time at this call.
pub(crate) fn timeline(incidents: &[Incident], now: SystemTime) -> String {
    let here = Instant::now();
    let clock = |at: Instant| {
        let at = now - here.saturating_duration_since(at);
        let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let seconds = millis / 1_000 % 86_400;
        format!("{:02}:{:02}:{:02}.{:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60, millis % 1_000)
    };
    let line = |incident: &Incident| {
        let run = incident.run.map(|run| format!(" of run {run}")).unwrap_or_default();
        format!("{} to {}  {}{run}\n", clock(incident.from), clock(incident.until), incident.kind.name())
    };
    incidents.iter().map(line).collect()
}
