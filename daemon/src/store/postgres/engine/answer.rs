//! What the last batch of an instance did, in its row: a process whose acknowledgement was lost reads it there. Others may have
//! changed the rows of its callbacks since, and taken its partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::retry::Reason;
use crate::model::settlement::{Change, Ended, Verdict};
use crate::store::{Applied, Batch};

/// A byte a change, and a byte a partition and epoch that the batch names: whether it was lost.
pub(super) fn encode(batch: &Batch, applied: &Applied) -> Vec<u8> {
    let verdicts = applied.verdicts.iter().map(|verdict| byte_of(*verdict));
    let lost = named(batch).into_iter().map(|named| u8::from(applied.lost.contains(&named)));
    verdicts.chain(lost).collect()
}

/// `None` if the bytes are not those of this batch.
pub(super) fn decode(batch: &Batch, bytes: &[u8], now: Timestamp) -> Option<Applied> {
    let named = named(batch);
    let (verdicts, lost) = bytes.split_at_checked(batch.changes.len())?;
    if lost.len() != named.len() {
        return None;
    }
    let verdicts = batch.changes.iter().zip(verdicts);
    let verdicts = verdicts.map(|(change, byte)| verdict_of(*byte, due_of(change))).collect::<Option<Vec<_>>>()?;
    let lost = named.into_iter().zip(lost).filter(|(_, lost)| **lost == 1).map(|(named, _)| named).collect();
    Some(Applied { verdicts, lost, now })
}

/// The partitions and epochs that a batch names, in order.
fn named(batch: &Batch) -> BTreeSet<(Arc<PartitionKey>, i64)> {
    let of_changes = batch.changes.iter().filter_map(|change| change.record());
    let of_changes = of_changes.map(|(record, epoch)| (Arc::clone(&record.partition), epoch));
    let of_watermarks = batch.watermarks.iter().map(|raised| (Arc::clone(&raised.partition), raised.epoch));
    of_changes.chain(of_watermarks).collect()
}

/// The verdicts without a reason, in the order of their bytes.
const PLAIN: [Verdict; 10] = [
    Verdict::Nothing,
    Verdict::Parked,
    Verdict::Released,
    Verdict::Buried,
    Verdict::BuriedWithoutValue,
    Verdict::DeliveredInRound,
    Verdict::RoundEnded,
    Verdict::Late,
    Verdict::Ended(Ended::Delivered),
    Verdict::Ended(Ended::Exhausted),
];
/// The time of the next attempt is not kept here: it stands in the change itself.
const DUE: u8 = 32;
/// From here on the bytes stand for the reasons why a callback was abandoned, in their order.
const ABANDONED: u8 = 64;

fn byte_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Nothing => 0,
        Verdict::Parked => 1,
        Verdict::Released => 2,
        Verdict::Buried => 3,
        Verdict::BuriedWithoutValue => 4,
        Verdict::DeliveredInRound => 5,
        Verdict::RoundEnded => 6,
        Verdict::Late => 7,
        Verdict::Ended(Ended::Delivered) => 8,
        Verdict::Ended(Ended::Exhausted) => 9,
        Verdict::Due(_) => DUE,
        Verdict::Ended(Ended::Abandoned(reason)) => {
            Reason::ALL.iter().zip(ABANDONED..).find(|(of, _)| **of == reason).map_or(u8::MAX, |(_, byte)| byte)
        }
    }
}

fn due_of(change: &Change) -> Option<Timestamp> {
    match change {
        Change::Settle(settle) => settle.next.due(),
        _ => None,
    }
}

fn verdict_of(byte: u8, due: Option<Timestamp>) -> Option<Verdict> {
    match byte {
        DUE => due.map(Verdict::Due),
        ABANDONED.. => {
            let reason = Reason::ALL.get(usize::from(byte - ABANDONED))?;
            Some(Verdict::Ended(Ended::Abandoned(*reason)))
        }
        plain => PLAIN.get(usize::from(plain)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offsets::Watermark;
    use crate::store::{InstanceId, PartitionWatermark};

    #[test]
    fn every_verdict_has_a_byte_of_its_own() {
        let due = Timestamp::from_millis(7);
        let reasons = Reason::ALL.iter().map(|reason| Verdict::Ended(Ended::Abandoned(*reason)));
        let all: Vec<Verdict> = PLAIN.into_iter().chain([Verdict::Due(due)]).chain(reasons).collect();
        for verdict in &all {
            assert_eq!(verdict_of(byte_of(*verdict), Some(due)), Some(*verdict));
        }
        assert_eq!(verdict_of(DUE, None), None, "the change has no time");
        let bytes: BTreeSet<u8> = all.iter().map(|verdict| byte_of(*verdict)).collect();
        assert_eq!(bytes.len(), all.len());
    }

    #[test]
    fn lost_partitions_are_read_as_they_were_written() {
        let key = |number| Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number });
        let watermark = Watermark { upto: 9, seen_upto: 9, last: None };
        let raised = |number| PartitionWatermark { partition: key(number), epoch: 4, watermark };
        let watermarks = vec![raised(2), raised(0), raised(1)];
        let batch = Batch { instance: InstanceId(1), number: 1, changes: Vec::new(), watermarks };
        let now = Timestamp::from_millis(7);
        let applied = Applied { verdicts: Vec::new(), lost: vec![(key(1), 4)], now };
        let bytes = encode(&batch, &applied);
        assert_eq!(decode(&batch, &bytes, now).unwrap().lost, applied.lost);
        assert!(decode(&batch, &bytes[1..], now).is_none() && decode(&batch, &[9, 9, 9, 9], now).is_none());
    }
}
