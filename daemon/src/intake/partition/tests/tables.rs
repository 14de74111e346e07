//! Every decision of a partition, each in a test of its own.

use std::time::{Duration, Instant};

use crate::intake::partition::*;
use crate::model::callback::Hash;
use crate::model::offsets::{UNREAD, Watermark};
use crate::store::Taken;

pub(super) const OURS: &str = "st_ours";
pub(super) const KNOWN: Hash = [7; 32];
const OTHER: Hash = [8; 32];

pub(super) fn list(actions: Actions) -> Vec<Action> {
    actions.into_iter().collect()
}

pub(super) fn watermark(upto: i64, last: Option<i64>) -> Watermark {
    Watermark { upto, seen_upto: upto, last: last.map(|offset| (offset, KNOWN)) }
}

pub(super) fn taken(watermark: Watermark) -> Taken {
    let fresh = watermark.upto == 0 && watermark.seen_upto == 0;
    Taken { epoch: 3, watermark, fresh, knows_cluster: !fresh, accepted: None, deaths: 0 }
}

pub(super) fn committed(offset: i64, store: &str) -> Option<Committed> {
    Some(Committed { offset, store: store.into() })
}

pub(super) fn ends(low: i64, high: i64, watermark: Option<Watermark>) -> Event {
    Event::LogEnds(LogEnds { low, high, watermark })
}

/// The actions of an assigned partition after these answers of Kafka and the store.
fn after_take(answer: Option<Committed>, taken: Taken) -> (Partition, Vec<Action>) {
    let mut partition = Partition::new(OURS.into());
    assert_eq!(list(partition.on(Event::Assigned)), [Action::AskCommitted]);
    assert_eq!(list(partition.on(Event::Committed(answer))), [Action::Take]);
    let actions = list(partition.on(Event::Taken(taken)));
    (partition, actions)
}

/// A partition that was taken at this watermark and sent to its offset.
fn placed(watermark: Watermark) -> Partition {
    let (mut partition, _) = after_take(None, taken(watermark));
    assert_eq!(list(partition.on(Event::Moved)), []);
    partition
}

/// A partition that has read record 9. Its watermark is 10.
pub(super) fn reading() -> Partition {
    let mut partition = placed(watermark(10, Some(9)));
    assert_eq!(list(partition.on(Event::Read { offset: 9, hash: KNOWN })), []);
    assert_eq!(*partition.state(), PartitionState::Reading);
    partition
}

#[test]
fn a_partition_is_read_from_where_the_store_stands() {
    for (watermark, place, state) in [
        (watermark(0, None), Place::Beginning, PartitionState::Reading),
        (watermark(12, None), Place::Offset(12), PartitionState::Reading),
        (watermark(12, Some(9)), Place::Offset(9), PartitionState::Verifying { offset: 9, hash: KNOWN }),
    ] {
        let (partition, actions) = after_take(None, taken(watermark));
        assert_eq!(actions, [Action::Hold { epoch: 3, watermark }, Action::AssignAt(place)]);
        assert_eq!(*partition.state(), state);
        assert_eq!(partition.epoch(), 3);
    }
}

#[test]
fn the_groups_offset_must_be_of_this_store() {
    let never_read = taken(watermark(0, None));
    let read = taken(watermark(10, Some(9)));
    let accepted = Taken { accepted: Some("st_other".to_owned()), ..read.clone() };
    let went_back = Taken { knows_cluster: true, ..never_read.clone() };
    let accepted_ours = Taken { accepted: Some(OURS.to_owned()), fresh: false, ..never_read.clone() };
    let accepted_empty = Taken { accepted: Some(String::new()), ..read.clone() };
    let other = || Some(BlockReason::OtherStore("st_other".into()));
    for (answer, taken, blocked) in [
        (None, &never_read, None),
        (committed(0, OURS), &never_read, None),
        (committed(10, OURS), &read, None),
        // We wrote it, and yet the store has no row: the cluster has another id now.
        (committed(10, OURS), &never_read, Some(BlockReason::OtherCluster(10))),
        // The store has read other partitions of this cluster, so it went back to a time before it read this one.
        (committed(10, OURS), &went_back, None),
        (committed(10, "st_other"), &went_back, other()),
        (committed(5, ""), &went_back, Some(BlockReason::UnknownOffset(5))),
        (committed(10, OURS), &accepted_ours, None),
        (committed(10, "st_other"), &read, other()),
        (committed(10, "st_other"), &never_read, other()),
        (committed(10, "st_other"), &accepted, None),
        (committed(10, "st_third"), &accepted, Some(BlockReason::OtherStore("st_third".into()))),
        // A tool that resets offsets writes no store's name.
        (committed(5, ""), &read, None),
        (committed(5, ""), &never_read, Some(BlockReason::UnknownOffset(5))),
        (committed(5, ""), &accepted_empty, None),
    ] {
        let (partition, actions) = after_take(answer.clone(), taken.clone());
        match blocked {
            Some(reason) => {
                assert_eq!(actions, [Action::Block(reason.clone())], "{answer:?} {taken:?}");
                assert_eq!(*partition.state(), PartitionState::Blocked(reason));
            }
            None => assert!(partition.reads(), "{answer:?} {taken:?}: {actions:?}"),
        }
    }
}

#[test]
fn a_store_that_went_back_is_told_of_and_read_from_its_own_watermark() {
    let place = Action::AssignAt(Place::Offset(9));
    let (_, actions) = after_take(committed(20, OURS), taken(watermark(10, Some(9))));
    assert_eq!(actions[0], Action::StoreWentBack { committed: 20, watermark: 10 });
    assert_eq!(actions[2], place);
    let (_, actions) = after_take(committed(10, OURS), taken(watermark(10, Some(9))));
    assert_eq!(actions[1..], [place]);
    let went_back = Taken { knows_cluster: true, ..taken(watermark(0, None)) };
    let (_, actions) = after_take(committed(20, OURS), went_back);
    assert_eq!(actions[0], Action::StoreWentBack { committed: 20, watermark: 0 });
    assert_eq!(actions[2], Action::AssignAt(Place::Beginning));
}

#[test]
fn the_record_below_the_watermark_must_be_the_one_we_know() {
    let ask = |check| vec![Action::AskEnds(check)];
    let start_over = vec![Action::GiveUp, Action::AskEnds(Check::StartOver(StartOverReason::OtherRecord))];
    for (offset, hash, actions, state) in [
        (9, KNOWN, vec![], PartitionState::Reading),
        (9, OTHER, start_over.clone(), PartitionState::NotTaken),
        (8, KNOWN, start_over.clone(), PartitionState::NotTaken),
        (3, OTHER, start_over, PartitionState::NotTaken),
        (10, OTHER, ask(Check::RecordGone), PartitionState::Verifying { offset: 9, hash: KNOWN }),
        (99, KNOWN, ask(Check::RecordGone), PartitionState::Verifying { offset: 9, hash: KNOWN }),
    ] {
        let mut partition = placed(watermark(10, Some(9)));
        assert_eq!(list(partition.on(Event::Read { offset, hash })), actions, "{offset}");
        assert_eq!(*partition.state(), state, "{offset}");
    }
}

#[test]
fn a_record_that_is_gone_is_judged_by_where_the_log_begins() {
    let held = watermark(10, Some(9));
    let start_over = |reason| vec![Action::GiveUp, Action::AskEnds(Check::StartOver(reason))];
    for (answer, actions) in [
        // The log has this offset, but another record there.
        (ends(0, 20, Some(held)), start_over(StartOverReason::OtherRecord)),
        (ends(9, 20, Some(held)), start_over(StartOverReason::OtherRecord)),
        (ends(0, 9, Some(held)), start_over(StartOverReason::EndsBelow)),
        // Retention removed the record, but no record that we have not read.
        (ends(10, 20, Some(held)), vec![Action::SkipTo(10)]),
        // Retention also removed records that we have not read.
        (ends(15, 20, Some(held)), vec![Action::CountLost { lost: 5, begin: 15 }, Action::SkipTo(15)]),
        // Without an answer, the partition is taken again: it is never read unverified.
        (Event::NoAnswer, vec![Action::GiveUp]),
    ] {
        let mut partition = placed(held);
        assert_eq!(list(partition.on(Event::Read { offset: 17, hash: OTHER })), [Action::AskEnds(Check::RecordGone)]);
        assert_eq!(list(partition.on(Event::Read { offset: 18, hash: OTHER })), [], "it is read again");
        assert_eq!(list(partition.on(answer.clone())), actions, "{answer:?}");
    }
}

#[test]
fn a_silent_log_is_compared_by_its_end() {
    for (high, start_over) in [(9, true), (3, true), (10, false), (20, false)] {
        let mut partition = placed(watermark(10, Some(9)));
        assert_eq!(list(partition.on(Event::Tick)), [Action::AskEnds(Check::Silent)]);
        assert_eq!(list(partition.on(Event::Tick)), [], "one question at a time");
        let actions = list(partition.on(ends(0, high, None)));
        assert_eq!(actions.first() == Some(&Action::GiveUp), start_over, "{high}");
    }
    let mut partition = placed(watermark(10, Some(9)));
    partition.on(Event::Tick);
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskEnds(Check::Silent)], "asked again");
}

#[test]
fn an_offset_out_of_range_is_explained_by_the_ends_of_the_log() {
    let at = |upto| Some(watermark(upto, Some(upto - 1)));
    let start_over = vec![Action::GiveUp, Action::AskEnds(Check::StartOver(StartOverReason::EndsBelow))];
    for (answer, actions) in [
        (ends(0, 9, at(10)), start_over.clone()),
        // The watermark fits, but the records read above it do not.
        (ends(0, 12, at(10)), start_over),
        (ends(16, 30, at(10)), vec![Action::CountLost { lost: 3, begin: 16 }, Action::SkipTo(16)]),
        (ends(13, 30, at(10)), vec![Action::SkipTo(13)]),
        (ends(12, 30, at(10)), vec![Action::SkipTo(12)]),
        // Nothing is wrong with this one, so Kafka may have stopped serving it.
        (ends(0, 30, at(10)), vec![Action::GiveUp]),
        (Event::NoAnswer, vec![Action::GiveUp]),
    ] {
        let mut partition = reading();
        for offset in 10..13 {
            assert_eq!(list(partition.on(Event::Read { offset, hash: OTHER })), [Action::Admit]);
        }
        assert_eq!(list(partition.on(Event::OutOfRange)), [Action::AskEnds(Check::OutOfRange)]);
        assert_eq!(list(partition.on(Event::OutOfRange)), [], "one question at a time");
        assert_eq!(list(partition.on(answer.clone())), actions, "{answer:?}");
    }
}

/// A client without a position gives -1001, which must not become an offset.
#[test]
fn nothing_is_called_lost_that_was_never_there() {
    // An empty partition, one whose records were deleted, and one of a re-created topic.
    for (low, high) in [(0, 0), (0, 5), (7, 7)] {
        let mut partition = placed(watermark(0, None));
        partition.on(Event::Position(None));
        partition.on(Event::OutOfRange);
        let empty = Some(watermark(0, None));
        assert_eq!(list(partition.on(ends(low, high, empty))), [Action::GiveUp], "{low}..{high}");
    }
    // Control records at the end were passed before retention removed them.
    let mut partition = reading();
    assert_eq!(list(partition.on(Event::Position(Some(13)))), [Action::PassTo(13)]);
    partition.on(Event::OutOfRange);
    assert_eq!(list(partition.on(ends(13, 13, Some(watermark(10, Some(9)))))), [Action::SkipTo(13)]);
}

#[test]
fn what_was_lost_is_counted_once() {
    let mut partition = reading();
    let held = Some(watermark(10, Some(9)));
    partition.on(Event::OutOfRange);
    let lost = Action::CountLost { lost: 10, begin: 20 };
    assert_eq!(list(partition.on(ends(20, 30, held))), [lost, Action::SkipTo(20)]);
    // The client could not be moved: the partition is taken again at the same watermark.
    assert_eq!(list(partition.on(Event::NoAnswer)), [Action::GiveUp]);
    partition.on(Event::Tick);
    partition.on(Event::Committed(None));
    partition.on(Event::Taken(taken(watermark(10, Some(9)))));
    partition.on(Event::Moved);
    partition.on(Event::OutOfRange);
    let lost = Action::CountLost { lost: 5, begin: 25 };
    assert_eq!(list(partition.on(ends(25, 30, held))), [lost, Action::SkipTo(25)]);
}

#[test]
fn a_partition_with_another_log_starts_over_until_the_store_has_done_so() {
    let mut partition = reading();
    let check = Check::StartOver(StartOverReason::OtherRecord);
    let asks = Action::AskEnds(check);
    assert_eq!(list(partition.on(Event::OtherLog)), [Action::GiveUp, asks.clone()]);
    let cause = StartOverCause::LogChanged(StartOverReason::OtherRecord);
    let start_over = Action::StartOver { start: 0, log_end: 40, cause };
    assert_eq!(list(partition.on(ends(0, 40, None))), std::slice::from_ref(&start_over));
    // The store does not answer. The last record of the watermark is one of the new log, so it proves nothing.
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    assert_eq!(list(partition.on(Event::Committed(None))), [Action::Take]);
    assert_eq!(list(partition.on(Event::Taken(taken(watermark(30, Some(29)))))), [asks]);
    assert_eq!(list(partition.on(ends(0, 40, None))), [start_over]);
    let begun = Watermark { upto: 0, seen_upto: 40, last: None };
    partition.on(Event::Taken(taken(begun)));
    partition.on(Event::Moved);
    assert_eq!(*partition.state(), PartitionState::Reading);
    // It has started over: the next time it is taken, it is read from where the store stands.
    partition.on(Event::Fenced);
    partition.on(Event::Tick);
    partition.on(Event::Committed(None));
    let actions = list(partition.on(Event::Taken(taken(watermark(30, Some(29))))));
    assert!(actions.contains(&Action::AssignAt(Place::Offset(29))), "{actions:?}");
    // A partition that is not read hears of it when it is taken.
    let mut partition = Partition::new(OURS.into());
    assert_eq!(list(partition.on(Event::OtherLog)), []);
}

#[test]
fn a_partition_that_starts_over_reads_its_log_from_the_beginning() {
    let mut partition = placed(watermark(10, Some(9)));
    partition.on(Event::Read { offset: 2, hash: OTHER });
    let cause = StartOverCause::LogChanged(StartOverReason::OtherRecord);
    assert_eq!(list(partition.on(ends(0, 40, None))), [Action::StartOver { start: 0, log_end: 40, cause }]);
    let begun = Watermark { upto: 0, seen_upto: 40, last: None };
    assert_eq!(
        list(partition.on(Event::Taken(taken(begun)))),
        [Action::Hold { epoch: 3, watermark: begun }, Action::AssignAt(Place::Beginning)]
    );
    assert!(partition.reads());
    // The store or the broker does not answer: the partition is taken again, and verified again.
    let mut partition = placed(watermark(10, Some(9)));
    partition.on(Event::Read { offset: 2, hash: OTHER });
    partition.on(ends(0, 40, None));
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
}

#[test]
fn an_operator_says_where_a_blocked_partition_starts() {
    for (from, offset, start) in [
        (AcceptFrom::Earliest, 50, 10),
        (AcceptFrom::Committed, 50, 50),
        (AcceptFrom::Committed, 5, 10),
        (AcceptFrom::Committed, 500, 90),
        (AcceptFrom::End, 50, 90),
    ] {
        let (mut partition, _) = after_take(committed(offset, "st_other"), taken(watermark(0, None)));
        assert_eq!(list(partition.on(Event::Read { offset: 0, hash: KNOWN })), [], "a blocked partition reads nothing");
        assert_eq!(list(partition.on(Event::Tick)), []);
        assert_eq!(list(partition.on(Event::Accepted(from))), [Action::AskCommitted]);
        assert!(partition.is_accepting());
        let check = Check::Accept { from, committed: committed(offset, "st_other") };
        assert_eq!(list(partition.on(Event::Committed(committed(offset, "st_other")))), [Action::AskEnds(check)]);
        let cause = StartOverCause::Accepted { store: "st_other".into() };
        assert_eq!(list(partition.on(ends(10, 90, None))), [Action::StartOver { start, log_end: 90, cause }]);
        assert!(partition.is_accepting());
        partition.on(Event::Taken(taken(watermark(start, None))));
        assert!(partition.reads() && !partition.is_accepting());
    }
}

#[test]
fn a_partition_stays_blocked_while_kafka_does_not_answer() {
    let (mut partition, _) = after_take(committed(5, "st_other"), taken(watermark(0, None)));
    partition.on(Event::Accepted(AcceptFrom::End));
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert!(matches!(partition.state(), PartitionState::Blocked(_)) && !partition.is_accepting());
    partition.on(Event::Accepted(AcceptFrom::End));
    partition.on(Event::Committed(committed(5, "st_other")));
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert!(matches!(partition.state(), PartitionState::Blocked(_)) && !partition.is_accepting());
}

#[test]
fn a_fenced_partition_is_given_up_and_taken_again() {
    let mut partition = reading();
    assert_eq!(list(partition.on(Event::Fenced)), [Action::GiveUp]);
    assert_eq!(list(partition.on(Event::Fenced)), [], "once");
    assert_eq!(list(partition.on(Event::Read { offset: 10, hash: KNOWN })), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    assert_eq!(list(partition.on(Event::Committed(committed(10, OURS)))), [Action::Take]);
    assert_eq!(list(partition.on(Event::NoAnswer)), [], "the store is away");
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    // An answer that is still outstanding comes first.
    let mut partition = reading();
    partition.on(Event::OutOfRange);
    assert_eq!(list(partition.on(Event::Fenced)), [Action::GiveUp]);
    assert_eq!(list(partition.on(Event::Tick)), []);
    assert_eq!(list(partition.on(ends(0, 5, None))), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
}

#[test]
fn a_client_that_could_not_be_moved_is_asked_again() {
    let (mut partition, _) = after_take(None, taken(watermark(10, Some(9))));
    assert_eq!(list(partition.on(Event::Read { offset: 30, hash: KNOWN })), [], "of the place before");
    assert_eq!(list(partition.on(Event::NoAnswer)), [Action::GiveUp]);
    assert_eq!(*partition.state(), PartitionState::NotTaken);
}

#[test]
fn a_revoked_partition_only_forgets() {
    let mut partition = reading();
    assert_eq!(list(partition.on(Event::Revoked)), [Action::GiveUp]);
    for event in [Event::Read { offset: 10, hash: KNOWN }, Event::Tick, Event::Fenced, Event::Revoked] {
        assert_eq!(list(partition.on(event)), []);
    }
    let (mut blocked, _) = after_take(committed(5, "st_other"), taken(watermark(0, None)));
    assert_eq!(list(blocked.on(Event::Revoked)), [], "it holds nothing");
}

#[test]
fn a_record_that_cannot_be_read_is_handed_over_and_never_compared() {
    let mut partition = reading();
    assert_eq!(list(partition.on(Event::Read { offset: 10, hash: UNREAD })), [Action::Admit]);
    // This is the record that should be compared.
    let mut partition = placed(watermark(10, Some(9)));
    assert_eq!(list(partition.on(Event::Read { offset: 9, hash: UNREAD })), []);
    assert_eq!(*partition.state(), PartitionState::Reading);
    // Nor is it read again.
    let buried = Watermark { last: Some((9, UNREAD)), ..watermark(10, None) };
    let (partition, actions) = after_take(None, taken(buried));
    assert!(actions.contains(&Action::AssignAt(Place::Offset(10))), "{actions:?}");
    assert_eq!(*partition.state(), PartitionState::Reading);
}

#[test]
fn after_two_deaths_at_one_place_a_partition_is_read_in_a_sandbox() {
    let of = watermark(10, Some(9));
    let (_, once) = after_take(None, Taken { deaths: 1, ..taken(of) });
    assert!(once.contains(&Action::AssignAt(Place::Offset(9))), "{once:?}");
    let (_, twice) = after_take(None, Taken { deaths: 2, ..taken(of) });
    assert!(twice.contains(&Action::AssignSandboxed(Place::Offset(9))), "{twice:?}");
}

#[test]
fn a_position_counts_only_when_it_is_of_this_place() {
    let mut partition = placed(watermark(10, Some(9)));
    assert_eq!(list(partition.on(Event::Position(Some(12)))), [], "not verified yet");
    partition.on(Event::Read { offset: 9, hash: KNOWN });
    assert_eq!(list(partition.on(Event::Position(None))), []);
    assert_eq!(list(partition.on(Event::Position(Some(12)))), [Action::PassTo(12)]);
    // After a move within an assignment, the client may still give its earlier position.
    partition.on(Event::OutOfRange);
    partition.on(ends(0, 5, Some(watermark(10, Some(9)))));
    partition.on(ends(0, 5, None));
    partition.on(Event::Taken(taken(Watermark { upto: 0, seen_upto: 5, last: None })));
    partition.on(Event::Moved);
    assert_eq!(list(partition.on(Event::Position(Some(12)))), [], "the old log's");
    partition.on(Event::Position(None));
    assert_eq!(list(partition.on(Event::Position(Some(3)))), [Action::PassTo(3)]);
}

#[test]
fn a_partition_is_paused_and_resumed_with_hysteresis() {
    let start = Instant::now();
    let flow = |millis, hold, outstanding| {
        let now = start + Duration::from_millis(millis);
        Event::Flow(Flow { now, hold, outstanding, window: 100 })
    };
    let mut partition = placed(watermark(0, None));
    assert_eq!(list(partition.on(flow(0, false, 0))), [Action::Resume], "an older pause may still hold");
    assert_eq!(list(partition.on(flow(1, false, 99))), []);
    assert_eq!(list(partition.on(flow(2, false, 100))), [Action::Pause]);
    assert_eq!(list(partition.on(flow(1_001, false, 0))), [], "too soon");
    assert_eq!(list(partition.on(flow(1_002, false, 51))), [], "half of the window must be free");
    assert_eq!(list(partition.on(flow(1_003, false, 50))), [Action::Resume]);
    assert_eq!(list(partition.on(flow(1_500, true, 0))), []);
    assert_eq!(list(partition.on(flow(2_003, true, 0))), [Action::Pause]);
    let mut waiting = Partition::new(OURS.into());
    assert_eq!(list(waiting.on(flow(0, false, 0))), [Action::Pause], "what is not taken is not read");
}

#[test]
fn an_offset_is_committed_once_and_again_after_a_failure() {
    let mut partition = reading();
    let due = |durable_upto| Event::CommitDue { durable_upto };
    assert_eq!(list(partition.on(due(0))), []);
    assert_eq!(list(partition.on(due(10))), [Action::Commit(10)]);
    assert_eq!(list(partition.on(due(10))), []);
    partition.on(Event::CommitFailed);
    assert_eq!(list(partition.on(due(10))), [Action::Commit(10)]);
    // A log that starts over is committed from its beginning.
    partition.on(Event::OutOfRange);
    partition.on(ends(0, 5, Some(watermark(10, Some(9)))));
    partition.on(ends(0, 5, None));
    assert_eq!(list(partition.on(due(3))), [], "nothing is committed of what is not read");
    partition.on(Event::Taken(taken(Watermark { upto: 0, seen_upto: 5, last: None })));
    assert_eq!(list(partition.on(due(3))), [Action::Commit(3)]);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    for answer in [
        Event::Committed(None),
        Event::Taken(taken(watermark(5, None))),
        ends(50, 60, None),
        Event::Moved,
        Event::NoAnswer,
    ] {
        let mut partition = reading();
        assert_eq!(list(partition.on(answer)), []);
        assert_eq!(list(partition.on(Event::Read { offset: 10, hash: OTHER })), [Action::Admit]);
    }
}

#[test]
fn a_position_from_before_the_take_is_not_believed() {
    let flow = || Event::Flow(Flow { now: Instant::now(), outstanding: 0, window: 10, hold: false });
    // The store was silent at the assignment, so Kafka's client got the partition paused and without an offset.
    let mut partition = Partition::new(OURS.into());
    assert_eq!(list(partition.on(Event::Assigned)), [Action::AskCommitted]);
    assert_eq!(list(partition.on(flow())), [Action::Pause]);
    assert_eq!(list(partition.on(Event::Committed(None))), [Action::Take]);
    let actions = list(partition.on(Event::Taken(taken(watermark(0, None)))));
    assert_eq!(actions[1], Action::AssignAt(Place::Beginning));
    assert_eq!(list(partition.on(Event::Moved)), []);
    assert_eq!(list(partition.on(Event::Position(Some(5)))), [], "the client's own position, from before the take");
    assert_eq!(list(partition.on(Event::Position(None))), []);
    assert_eq!(list(partition.on(Event::Position(Some(5)))), [Action::PassTo(5)]);
}

#[test]
fn a_new_log_whose_begin_was_not_answered_is_counted_from_its_start() {
    let mut partition = reading();
    partition.on(Event::CommitDue { durable_upto: 10 });
    partition.on(Event::OutOfRange);
    partition.on(ends(0, 5, None));
    assert!(matches!(list(partition.on(ends(0, 5, None)))[..], [Action::StartOver { .. }]));
    assert_eq!(list(partition.on(Event::NoAnswer)), []);
    assert_eq!(list(partition.on(Event::Tick)), [Action::AskCommitted]);
    partition.on(Event::Committed(None));
    partition.on(Event::Taken(Taken { epoch: 4, ..taken(watermark(0, None)) }));
    partition.on(Event::Moved);
    partition.on(Event::Read { offset: 0, hash: OTHER });
    assert_eq!(list(partition.on(Event::CommitDue { durable_upto: 1 })), [Action::Commit(1)]);
}
