//! How partitions stand: whether their log is the one we know, where they go on when it is not, and what an operator
//! accepts. Part of the consumer's session, on its thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::Session;
use super::context::committed;
use super::partitions::{AcceptFrom, Partition, Progress, Standing};
use crate::model::event::SourceKey;

const CALL: Duration = Duration::from_secs(5);
const BRIEF_CALL: Duration = Duration::from_millis(500);

impl Session<'_> {
    /// The error does not say which partition: all that are read are compared with their logs. A partition that Kafka
    /// stopped serving takes no seek; it is assigned anew.
    pub(super) fn check_ranges(&self) {
        let positions = self.consumer.position().unwrap_or_default();
        let mut unclear = Vec::new();
        for source in self.sources(Partition::reads) {
            let Ok((low, high)) = self.consumer.fetch_watermarks(&source.topic, source.partition, CALL) else {
                unclear.push(source);
                continue;
            };
            let Some(reached) = self.context().inflight.reached(&source) else { continue };
            let last = reached.last.map_or(reached.done_upto, |(offset, _)| offset);
            let position = positions.find_partition(&source.topic, source.partition).and_then(|p| p.offset().to_raw());
            if reached.done_upto > high || position.is_some_and(|position| position > high) {
                self.start_anew(&source, "the log ends below what was read of it");
            } else if last < low && reached.done_upto > 0 {
                let lost = low.saturating_sub(reached.done_upto);
                self.tell_lost(&source, lost, low);
                self.go_on_from(&source, low.max(reached.done_upto));
            } else if let Some(lost) = position.map(|position| low.saturating_sub(position)).filter(|lost| *lost > 0) {
                self.tell_lost(&source, lost, low);
                self.go_on_from(&source, low);
            } else {
                unclear.push(source);
            }
        }
        // One of them may be the one that Kafka stopped serving: all are taken anew, and their logs verified.
        self.context().give_up(&unclear);
        for source in &unclear {
            self.not_taken(source);
        }
    }

    fn tell_lost(&self, source: &SourceKey, lost: i64, begin: i64) {
        if lost > 0 {
            tracing::error!(%source, lost, begin, "Kafka deleted records before they were read");
            self.context().metrics.records_lost_total.inc_by(lost.unsigned_abs());
        }
    }

    /// A log that ends at the record we know tells nothing until its next one: it is compared all the same, a partition
    /// a turn.
    pub(super) fn verify_what_is_silent(&self) {
        let verifying = |partition: &Partition| matches!(partition.standing, Standing::Verifying(..));
        let Some(source) = self.sources(verifying).into_iter().next() else { return };
        let last = self.context().inflight.reached(&source).and_then(|reached| reached.last);
        let ends = self.consumer.fetch_watermarks(&source.topic, source.partition, BRIEF_CALL);
        if let (Some((offset, _)), Ok((_, high))) = (last, ends)
            && high <= offset
        {
            self.start_anew(&source, "the log ends below what was read of it");
        }
    }

    /// The assigned partitions that stand so.
    fn sources(&self, stands: impl Fn(&Partition) -> bool) -> Vec<Arc<SourceKey>> {
        let partitions = self.context().partitions();
        partitions.values().filter(|partition| stands(partition)).map(|p| Arc::clone(&p.source)).collect()
    }

    fn give_up(&self, source: &Arc<SourceKey>) {
        self.context().give_up(std::slice::from_ref(source));
        self.not_taken(source);
    }

    pub(super) fn log_begins_at_or_below(&self, source: &SourceKey, offset: i64) -> bool {
        self.consumer.fetch_watermarks(&source.topic, source.partition, CALL).is_ok_and(|(low, _)| low <= offset)
    }

    fn go_on_from(&self, source: &Arc<SourceKey>, offset: i64) {
        let context = self.context();
        if let Some(partition) = context.partitions().get_mut(&(Arc::clone(&source.topic), source.partition)) {
            partition.standing = Standing::Reading;
        }
        context.inflight.at_position(source, offset);
        self.reposition(source, Offset::Offset(offset));
    }

    /// Row 37: the topic was re-created or truncated. Its records are new, and looked up by id all the same.
    pub(super) fn start_anew(&self, source: &Arc<SourceKey>, why: &str) {
        let context = self.context();
        context.give_up(std::slice::from_ref(source));
        let Ok((low, high)) = self.consumer.fetch_watermarks(&source.topic, source.partition, CALL) else {
            self.not_taken(source);
            return;
        };
        tracing::error!(%source, reason = why, low, high, "the topic was re-created or truncated: reading it from its begin");
        context.metrics.sources_started_anew_total.inc();
        self.restart(source, low, high, None);
    }

    fn restart(&self, source: &Arc<SourceKey>, start: i64, log_end: i64, accepted: Option<String>) -> bool {
        let context = self.context();
        let taken =
            context.call(context.store.start_anew(context.process, Arc::clone(source), start, log_end, accepted));
        let Some(taken) = taken else {
            self.not_taken(source);
            return false;
        };
        let offset = {
            let mut partitions = context.partitions();
            let Some(partition) = partitions.get_mut(&(Arc::clone(&source.topic), source.partition)) else {
                return false;
            };
            partition.progress = Progress::default();
            context.start_reading(partition, &taken)
        };
        self.reposition(source, offset);
        true
    }

    fn not_taken(&self, source: &Arc<SourceKey>) {
        if let Some(partition) = self.context().partitions().get_mut(&(Arc::clone(&source.topic), source.partition)) {
            partition.standing = Standing::NotTaken;
        }
    }

    /// Goes on from an offset. A seek is not taken where Kafka stopped serving the partition: it is assigned anew.
    fn reposition(&self, source: &SourceKey, offset: Offset) {
        let (mut from, mut to) = (TopicPartitionList::new(), TopicPartitionList::new());
        from.add_partition(&source.topic, source.partition);
        let moved = to
            .add_partition_offset(&source.topic, source.partition, offset)
            .and_then(|()| self.consumer.incremental_unassign(&from))
            .and_then(|()| self.consumer.incremental_assign(&to));
        if let Err(error) = moved {
            tracing::warn!(%source, %error, "a partition could not be moved to its offset; it is taken again");
            self.give_up(&Arc::new(source.clone()));
        }
    }

    /// A write found its epoch gone, or its records were settled by nobody: a new epoch, from the store's watermark.
    pub(super) fn take_again(&self, source: &Arc<SourceKey>) {
        let assigned = self.context().partitions().contains_key(&(Arc::clone(&source.topic), source.partition));
        if assigned {
            tracing::warn!(%source, "this partition is taken anew");
            self.give_up(source);
        }
    }

    /// Partitions that the store could not answer for: as many as a short while allows, so that polls go on.
    pub(super) fn take_what_waits(&self) {
        let waiting = self.sources(|partition| partition.standing == Standing::NotTaken);
        if waiting.is_empty() {
            return;
        }
        let end = Instant::now() + CALL;
        let mut asked = TopicPartitionList::new();
        for source in &waiting {
            asked.add_partition(&source.topic, source.partition);
        }
        let Some(committed) = committed(self.consumer, &asked) else { return };
        for source in waiting {
            if Instant::now() >= end {
                return;
            }
            let committed = committed.get(&(source.topic.to_string(), source.partition));
            let offset = {
                let mut partitions = self.context().partitions();
                let key = (Arc::clone(&source.topic), source.partition);
                let Some(partition) = partitions.get_mut(&key) else { continue };
                let offset = self.context().take(partition, committed);
                if !partition.reads() {
                    continue;
                }
                offset
            };
            self.reposition(&source, offset);
        }
    }

    /// `offsets accept`: starts every blocked partition where the operator said.
    pub(super) fn accept(&self, from: AcceptFrom) -> Result<usize, String> {
        let blocked = self.sources(|partition| matches!(partition.standing, Standing::Blocked(_)));
        let mut started = 0;
        for source in blocked {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&source.topic, source.partition, CALL)
                .map_err(|error| format!("the ends of {source} can't be read: {error}"))?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&source.topic, source.partition);
            let committed = committed(self.consumer, &asked).ok_or("the group's offsets can't be read")?;
            let (offset, store) =
                committed.get(&(source.topic.to_string(), source.partition)).cloned().unwrap_or((low, String::new()));
            let start = match from {
                AcceptFrom::Earliest => low,
                AcceptFrom::Committed => offset.clamp(low, high),
                AcceptFrom::End => high,
            };
            if self.restart(&source, start, high, Some(store)) {
                tracing::warn!(%source, start, "an operator accepted the offsets of this partition");
                started += 1;
            }
        }
        Ok(started)
    }
}
