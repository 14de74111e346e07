//! An operator moves the watermark.

use super::tables::{KNOWN, OURS, committed, ends, list, reading, taken, watermark};
use crate::base::clock::Timestamp;
use crate::intake::partition::*;
use crate::model::offsets::Watermark;
use crate::store::Taken;

fn reset(way: ResetWay, to: i64) -> Event {
    Event::Reset(Reset { way, to, log_end: 40 })
}

/// A partition that an operator moves, and that was given up for it. Its watermark was 10.
fn given_up(way: ResetWay, to: i64) -> Partition {
    let mut partition = reading();
    assert_eq!(list(partition.on(reset(way, to))), [Action::GiveUp, Action::Take]);
    assert_eq!(*partition.state(), PartitionState::NotTaken, "nothing is handed over meanwhile");
    assert_eq!(list(partition.on(Event::Read { offset: 10, hash: KNOWN })), []);
    assert_eq!(list(partition.on(Event::Tick)), [], "one question at a time");
    partition
}

fn started(upto: i64, seen_upto: i64) -> (Taken, Watermark) {
    let watermark = Watermark { upto, seen_upto, last: None };
    (Taken { epoch: 5, watermark, fresh: false, knows_cluster: true, accepted: None, deaths: 0 }, watermark)
}

#[test]
fn a_partition_is_given_up_taken_and_then_moved() {
    for (way, to, place) in [
        (ResetWay::Rewind, 4, Place::Offset(4)),
        (ResetWay::Rewind, 0, Place::Beginning),
        (ResetWay::Skip, 25, Place::Offset(25)),
    ] {
        let mut partition = given_up(way, to);
        let cause = StartOverCause::Reset { way, from: 10 };
        let start_over = Action::StartOver { start: to, log_end: 40, cause };
        assert_eq!(list(partition.on(Event::Taken(Taken { epoch: 4, ..taken(watermark(10, Some(9))) }))), [start_over]);
        assert_eq!(partition.epoch(), 4, "the store compares with this epoch");
        let (answer, begun) = started(to, 40);
        assert_eq!(
            list(partition.on(Event::Taken(answer))),
            [Action::Hold { epoch: 5, watermark: begun }, Action::AssignAt(place)]
        );
        partition.on(Event::Moved);
        assert_eq!(partition.may_be_reset(), Ok(()));
        assert_eq!(list(partition.on(Event::Read { offset: to, hash: KNOWN })), [Action::Admit]);
    }
}

#[test]
fn what_was_under_way_may_have_reached_the_place_meanwhile() {
    // 10 was planned from, but what was in flight has raised the watermark to 30.
    let raised = watermark(30, Some(29));
    let mut partition = given_up(ResetWay::Skip, 25);
    let held = Action::Hold { epoch: 3, watermark: raised };
    assert_eq!(
        list(partition.on(Event::Taken(taken(raised)))),
        [held, Action::AssignAt(Place::Offset(29))],
        "a skip never goes back"
    );
    // A store that went back meanwhile is not moved forward by a rewind.
    let mut partition = given_up(ResetWay::Rewind, 8);
    let back = watermark(6, Some(5));
    let actions = list(partition.on(Event::Taken(taken(back))));
    assert_eq!(actions, [Action::Hold { epoch: 3, watermark: back }, Action::AssignAt(Place::Offset(5))]);
}

#[test]
fn what_may_have_a_row_is_looked_up_after_a_reset() {
    // A record above the watermark has its row already, and so had one above the end that Kafka told.
    let seen = Watermark { seen_upto: 55, ..watermark(10, Some(9)) };
    let mut partition = given_up(ResetWay::Rewind, 2);
    let cause = StartOverCause::Reset { way: ResetWay::Rewind, from: 10 };
    let start_over = Action::StartOver { start: 2, log_end: 55, cause };
    assert_eq!(list(partition.on(Event::Taken(taken(seen)))), [start_over]);
}

#[test]
fn a_reset_that_is_not_answered_leaves_a_partition_that_is_taken_again() {
    // Another instance has it, or the store is away.
    let mut partition = given_up(ResetWay::Rewind, 2);
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    // The store may have moved the watermark, although its answer got lost: what it says next counts.
    let mut partition = given_up(ResetWay::Rewind, 2);
    partition.on(Event::Taken(taken(watermark(10, Some(9)))));
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    assert_eq!(list(partition.on(Event::Committed(committed(10, OURS)))), [Action::Take]);
    let (answer, begun) = started(2, 40);
    let actions = list(partition.on(Event::Taken(answer)));
    assert!(actions.contains(&Action::Hold { epoch: 5, watermark: begun }), "{actions:?}");
}

#[test]
fn a_revocation_and_a_fence_end_a_reset() {
    let mut partition = given_up(ResetWay::Rewind, 2);
    assert_eq!(list(partition.on(Event::Revoked)), [], "it is given up already");
    assert_eq!(list(partition.on(Event::Taken(taken(watermark(10, Some(9)))))), []);
    let mut partition = given_up(ResetWay::Skip, 20);
    partition.on(Event::Taken(taken(watermark(10, Some(9)))));
    assert_eq!(list(partition.on(Event::Revoked)), []);
    assert_eq!(list(partition.on(Event::Taken(started(20, 40).0))), [], "the next owner reads from there");
    let mut partition = reading();
    partition.on(Event::Fenced);
    assert_eq!(list(partition.on(reset(ResetWay::Rewind, 2))), [], "it must be taken first");
    let mut partition = given_up(ResetWay::Rewind, 2);
    assert_eq!(list(partition.on(Event::Fenced)), [], "nothing is held that could be given up");
    assert!(matches!(list(partition.on(Event::Taken(taken(watermark(10, Some(9))))))[..], [Action::StartOver { .. }]));
}

#[test]
fn only_a_partition_that_reads_is_moved() {
    let mut not_taken = Partition::new(OURS.into());
    assert_eq!(not_taken.may_be_reset(), Err(Unready::BeingTaken));
    not_taken.on(Event::Assigned);
    assert_eq!(list(not_taken.on(reset(ResetWay::Rewind, 0))), []);
    not_taken.on(Event::Committed(committed(5, "")));
    not_taken.on(Event::Taken(taken(watermark(0, None))));
    assert_eq!(not_taken.may_be_reset(), Err(Unready::Blocked));
    let mut verifying = Partition::new(OURS.into());
    verifying.on(Event::Assigned);
    verifying.on(Event::Committed(None));
    verifying.on(Event::Taken(taken(watermark(10, Some(9)))));
    verifying.on(Event::Moved);
    assert_eq!(verifying.may_be_reset(), Err(Unready::BeingCompared), "its log may be another one");
    let mut asking = reading();
    asking.on(Event::OutOfRange);
    assert_eq!(asking.may_be_reset(), Err(Unready::BeingCompared));
    assert_eq!(list(asking.on(reset(ResetWay::Rewind, 0))), []);
}

#[test]
fn what_was_read_before_a_rewind_is_never_counted_as_lost() {
    let mut partition = given_up(ResetWay::Rewind, 2);
    partition.on(Event::Taken(taken(watermark(10, Some(9)))));
    let (answer, begun) = started(2, 40);
    partition.on(Event::Taken(answer));
    partition.on(Event::Moved);
    // Retention is faster than the second reading.
    partition.on(Event::OutOfRange);
    assert_eq!(list(partition.on(ends(8, 40, Some(begun)))), [Action::SkipTo(8)]);
    partition.on(Event::Moved);
    partition.on(Event::OutOfRange);
    let at = Watermark { upto: 8, ..begun };
    let lost = Action::CountLost { lost: 5, begin: 15 };
    assert_eq!(list(partition.on(ends(15, 40, Some(at)))), [lost, Action::SkipTo(15)], "10 to 14 were never read");
}

#[test]
fn kafkas_offset_follows_a_rewind() {
    let mut partition = reading();
    assert_eq!(list(partition.on(Event::CommitDue { durable_upto: 10 })), [Action::Commit(10)]);
    partition.on(reset(ResetWay::Rewind, 4));
    partition.on(Event::Taken(taken(watermark(10, Some(9)))));
    partition.on(Event::Taken(started(4, 40).0));
    partition.on(Event::Moved);
    assert_eq!(list(partition.on(Event::CommitDue { durable_upto: 4 })), [Action::Commit(4)]);
}

#[test]
fn a_plan_says_what_is_read_again_and_what_is_at_risk() {
    let facts =
        ResetFacts { low: 5, high: 100, watermark: 60, at_time: Some(20), kept_from: Some(30), is_paused: false };
    let time = ResetTo::Time(Timestamp::from_millis(1));
    let rewind = |to, facts| plan(ResetWay::Rewind, to, &facts);
    let planned = rewind(time, facts).expect("there is something to read again");
    let reset = Reset { way: ResetWay::Rewind, to: 20, log_end: 100 };
    assert_eq!(planned, ResetPlan { from: 60, reset, records: 40, at_risk: 10, is_cut: false });
    for (to, facts, records, at_risk, is_cut) in [
        (ResetTo::Offset(59), facts, 1, 0, false),
        (ResetTo::Earliest, facts, 55, 25, false),
        (ResetTo::Earliest, ResetFacts { at_time: None, kept_from: None, ..facts }, 55, 55, false),
        (ResetTo::Offset(2), facts, 55, 25, true),
        // Nothing older is in the log: records of that time may have been deleted.
        (time, ResetFacts { at_time: Some(5), ..facts }, 55, 25, true),
        (time, ResetFacts { at_time: Some(0), low: 0, ..facts }, 60, 30, false),
    ] {
        let planned = rewind(to, facts).expect("there is something to read again");
        assert_eq!((planned.records, planned.at_risk, planned.is_cut), (records, at_risk, is_cut), "{to:?} {facts:?}");
    }
    assert_eq!(rewind(ResetTo::Offset(61), facts), Err(NoReset::Ahead { watermark: 60, to: 61 }));
    assert_eq!(rewind(ResetTo::Offset(60), facts), Err(NoReset::There(60)));
    let none = ResetFacts { at_time: None, ..facts };
    assert_eq!(rewind(time, none), Err(NoReset::Ahead { watermark: 60, to: 100 }), "no record is that young");
    let at_end = ResetFacts { watermark: 100, ..none };
    assert_eq!(rewind(time, at_end), Err(NoReset::There(100)));
    for refused in [NoReset::Ahead { watermark: 60, to: 61 }.to_string(), Unready::Blocked.to_string()] {
        assert!(refused.contains("callbackd offsets"), "it says what to do: {refused}");
    }
}

#[test]
fn a_skip_goes_forward_and_no_further_than_the_log() {
    let facts = ResetFacts { low: 5, high: 100, watermark: 60, at_time: Some(70), kept_from: None, is_paused: false };
    let skip = |to, facts| plan(ResetWay::Skip, to, &facts);
    let time = ResetTo::Time(Timestamp::from_millis(1));
    for (to, facts, end, at_risk) in [
        (ResetTo::End, facts, 100, 40),
        (ResetTo::Offset(61), facts, 61, 1),
        (time, facts, 70, 10),
        (time, ResetFacts { at_time: None, ..facts }, 100, 40),
        // Kafka has deleted what lies below 65.
        (ResetTo::Offset(70), ResetFacts { low: 65, ..facts }, 70, 5),
    ] {
        let planned = skip(to, facts).expect("there is something to leave out");
        assert_eq!((planned.reset.to, planned.at_risk), (end, at_risk), "{to:?} {facts:?}");
        assert_eq!(planned.records, u64::try_from(end - 60).expect("it goes forward"));
    }
    assert_eq!(skip(ResetTo::Offset(59), facts), Err(NoReset::Behind { watermark: 60, to: 59 }));
    assert_eq!(skip(ResetTo::Offset(60), facts), Err(NoReset::There(60)));
    assert_eq!(skip(ResetTo::Offset(101), facts), Err(NoReset::BeyondTheEnd { high: 100, to: 101 }));
    let behind = NoReset::Behind { watermark: 60, to: 59 }.to_string();
    assert!(behind.contains("callbackd offsets rewind"), "{behind}");
}
