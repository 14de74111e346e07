//! Compares what was published with what the store has: every ending and every dead letter was told, and nothing else. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::findings::{Findings, Wrong};
use super::outcomes::{DeadLetter, Missing, Outcome, Published};
use super::records::{Row, Stored};

/// What must have been published, of what the store has.
pub(crate) fn wanted(stored: &Stored) -> Missing {
    let rows = stored.rows.values().flatten().filter(|row| row.has_ended());
    Missing {
        endings: rows.map(|row| (row.id.clone(), row.revision)).collect(),
        letters: stored.letters.iter().map(|letter| letter.id.clone()).collect(),
    }
}

pub(crate) fn judge(stored: &Stored, published: &Published, findings: &mut Findings) {
    for what in &published.unreadable {
        findings.is_wrong(Wrong::Told, "-", format!("a message can't be read: {what}"));
    }
    outcomes(stored, &published.outcomes, findings);
    letters(stored, &published.letters, findings);
}

fn outcomes(stored: &Stored, published: &[Outcome], findings: &mut Findings) {
    let rows: HashMap<&str, (u64, &Row)> =
        stored.rows.iter().flat_map(|(task, rows)| rows.iter().map(|row| (&*row.id, (*task, row)))).collect();
    let mut told: HashMap<(&str, u32), u64> = HashMap::new();
    for outcome in published {
        match told.entry((&outcome.id, outcome.revision)) {
            Entry::Vacant(first) => {
                first.insert(outcome.contents);
            }
            Entry::Occupied(first) => {
                findings.messages.repeated_outcomes += 1;
                if *first.get() != outcome.contents {
                    let why = format!("two messages of revision {} have different contents", outcome.revision);
                    findings.is_wrong(Wrong::Told, &outcome.id, why);
                }
            }
        }
        let Outcome { revision, state, reason, task, .. } = outcome;
        let Some((row_task, row)) = rows.get(&*outcome.id) else {
            findings.is_wrong(Wrong::Told, &outcome.id, format!("{state} was published, and the store has no row"));
            continue;
        };
        let is_same = row.state == *state && row.reason == *reason;
        if *task != Some(*row_task) || row.revision < *revision || (row.revision == *revision && !is_same) {
            let has = format!("{} {:?}, revision {}, of task {row_task}", row.state, row.reason, row.revision);
            let why =
                format!("{state} {reason:?}, revision {revision}, of {task:?} was published; the store has {has}");
            findings.is_wrong(Wrong::Told, &outcome.id, why);
        }
    }
    findings.messages.outcomes = published.len();
    for (id, (_, row)) in rows.iter().filter(|(_, (_, row))| row.has_ended()) {
        if !told.contains_key(&(*id, row.revision)) {
            findings.is_wrong(
                Wrong::NotTold,
                id,
                format!("{}, revision {}, was not published", row.state, row.revision),
            );
        }
    }
}

fn letters(stored: &Stored, published: &[DeadLetter], findings: &mut Findings) {
    let kept: HashMap<&str, _> = stored.letters.iter().map(|letter| (&*letter.id, letter)).collect();
    let mut told: HashMap<&str, u64> = HashMap::new();
    for message in published {
        match told.entry(&message.id) {
            Entry::Vacant(first) => {
                first.insert(message.contents);
            }
            Entry::Occupied(first) => {
                findings.messages.repeated_letters += 1;
                if *first.get() != message.contents {
                    findings.is_wrong(Wrong::Told, &message.id, "two messages about it have different contents");
                }
            }
        }
        let is_same = kept.get(&*message.id).is_some_and(|letter| {
            letter.reason == message.reason && letter.topic == message.topic && letter.place == message.place
        });
        if !is_same {
            let why =
                format!("{} at {:?} was published, and the store does not have it", message.reason, message.place);
            findings.is_wrong(Wrong::Told, &message.id, why);
        }
    }
    findings.messages.letters = published.len();
    for id in kept.keys().filter(|id| !told.contains_key(*id)) {
        findings.is_wrong(Wrong::NotTold, id, "the dead letter was not published");
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Letter;
    use super::*;

    fn stored() -> Stored {
        let row = |id: &str, state: &str| Row {
            id: id.to_owned(),
            state: state.to_owned(),
            reason: None,
            attempts: 1,
            revision: if state == "pending" { 0 } else { 1 },
        };
        let letter = Letter { id: "dl_1".into(), topic: "ledger".into(), place: (0, 7), reason: "not_json".into() };
        let rows = HashMap::from([(1, vec![row("cb_1", "delivered")]), (2, vec![row("cb_2", "pending")])]);
        Stored { rows, letters: vec![letter] }
    }

    fn outcome(id: &str, revision: u32, state: &str) -> Outcome {
        Outcome { id: id.into(), revision, state: state.into(), reason: None, task: Some(1), contents: 5 }
    }

    fn letter() -> DeadLetter {
        let (id, reason, topic) = ("dl_1".to_owned(), "not_json".to_owned(), "ledger".to_owned());
        DeadLetter { id, reason, topic, place: (0, 7), contents: 6 }
    }

    fn wrong(outcomes: &[Outcome], letters: &[DeadLetter]) -> Vec<Wrong> {
        let published = Published { outcomes: outcomes.to_vec(), letters: letters.to_vec(), unreadable: Vec::new() };
        let mut findings = Findings::default();
        judge(&stored(), &published, &mut findings);
        findings.violations.into_iter().map(|violation| violation.wrong).collect()
    }

    #[test]
    fn each_ending_is_told_and_a_repeat_has_the_same_contents() {
        let told = outcome("cb_1", 1, "delivered");
        assert_eq!(wrong(&[told.clone(), told.clone()], &[letter()]), []);
        assert_eq!(wrong(&[], &[letter()]), [Wrong::NotTold]);
        assert_eq!(wrong(std::slice::from_ref(&told), &[]), [Wrong::NotTold]);
        let other = Outcome { contents: 8, ..told.clone() };
        assert_eq!(wrong(&[told.clone(), other], &[letter()]), [Wrong::Told]);
        for strange in [
            outcome("cb_9", 1, "delivered"),
            outcome("cb_1", 2, "delivered"),
            Outcome { task: Some(3), revision: 0, ..told.clone() },
        ] {
            assert_eq!(wrong(&[told.clone(), strange], &[letter()]), [Wrong::Told]);
        }
        assert_eq!(wrong(&[outcome("cb_1", 1, "exhausted")], &[letter()]), [Wrong::Told]);
        let elsewhere = DeadLetter { place: (0, 8), ..letter() };
        assert_eq!(wrong(&[told], &[elsewhere]), [Wrong::Told]);
        assert_eq!(wanted(&stored()).endings.len(), 1);
    }
}
