//! Compares the records: what was produced, what was received, what is stored, and what was published. Each counts for itself. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::causes::{self, AFTERMATH, Again};
use super::event::{DELIVERED, Event, Fate, Mix, Receiver, Role};
use super::findings::{Findings, Wrong};
use super::incidents::Incident;
use super::outcomes::Published;
use super::plan::Kind;
use super::produced::{Produced, Said};
use super::receipts::Receipt;
use super::records::{Row, Stored};
use super::{producer, told};

/// All records of a run.
pub(crate) struct Books {
    pub(crate) mix: Mix,
    pub(crate) produced: std::sync::Arc<Produced>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) refused: Vec<String>,
    pub(crate) stored: Stored,
    pub(crate) published: Published,
    /// The tasks of the topic that was created again.
    pub(crate) recreated: BTreeSet<u64>,
    pub(crate) incidents: Vec<Incident>,
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
    for task in &books.recreated {
        recreated(books, *task, by_task.get(task).map_or(&[], Vec::as_slice), &mut findings);
    }
    let is_known = |n: &u64| *n < books.produced.events() || books.recreated.contains(n);
    for n in by_task.keys().chain(books.stored.rows.keys()).filter(|n| !is_known(n)) {
        findings.is_wrong(Wrong::NotExpected, n, "nobody produced an event of this number");
    }
    letters(books, &mut findings);
    told::judge(&books.stored, &books.published, &mut findings);
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

/// A record of the topic that was created again: each one is an event of its own, and is delivered.
fn recreated(books: &Books, task: u64, receipts: &[&Receipt], findings: &mut Findings) {
    let rows = books.stored.rows.get(&task).map_or(&[][..], Vec::as_slice);
    findings.recreated.0 += 1;
    if receipts.iter().all(|receipt| receipt.accepted().is_none()) {
        let why = format!("of the topic that was created again: {} requests came, none was answered", receipts.len());
        findings.is_wrong(Wrong::Lost, task, why);
    }
    match rows {
        [row] if row.state == "delivered" => {
            findings.recreated.1 += 1;
            attempts(Receiver::Prompt, row, receipts, findings);
        }
        _ => findings.is_wrong(Wrong::State, task, format!("the store has {rows:?} instead of one that is delivered")),
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
        let is_event = letter.topic == producer::TOPIC;
        let Some(n) = books.produced.event_at(letter.place).filter(|_| is_event) else {
            if is_complete || !is_event {
                findings.is_wrong(
                    Wrong::NotExpected,
                    format!("{} {:?}", letter.topic, letter.place),
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
    let mut of_incident: BTreeMap<usize, usize> = BTreeMap::new();
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
                    let frozen = |number: &usize| books.incidents[*number].kind == Kind::StoreFreezeLong;
                    let bounding = incident.filter(|number| cause.is_kill() || (cause.is_store() && frozen(number)));
                    bounding.into_iter().for_each(|number| *of_incident.entry(number).or_default() += 1);
                }
                Again::Unexplained(why) => findings.is_wrong(Wrong::Repeat, &later.id, format!("task {task}: {why}")),
            }
        }
    }
    for (number, count) in of_incident {
        bound(books, number, count, findings);
    }
}

/// What a kill can repeat: what was unsettled when the daemon was asked for it, and what it began between that and the kill. What a
/// store that stood still for long can repeat is the same of all daemons, which were asked just before it went on.
fn bound(books: &Books, number: usize, count: usize, findings: &mut Findings) {
    let incident = &books.incidents[number];
    let Some(before) = incident.before else { return };
    let begun_later = |receipt: &&Receipt| {
        let is_of = incident.run.is_none_or(|run| run == receipt.run);
        is_of && receipt.came >= before.asked && receipt.came <= incident.until + AFTERMATH
    };
    let most = before.unsettled + books.receipts.iter().filter(begun_later).count();
    if count > most {
        let why = format!("it repeated {count} requests, and at most {most} were unsettled");
        let run = incident.run.map(|run| format!(" of run {run}")).unwrap_or_default();
        findings.is_wrong(Wrong::TooManyRepeats, format!("{}{run}", incident.kind.name()), why);
    }
}
