//! Prints what came out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::causes::Cause;
use super::event::{DELIVERED, Fate};
use super::findings::{Findings, Wrong};
use super::incidents::Incident;
use super::judge::Books;
use super::plan::Goals;
use super::produced::Said;
use super::takeover::{self, Takeover};
use super::valid;

/// Violations that are printed one by one.
const SHOWN: usize = 20;

fn line(what: &str, value: impl std::fmt::Display) {
    println!("{what:<52}{value:>10}");
}

fn pair(what: &str, first: impl std::fmt::Display, second: impl std::fmt::Display) {
    println!("{what:<52}{first:>10}{second:>10}");
}

pub(crate) fn print(books: &Books, findings: &Findings, takeovers: &[Takeover], goals: &Goals, took: Duration) {
    println!("\nproduced");
    for (what, said) in [
        ("acknowledged", Said::Acknowledged),
        ("in transactions that were aborted", Said::Aborted),
        ("not known, because Kafka did not answer", Said::Unknown),
        ("not sent", Said::NotSent),
    ] {
        line(&format!("  {what}"), books.produced.count(said));
    }
    println!();
    pair("what must become of them", "produced", "stored");
    for (fate, (produced, stored)) in &findings.fates {
        pair(&format!("  {}", name(*fate)), produced, stored);
    }
    let (produced, stored) = findings.recreated;
    if produced > 0 {
        pair("  delivered, of a topic that was created again", produced, stored);
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
    messages(findings);
    faults(&books.incidents, goals);
    print_takeovers(takeovers);
    violations(findings);
    println!("\nthe run took {:.0} s", took.as_secs_f64());
    for violation in findings.violations.iter().take(SHOWN) {
        println!("WRONG ({}) {}: {}", violation.wrong.name(), violation.id, violation.why);
    }
    if findings.violations.len() > SHOWN {
        println!("... and {} more", findings.violations.len() - SHOWN);
    }
}

fn messages(findings: &Findings) {
    println!();
    pair("published", "messages", "repeats");
    let messages = &findings.messages;
    for (what, count, repeats) in [
        ("callbacks that ended", messages.outcomes, messages.repeated_outcomes),
        ("dead letters", messages.letters, messages.repeated_letters),
    ] {
        pair(&format!("  {what}"), count, repeats);
    }
}

fn violations(findings: &Findings) {
    println!("\nviolations");
    let kinds = findings.violations.iter().map(|violation| violation.wrong);
    let always = [Wrong::Lost, Wrong::State, Wrong::Repeat, Wrong::NotTold, Wrong::Told];
    for wrong in kinds.chain(always).collect::<BTreeSet<_>>() {
        line(&format!("  {}", wrong.name()), findings.count(wrong));
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

fn faults(incidents: &[Incident], goals: &Goals) {
    println!();
    pair("faults", "came", "planned");
    for (kind, planned) in &goals.times {
        let came = incidents.iter().filter(|incident| incident.kind == *kind).count();
        pair(&format!("  {}", kind.name()), came, planned);
    }
    for (what, count, at_least) in [
        ("COMMITs cut", valid::cuts(incidents), goals.cuts),
        ("sessions that were terminated", valid::terminated(incidents), goals.terminated),
    ] {
        if count > 0 || at_least > 0 {
            pair(&format!("  {what}"), count, at_least);
        }
    }
}

fn print_takeovers(takeovers: &[Takeover]) {
    let bound = takeover::bound().as_secs_f64();
    println!("\ntakeover after a kill");
    for (what, is_disturbed) in [("no other fault near", false), ("another fault near, so without a bound", true)] {
        let mut times: Vec<Duration> = takeovers
            .iter()
            .filter(|takeover| takeover.is_disturbed == is_disturbed)
            .map(|takeover| takeover.took)
            .collect();
        times.sort();
        if let (Some(longest), Some(median)) = (times.last(), times.get(times.len() / 2)) {
            let (count, median, longest) = (times.len(), median.as_secs_f64(), longest.as_secs_f64());
            let bound = if is_disturbed { String::new() } else { format!(", bound {bound:.1} s") };
            println!("  {what}: {count} kills, median {median:.1} s, longest {longest:.1} s{bound}");
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
