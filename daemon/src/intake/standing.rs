//! How partitions stand: whether their log is the one we know, where they go on when it is not, and what an operator
//! accepts. Part of the consumer's session, on its thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::Session;
use super::context::committed;
use super::partitions::{AcceptFrom, Partition, PartitionState, Progress};
use crate::model::event::PartitionKey;

const CALL: Duration = Duration::from_secs(5);
const BRIEF_CALL: Duration = Duration::from_millis(500);

impl Session<'_> {
    /// The error does not say which partition: all that are read are compared with their logs. A partition that Kafka
    /// stopped serving takes no seek; it is assigned anew.
    pub(super) fn check_ranges(&self) {
        let positions = self.consumer.position().unwrap_or_default();
        let mut unclear = Vec::new();
        for partition in self.partitions(Partition::reads) {
            let Ok((low, high)) = self.consumer.fetch_watermarks(&partition.topic, partition.number, CALL) else {
                unclear.push(partition);
                continue;
            };
            let Some(watermark) = self.context().inflight.watermark(&partition) else { continue };
            let last = watermark.last.map_or(watermark.upto, |(offset, _)| offset);
            let position =
                positions.find_partition(&partition.topic, partition.number).and_then(|p| p.offset().to_raw());
            if watermark.upto > high || position.is_some_and(|position| position > high) {
                self.start_anew(&partition, "the log ends below what was read of it");
            } else if last < low && watermark.upto > 0 {
                let lost = low.saturating_sub(watermark.upto);
                self.tell_lost(&partition, lost, low);
                self.go_on_from(&partition, low.max(watermark.upto));
            } else if let Some(lost) = position.map(|position| low.saturating_sub(position)).filter(|lost| *lost > 0) {
                self.tell_lost(&partition, lost, low);
                self.go_on_from(&partition, low);
            } else {
                unclear.push(partition);
            }
        }
        // One of them may be the one that Kafka stopped serving: all are taken anew, and their logs verified.
        self.context().give_up(&unclear);
        for partition in &unclear {
            self.not_taken(partition);
        }
    }

    fn tell_lost(&self, partition: &PartitionKey, lost: i64, begin: i64) {
        if lost > 0 {
            tracing::error!(%partition, lost, begin, "Kafka deleted records before they were read");
            self.context().metrics.records_lost_total.inc_by(lost.unsigned_abs());
        }
    }

    /// A log that ends at the record we know tells nothing until its next one: it is compared all the same, a partition
    /// a turn.
    pub(super) fn verify_what_is_silent(&self) {
        let verifying = |partition: &Partition| matches!(partition.standing, PartitionState::Verifying(..));
        let Some(partition) = self.partitions(verifying).into_iter().next() else { return };
        let last = self.context().inflight.watermark(&partition).and_then(|watermark| watermark.last);
        let ends = self.consumer.fetch_watermarks(&partition.topic, partition.number, BRIEF_CALL);
        if let (Some((offset, _)), Ok((_, high))) = (last, ends)
            && high <= offset
        {
            self.start_anew(&partition, "the log ends below what was read of it");
        }
    }

    /// The assigned partitions that stand so.
    fn partitions(&self, stands: impl Fn(&Partition) -> bool) -> Vec<Arc<PartitionKey>> {
        let partitions = self.context().partitions();
        partitions.values().filter(|partition| stands(partition)).map(|p| Arc::clone(&p.key)).collect()
    }

    fn give_up(&self, partition: &Arc<PartitionKey>) {
        self.context().give_up(std::slice::from_ref(partition));
        self.not_taken(partition);
    }

    pub(super) fn log_begins_at_or_below(&self, partition: &PartitionKey, offset: i64) -> bool {
        self.consumer.fetch_watermarks(&partition.topic, partition.number, CALL).is_ok_and(|(low, _)| low <= offset)
    }

    fn go_on_from(&self, partition: &Arc<PartitionKey>, offset: i64) {
        let context = self.context();
        if let Some(partition) = context.partitions().get_mut(&(Arc::clone(&partition.topic), partition.number)) {
            partition.standing = PartitionState::Reading;
        }
        context.inflight.at_position(partition, offset);
        self.reposition(partition, Offset::Offset(offset));
    }

    /// Row 37: the topic was re-created or truncated. Its records are new, and looked up by id all the same.
    pub(super) fn start_anew(&self, partition: &Arc<PartitionKey>, why: &str) {
        let context = self.context();
        context.give_up(std::slice::from_ref(partition));
        let Ok((low, high)) = self.consumer.fetch_watermarks(&partition.topic, partition.number, CALL) else {
            self.not_taken(partition);
            return;
        };
        tracing::error!(%partition, reason = why, low, high, "the topic was re-created or truncated: reading it from its begin");
        context.metrics.partitions_started_anew_total.inc();
        self.restart(partition, low, high, None);
    }

    fn restart(&self, partition: &Arc<PartitionKey>, start: i64, log_end: i64, accepted: Option<String>) -> bool {
        let context = self.context();
        let taken =
            context.call(context.store.start_anew(context.instance, Arc::clone(partition), start, log_end, accepted));
        let Some(taken) = taken else {
            self.not_taken(partition);
            return false;
        };
        let offset = {
            let mut partitions = context.partitions();
            let Some(partition) = partitions.get_mut(&(Arc::clone(&partition.topic), partition.number)) else {
                return false;
            };
            partition.progress = Progress::default();
            context.start_reading(partition, &taken)
        };
        self.reposition(partition, offset);
        true
    }

    fn not_taken(&self, partition: &Arc<PartitionKey>) {
        if let Some(partition) = self.context().partitions().get_mut(&(Arc::clone(&partition.topic), partition.number))
        {
            partition.standing = PartitionState::NotTaken;
        }
    }

    /// Goes on from an offset. A seek is not taken where Kafka stopped serving the partition: it is assigned anew.
    fn reposition(&self, partition: &PartitionKey, offset: Offset) {
        let (mut from, mut to) = (TopicPartitionList::new(), TopicPartitionList::new());
        from.add_partition(&partition.topic, partition.number);
        let moved = to
            .add_partition_offset(&partition.topic, partition.number, offset)
            .and_then(|()| self.consumer.incremental_unassign(&from))
            .and_then(|()| self.consumer.incremental_assign(&to));
        if let Err(error) = moved {
            tracing::warn!(%partition, %error, "a partition could not be moved to its offset; it is taken again");
            self.give_up(&Arc::new(partition.clone()));
        }
    }

    /// A write found its epoch gone, or its records were settled by nobody: a new epoch, from the store's watermark.
    pub(super) fn take_again(&self, partition: &Arc<PartitionKey>) {
        let assigned = self.context().partitions().contains_key(&(Arc::clone(&partition.topic), partition.number));
        if assigned {
            tracing::warn!(%partition, "this partition is taken anew");
            self.give_up(partition);
        }
    }

    /// Partitions that the store could not answer for: as many as a short while allows, so that polls go on.
    pub(super) fn take_what_waits(&self) {
        let waiting = self.partitions(|partition| partition.standing == PartitionState::NotTaken);
        if waiting.is_empty() {
            return;
        }
        let end = Instant::now() + CALL;
        let mut asked = TopicPartitionList::new();
        for partition in &waiting {
            asked.add_partition(&partition.topic, partition.number);
        }
        let Some(committed) = committed(self.consumer, &asked) else { return };
        for partition in waiting {
            if Instant::now() >= end {
                return;
            }
            let committed = committed.get(&(partition.topic.to_string(), partition.number));
            let offset = {
                let mut partitions = self.context().partitions();
                let key = (Arc::clone(&partition.topic), partition.number);
                let Some(partition) = partitions.get_mut(&key) else { continue };
                let offset = self.context().take(partition, committed);
                if !partition.reads() {
                    continue;
                }
                offset
            };
            self.reposition(&partition, offset);
        }
    }

    /// `offsets accept`: starts every blocked partition where the operator said.
    pub(super) fn accept(&self, from: AcceptFrom) -> Result<usize, String> {
        let blocked = self.partitions(|partition| matches!(partition.standing, PartitionState::Blocked(_)));
        let mut started = 0;
        for partition in blocked {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&partition.topic, partition.number, CALL)
                .map_err(|error| format!("the ends of {partition} can't be read: {error}"))?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&partition.topic, partition.number);
            let committed = committed(self.consumer, &asked).ok_or("the group's offsets can't be read")?;
            let (offset, store) = committed
                .get(&(partition.topic.to_string(), partition.number))
                .cloned()
                .unwrap_or((low, String::new()));
            let start = match from {
                AcceptFrom::Earliest => low,
                AcceptFrom::Committed => offset.clamp(low, high),
                AcceptFrom::End => high,
            };
            if self.restart(&partition, start, high, Some(store)) {
                tracing::warn!(%partition, start, "an operator accepted the offsets of this partition");
                started += 1;
            }
        }
        Ok(started)
    }
}
