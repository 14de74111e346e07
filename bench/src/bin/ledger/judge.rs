//! Compares the records: what was produced, what was received, and what is stored. Each counts for itself. Pure.
//!
//! A fourth record, a topic of outcomes, would be compared here beside the others.

use std::collections::{BTreeMap, HashMap};

use super::causes::{self, Again, Cause};
use super::event::{DELIVERED, Event, Fate, Mix, Receiver, Role};
use super::incidents::Incident;
use super::plan::Kind;
use super::produced::{Produced, Said};
use super::receipts::Receipt;
use super::records::{Row, Stored};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    Lost,
    State,
    NotExpected,
    SecondCallback,
    OtherBytes,
    NotVerified,
    Repeat,
    TooManyRepeats,
    Attempts,
    Takeover,
    NeverSettles,
    Trouble,
}

impl Wrong {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::State => "wrong state",
            Self::NotExpected => "not expected",
            Self::SecondCallback => "second callback",
            Self::OtherBytes => "other bytes",
            Self::NotVerified => "not verified",
            Self::Repeat => "repeat without a cause",
            Self::TooManyRepeats => "more repeats than were unsettled",
            Self::Attempts => "wrong count of attempts",
            Self::Takeover => "taken over too late",
            Self::NeverSettles => "never settles",
            Self::Trouble => "trouble",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) wrong: Wrong,
    pub(crate) id: String,
    pub(crate) why: String,
}

/// All records of a run.
pub(crate) struct Books {
    pub(crate) mix: Mix,
    pub(crate) produced: std::sync::Arc<Produced>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) refused: Vec<String>,
    pub(crate) stored: Stored,
    pub(crate) incidents: Vec<Incident>,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Of each fate: how many events should have it, and how many have it in the store.
    pub(crate) fates: BTreeMap<Fate, (u64, u64)>,
    /// Callbacks that should be delivered and whose 2xx was written.
    pub(crate) accepted: u64,
    pub(crate) retries: u64,
    pub(crate) repeats: BTreeMap<Cause, u64>,
    /// Repeats of requests that had been answered with 2xx, whatever their cause.
    pub(crate) repeats_of_accepted: u64,
    /// Each repeat that a fault explains, in a sentence.
    pub(crate) explained: Vec<String>,
    pub(crate) violations: Vec<Violation>,
}

impl Findings {
    pub(crate) fn is_wrong(&mut self, wrong: Wrong, id: impl ToString, why: impl Into<String>) {
        self.violations.push(Violation { wrong, id: id.to_string(), why: why.into() });
    }

    pub(crate) fn count(&self, wrong: Wrong) -> usize {
        self.violations.iter().filter(|violation| violation.wrong == wrong).count()
    }
}

/// Compares the records.
pub(crate) fn judge(books: &Books) -> Findings {
    let mut findings = Findings::default();
    let mut by_task: HashMap<u64, Vec<&Receipt>> = HashMap::new();
    for receipt in &books.receipts {
        by_task.entry(receipt.task).or_default().push(receipt);
    }
    for n in 0..books.produced.events() {
        event(books, n, by_task.get(&n).map_or(&[], Vec::as_slice), &mut findings);
    }
    let beyond = by_task.keys().chain(books.stored.rows.keys()).filter(|n| **n >= books.produced.events());
    for n in beyond {
        findings.is_wrong(Wrong::NotExpected, n, "nobody produced an event of this number");
    }
    letters(books, &mut findings);
    repeats(books, &by_task, &mut findings);
    for why in &books.refused {
        findings.is_wrong(Wrong::NotVerified, "-", why);
    }
    findings
}

/// Whether it is known that the event must have its fate, and whether it may have a callback.
fn expectation(books: &Books, event: &Event) -> (bool, bool) {
    let said = books.produced.said(event.n);
    let is_original = event.role == Role::Original;
    let other = match event.role {
        Role::CopyOf(other) | Role::ReusesIdOf(other) => books.produced.said(other),
        _ => Said::Acknowledged,
    };
    let must = said == Said::Acknowledged && other == Said::Acknowledged;
    // If its original may be missing, the event with the same id is perhaps the first one.
    let may = (is_original && said == Said::Acknowledged)
        || said == Said::Unknown
        || (said == Said::Acknowledged && other == Said::Unknown);
    (must, may && event.role != Role::Garbage)
}

fn event(books: &Books, n: u64, receipts: &[&Receipt], findings: &mut Findings) {
    let event = Event::of(books.mix, n);
    let (must, may) = expectation(books, &event);
    let rows = books.stored.rows.get(&n).map_or(&[][..], Vec::as_slice);
    if !may {
        if !receipts.is_empty() || !rows.is_empty() {
            let why = format!("{:?}, {:?}: it must have no callback", event.role, books.produced.said(n));
            findings.is_wrong(Wrong::NotExpected, n, why);
        }
        return;
    }
    if rows.len() > 1 {
        let ids: Vec<_> = rows.iter().map(|row| &*row.id).collect();
        findings.is_wrong(Wrong::SecondCallback, n, format!("the store has {}", ids.join(" and ")));
    }
    if !must {
        return;
    }
    let fate @ Fate::Ends(state, reason) = event.fate() else { return };
    let counts = findings.fates.entry(fate).or_default();
    counts.0 += 1;
    let as_expected = |row: &&Row| row.state == state && row.reason.as_deref() == reason;
    let row = rows.iter().find(as_expected);
    counts.1 += u64::from(row.is_some());
    let was_accepted = receipts.iter().any(|receipt| receipt.accepted().is_some());
    if fate == DELIVERED {
        findings.accepted += u64::from(was_accepted);
        if !was_accepted {
            let stored = rows.first().map_or("nothing".to_owned(), |row| format!("{} {}", row.id, row.state));
            let why = format!("{} requests came, none was answered with 2xx; the store has {stored}", receipts.len());
            findings.is_wrong(Wrong::Lost, n, why);
        }
    }
    match row {
        Some(row) => attempts(event.receiver, row, receipts, findings),
        None => {
            let has = rows
                .first()
                .map_or("no callback".to_owned(), |row| format!("{} as {} {:?}", row.id, row.state, row.reason));
            findings.is_wrong(Wrong::State, n, format!("the store has {has} instead of {state} {reason:?}"));
        }
    }
}

/// The store must not count an attempt that did not happen. A receiver that refuses connections sees no request of some attempts.
fn attempts(receiver: Receiver, row: &Row, receipts: &[&Receipt], findings: &mut Findings) {
    let is_seen = Receiver::LISTENING.contains(&receiver) && receiver != Receiver::Refuses;
    let came = receipts.len();
    if is_seen && row.attempts as usize > came {
        let why = format!("{}: the store counts {} attempts, and {came} requests came", receiver.name(), row.attempts);
        findings.is_wrong(Wrong::Attempts, &row.id, why);
    }
}

fn letters(books: &Books, findings: &mut Findings) {
    let is_complete = books.produced.count(Said::Unknown) == 0;
    let mut found: HashMap<u64, &str> = HashMap::new();
    for letter in &books.stored.letters {
        let Some(n) = books.produced.event_at(letter.place) else {
            if is_complete {
                findings.is_wrong(
                    Wrong::NotExpected,
                    format!("{:?}", letter.place),
                    "a dead letter of an unknown record",
                );
            }
            continue;
        };
        found.insert(n, &letter.reason);
        let fate = Event::of(books.mix, n).fate();
        if !matches!(fate, Fate::DeadLetter(reason) if reason == letter.reason) {
            findings.is_wrong(Wrong::State, n, format!("it is a dead letter, {}, instead of {fate:?}", letter.reason));
        }
    }
    for n in 0..books.produced.events() {
        let event = Event::of(books.mix, n);
        let Fate::DeadLetter(reason) = event.fate() else { continue };
        if !expectation(books, &event).0 {
            continue;
        }
        let counts = findings.fates.entry(event.fate()).or_default();
        counts.0 += 1;
        if found.contains_key(&n) {
            counts.1 += 1;
        } else {
            findings.is_wrong(Wrong::State, n, format!("it is no dead letter, {reason}"));
        }
    }
}

fn repeats(books: &Books, by_task: &HashMap<u64, Vec<&Receipt>>, findings: &mut Findings) {
    let mut of_kill: BTreeMap<usize, usize> = BTreeMap::new();
    for (task, receipts) in by_task {
        for (earlier, later) in receipts.iter().zip(&receipts[1..]) {
            if earlier.id != later.id {
                let why = format!("requests came with the ids {} and {}", earlier.id, later.id);
                findings.is_wrong(Wrong::SecondCallback, task, why);
                continue;
            }
            if earlier.body != later.body {
                findings.is_wrong(Wrong::OtherBytes, &later.id, format!("request {} has another body", later.attempt));
            }
            match causes::judge(earlier, later, &books.incidents) {
                Again::Retry => findings.retries += 1,
                Again::Repeat(cause, incident) => {
                    *findings.repeats.entry(cause).or_default() += 1;
                    let what = causes::sentence(earlier, later, &books.incidents);
                    findings.explained.push(format!("{}: {} of task {task}: {what}\n", cause.name(), later.id));
                    findings.repeats_of_accepted += u64::from(earlier.accepted().is_some());
                    if matches!(cause, Cause::KilledOpen | Cause::KilledAnswered | Cause::KilledInCommit) {
                        incident.into_iter().for_each(|number| *of_kill.entry(number).or_default() += 1);
                    }
                }
                Again::Unexplained(why) => findings.is_wrong(Wrong::Repeat, &later.id, format!("task {task}: {why}")),
            }
        }
    }
    for (number, count) in of_kill {
        bound(books, number, count, findings);
    }
}

/// What a kill can repeat: what was unsettled when the daemon was asked for it, and what it began between that and the kill.
fn bound(books: &Books, number: usize, count: usize, findings: &mut Findings) {
    let incident = &books.incidents[number];
    debug_assert_eq!(incident.kind, Kind::Kill);
    let Some(before) = incident.before else { return };
    let begun_later = |receipt: &&Receipt| Some(receipt.run) == incident.run && receipt.came >= before.asked;
    let most = before.unsettled + books.receipts.iter().filter(begun_later).count();
    if count > most {
        let why = format!("its kill repeated {count} requests, and at most {most} were unsettled");
        findings.is_wrong(Wrong::TooManyRepeats, format!("run {}", incident.run.unwrap_or(0)), why);
    }
}
