//! How long it takes until others go on with the work of a killed daemon: until a record of each of its partitions is sent by another
//! run, and each callback that was under way comes again. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::causes::{Again, Cause, judge};
use super::daemon::{LEASE, SESSION};
use super::event::{Event, Mix};
use super::incidents::Incident;
use super::plan::Kind;
use super::receipts::Receipt;
use super::recreated;

/// A partition belongs to the run that sent its last record, if that was this shortly before.
const RECENT: Duration = Duration::from_secs(2);

/// A fault that was over shortly before may still have its effect.
pub(crate) const NEAR: Duration = Duration::from_secs(2);

/// The longest that a takeover may last.
pub(crate) fn bound() -> Duration {
    (SESSION + Duration::from_secs(5)).max(LEASE + Duration::from_secs(6))
}

/// The takeover after one kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Takeover {
    pub(crate) run: u32,
    pub(crate) took: Duration,
    /// Another fault came meanwhile, so the bound does not hold for it.
    pub(crate) is_disturbed: bool,
}

/// The takeovers that can be measured: a kill of a daemon that had no partition and nothing under way has none.
pub(crate) fn takeovers(mix: Mix, receipts: &[Receipt], incidents: &[Incident]) -> Vec<Takeover> {
    let partition_of: HashMap<u64, i32> =
        receipts.iter().map(|receipt| (receipt.task, Event::of(mix, receipt.task).partition())).collect();
    let first: Vec<(&Receipt, i32)> = receipts
        .iter()
        .filter(|receipt| receipt.attempt == 1 && !recreated::is_of(receipt.task))
        .map(|receipt| (receipt, partition_of[&receipt.task]))
        .collect();
    let kills = incidents.iter().enumerate().filter(|(_, incident)| incident.kind.is_kill());
    kills
        .filter_map(|(number, kill)| {
            let run = kill.run?;
            let read = partitions(run, kill.from, &first);
            let done = read.into_iter().filter_map(|partition| next(partition, run, kill.from, &first));
            let end = done.chain(comes_again(number, kill, receipts, incidents)).max()?;
            let is_disturbed = incidents.iter().enumerate().any(|(other, incident)| {
                let is_near = incident.from <= end && incident.until + NEAR >= kill.from;
                other != number && incident.kind != Kind::Refuse && is_near
            });
            Some(Takeover { run, took: end.duration_since(kill.from), is_disturbed })
        })
        .collect()
}

/// The partitions of a run at this moment.
fn partitions(run: u32, at: Instant, first: &[(&Receipt, i32)]) -> BTreeSet<i32> {
    let mut last: HashMap<i32, u32> = HashMap::new();
    let recent = |receipt: &Receipt| receipt.came <= at && at.duration_since(receipt.came) <= RECENT;
    for (receipt, partition) in first.iter().filter(|(receipt, _)| recent(receipt)) {
        last.insert(*partition, receipt.run);
    }
    last.into_iter().filter(|(_, owner)| *owner == run).map(|(partition, _)| partition).collect()
}

/// When another run sent a record of the partition.
fn next(partition: i32, run: u32, after: Instant, first: &[(&Receipt, i32)]) -> Option<Instant> {
    let begin = first.partition_point(|(receipt, _)| receipt.came <= after);
    let mut later = first[begin..].iter();
    later.find(|(receipt, of)| *of == partition && receipt.run != run).map(|(receipt, _)| receipt.came)
}

/// When the callbacks came again that were under way at the kill.
fn comes_again(
    number: usize,
    kill: &Incident,
    receipts: &[Receipt],
    incidents: &[Incident],
) -> impl Iterator<Item = Instant> {
    let begin = receipts.partition_point(|receipt| receipt.came + Duration::from_secs(30) < kill.from);
    let mut of_run: HashMap<&str, &Receipt> = HashMap::new();
    let mut found = Vec::new();
    for receipt in &receipts[begin..] {
        if Some(receipt.run) == kill.run {
            of_run.insert(&receipt.id, receipt);
        } else if let Some(earlier) = of_run.remove(&*receipt.id)
            && judge(earlier, receipt, incidents) == Again::Repeat(Cause::KilledOpen, Some(number))
        {
            found.push(receipt.came);
        }
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::event::Receiver;
    use super::super::receipts::End;
    use super::*;

    const MIX: Mix = Mix { seed: 3, slow: 60 };

    #[test]
    fn a_takeover_lasts_until_every_partition_and_every_callback_goes_on() {
        let now = Instant::now();
        let at = |millis: u64| now + Duration::from_millis(millis);
        let receipt = |task: u64, run: u32, millis: u64| Receipt {
            id: format!("cb_{task}").into(),
            task,
            attempt: 1,
            run,
            receiver: Receiver::Prompt,
            body: 0,
            came: at(millis),
            end: if task == 0 { End::Open } else { End::Accepted(at(millis)) },
        };
        let same = (1..1_000).filter(|n| Event::of(MIX, *n).partition() == Event::of(MIX, 0).partition());
        let same: Vec<u64> = same.take(2).collect();
        let kill = Incident { kind: Kind::Kill, from: at(500), until: at(700), run: Some(1), before: None, count: 0 };
        let mut receipts = vec![receipt(same[0], 1, 100), receipt(0, 1, 200), receipt(same[1], 2, 3_000)];
        let took = |receipts: &[Receipt], incidents: &[Incident]| takeovers(MIX, receipts, incidents);
        let expected = Takeover { run: 1, took: Duration::from_millis(2_500), is_disturbed: false };
        assert_eq!(took(&receipts, std::slice::from_ref(&kill)), [expected]);
        receipts.push(receipt(0, 2, 9_500));
        let expected = Takeover { took: Duration::from_millis(9_000), ..expected };
        assert_eq!(took(&receipts, std::slice::from_ref(&kill)), [expected]);
        let away = Incident { kind: Kind::StoreStop, from: at(2_000), until: at(4_000), run: None, ..kill.clone() };
        assert!(took(&receipts, &[kill, away])[0].is_disturbed);
    }
}
