use super::*;
use crate::base::clock::Timestamp;
use crate::intake::partition::ResetFacts;
use crate::model::offsets::Watermark;
use crate::store::reads::InstanceEnd;

const FACTS: ResetFacts =
    ResetFacts { low: 5, high: 100, watermark: 60, at_time: None, kept_from: Some(30), is_paused: false };

fn key(number: i32) -> PartitionKey {
    PartitionKey { cluster: "c".into(), topic: "t".into(), number }
}

fn looked(number: i32, facts: Result<ResetFacts, String>) -> Looked {
    Looked { partition: Arc::new(key(number)), facts }
}

fn ask(partition: Option<i32>, to: ResetTo) -> ResetAsk {
    ResetAsk { topic: Some("t".to_owned()), partition, to, at_most: 0, dry_run: false }
}

fn checked(way: ResetWay, ask: &ResetAsk, looked: Vec<Looked>) -> Result<(), OpsError> {
    let found: Vec<_> = looked.into_iter().map(|looked| PartitionReset::planned(way, ask.to, looked)).collect();
    check_found(way, ask, &found)
}

#[test]
fn what_is_at_risk_must_be_agreed_to() {
    for (way, to, at_risk) in [(ResetWay::Rewind, ResetTo::Offset(20), 10), (ResetWay::Skip, ResetTo::Offset(70), 10)] {
        let one = |at_most| ResetAsk { at_most, ..ask(Some(0), to) };
        assert!(checked(way, &one(at_risk), vec![looked(0, Ok(FACTS))]).is_ok());
        let refused = checked(way, &one(at_risk - 1), vec![looked(0, Ok(FACTS))]).expect_err("too many");
        assert!(matches!(&refused, OpsError::TooManyRows(_)), "{refused}");
        assert!(refused.to_string().contains("up to 10 ") && refused.to_string().contains("--yes"), "{refused}");
        let dry_run = ResetAsk { dry_run: true, ..one(0) };
        assert!(checked(way, &dry_run, vec![looked(0, Ok(FACTS))]).is_ok(), "a plan moves nothing");
    }
    assert!(checked(ResetWay::Rewind, &ask(None, ResetTo::Offset(40)), vec![looked(0, Ok(FACTS))]).is_ok());
}

#[test]
fn what_would_do_nothing_is_refused_with_the_reason() {
    let named = |to| ask(Some(0), to);
    let told = |way, ask: &ResetAsk, facts| checked(way, ask, vec![looked(0, facts)]).expect_err("refused").to_string();
    let ahead = told(ResetWay::Rewind, &named(ResetTo::Offset(70)), Ok(FACTS));
    assert!(ahead.starts_with("t[0]: its watermark is 60") && ahead.contains("offsets skip"), "{ahead}");
    let behind = told(ResetWay::Skip, &named(ResetTo::Offset(7)), Ok(FACTS));
    assert!(behind.contains("offsets rewind"), "{behind}");
    assert_eq!(
        told(ResetWay::Skip, &named(ResetTo::Offset(60)), Ok(FACTS)),
        "t[0]: its watermark is there already, at 60"
    );
    // A dry run of nothing is no mistake, but a dry run of what is never done is one.
    let dry = |to| ResetAsk { dry_run: true, ..named(to) };
    assert!(checked(ResetWay::Rewind, &dry(ResetTo::Offset(60)), vec![looked(0, Ok(FACTS))]).is_ok());
    assert!(checked(ResetWay::Rewind, &dry(ResetTo::Offset(70)), vec![looked(0, Ok(FACTS))]).is_err());
    // What can't be told now may be told in a moment.
    let silent = checked(ResetWay::Rewind, &named(ResetTo::Earliest), vec![looked(0, Err("it waits".to_owned()))]);
    assert!(matches!(silent, Err(OpsError::NotReady(sentence)) if sentence == "t[0]: it waits"));
    let unknown = checked(ResetWay::Rewind, &named(ResetTo::Earliest), Vec::new());
    assert!(matches!(unknown, Err(OpsError::NotFound(sentence)) if sentence == "no partition 0 of t is known here"));
    // Of several partitions, those go that can.
    let several = vec![looked(0, Ok(ResetFacts { watermark: 10, ..FACTS })), looked(1, Ok(FACTS))];
    assert!(checked(ResetWay::Rewind, &ask(None, ResetTo::Offset(40)), several).is_ok());
}

#[test]
fn a_plan_is_told_with_what_is_odd_about_it() {
    let paused = ResetFacts { is_paused: true, ..FACTS };
    let mut one = PartitionReset::planned(ResetWay::Rewind, ResetTo::Offset(1), looked(0, Ok(paused)));
    let note = one.note.clone().unwrap_or_default();
    assert!(note.starts_with("its log begins at 5") && note.contains("nothing is read of it at the moment"), "{note}");
    assert_eq!((one.state, one.from, one.to), (ResetState::Planned, Some(60), Some(5)));
    assert_eq!(one.change(ResetWay::Rewind), "from 60 to 5: at most 55 records are read again");
    one.was_moved(Ok(5));
    assert_eq!((one.state, one.to), (ResetState::Moved, Some(5)));
    one.was_moved(Err("it may have been moved or not".to_owned()));
    assert_eq!((one.state, one.note.as_deref()), (ResetState::Failed, Some("it may have been moved or not")));
}

#[test]
fn who_reads_a_partition_is_named() {
    let at = Timestamp::default();
    let instance = |id: i64, end| InstanceRow {
        id,
        run: format!("run-{id}"),
        name: Some("b".to_owned()),
        host: Some("host-2".to_owned()),
        version: None,
        partitions: 1,
        started_at: at,
        seen_at: at,
        end,
    };
    let row = |owner| PartitionOffsets {
        partition: key(1),
        watermark: Watermark { upto: 0, seen_upto: 0, last: None },
        epoch: 1,
        owner,
        moved_at: at,
    };
    let instances = [instance(1, None), instance(2, None), instance(3, Some(InstanceEnd::Died))];
    let told = |owner| who_reads(&row(owner), &instances, 1);
    assert_eq!(told(Some(2)), "the instance run-2 (b on host-2) reads it: give the command to that one");
    for nobody in [None, Some(3), Some(9), Some(1)] {
        assert!(told(nobody).starts_with("no instance reads it"), "{nobody:?}");
    }
}
