//! Moves watermarks: back, so that records are read again, or forward, past records that are then never read.
//!
//! A rewind sends nothing again that the store knows, and a skip loses what it leaves out. So each of them is planned first,
//! and what is at risk must be agreed to before anything is moved.

use std::sync::Arc;
use std::time::Duration;

use super::policy::Operation;
use super::{OpsError, Session};
use crate::base::named::named;
use crate::intake::partition::{NoReset, Reset, ResetPlan, ResetTo, ResetWay, plan};
use crate::intake::{Ask, Look, Looked, Moved};
use crate::model::event::PartitionKey;
use crate::store::reads::{InstanceRow, PartitionOffsets};

/// How long an operator waits for the consumer's thread, together shorter than the command line waits for the API.
const LOOK_PATIENCE: Duration = Duration::from_secs(15);
const MOVE_PATIENCE: Duration = Duration::from_secs(20);
/// The most instances that are looked at for the one that reads a partition.
const INSTANCES: usize = 100;

/// Which partitions are moved, and to where.
#[derive(Debug, Clone)]
pub struct ResetAsk {
    /// One topic, or all.
    pub topic: Option<String>,
    /// One partition, or all.
    pub partition: Option<i32>,
    pub to: ResetTo,
    /// Nothing is moved if more records are at risk: left out, or perhaps sent again.
    pub at_most: u64,
    /// Nothing is moved, only planned.
    pub dry_run: bool,
}

named! {
    /// What became of one partition of a reset.
    pub enum ResetState {
        Planned = "planned",
        Moved = "moved",
        /// There is nothing to do for it.
        Unchanged = "unchanged",
        /// Another instance reads it, or none.
        Elsewhere = "elsewhere",
        Failed = "failed",
    }
}

/// One partition of a reset.
#[derive(Debug, Clone)]
pub struct PartitionReset {
    pub partition: Arc<PartitionKey>,
    pub state: ResetState,
    pub from: Option<i64>,
    pub to: Option<i64>,
    /// At most so many records are read again, or left out.
    pub records: u64,
    /// So many of them at most are left out, or may be sent again.
    pub at_risk: u64,
    /// A sentence about it.
    pub note: Option<String>,
    /// What is to be done.
    plan: Option<Reset>,
    /// It was asked for something that is never done here, so there is more to say than that nothing is left to do.
    is_refused: bool,
}

impl Session {
    /// Moves watermarks back, so that records are read again. What the store knows of them is not sent again.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, `conflict` when there is nothing to do, `too_many_rows` when more records
    /// are at risk than the caller agrees to, `not_ready` when Kafka does not answer, or the store's.
    pub async fn rewind_offsets(&self, ask: ResetAsk) -> Result<Vec<PartitionReset>, OpsError> {
        self.allow(Operation::RewindOffsets)?;
        self.reset_offsets(Operation::RewindOffsets, ResetWay::Rewind, ask).await
    }

    /// Moves the watermark of a partition forward. The records that it passes are never read.
    ///
    /// # Errors
    /// The same errors as [`Session::rewind_offsets`].
    pub async fn skip_offsets(&self, ask: ResetAsk) -> Result<Vec<PartitionReset>, OpsError> {
        self.allow(Operation::SkipOffsets)?;
        self.reset_offsets(Operation::SkipOffsets, ResetWay::Skip, ask).await
    }

    async fn reset_offsets(
        &self,
        operation: Operation,
        way: ResetWay,
        ask: ResetAsk,
    ) -> Result<Vec<PartitionReset>, OpsError> {
        let ask = self.checked_reset(way, ask)?;
        let looked = self.look(way, &ask).await?;
        let elsewhere = self.elsewhere(&ask, &looked).await?;
        let mut found: Vec<_> = looked.into_iter().map(|looked| PartitionReset::planned(way, ask.to, looked)).collect();
        found.extend(elsewhere);
        found.sort_by(|a, b| a.partition.cmp(&b.partition));
        check_found(way, &ask, &found)?;
        if ask.dry_run {
            return Ok(found);
        }
        let resets: Vec<_> = found.iter().filter_map(|one| Some((Arc::clone(&one.partition), one.plan?))).collect();
        // The audit rows are written first, because the request counts even if it fails.
        for one in found.iter().filter(|one| one.plan.is_some()) {
            self.parts().admin.note(self.caller.entry(operation, one.partition.to_string(), one.change(way))).await?;
        }
        let moved = self.inner.ask_consumer(|answer| Ask::Reset(resets, answer), MOVE_PATIENCE).await?;
        for Moved { partition, watermark } in moved {
            if let Some(one) = found.iter_mut().find(|one| one.partition == partition) {
                one.was_moved(watermark);
            }
        }
        Ok(found)
    }

    /// Checks what can be checked before anybody is asked, and names the only topic where it is left out.
    fn checked_reset(&self, way: ResetWay, mut ask: ResetAsk) -> Result<ResetAsk, OpsError> {
        let kafka = self.parts().kafka.borrow();
        if self.parts().draining.is_on() {
            return Err(OpsError::NotReady("the daemon is stopping".to_owned()));
        }
        if kafka.held {
            return Err(OpsError::NotReady("intake is held, so no partition is read here".to_owned()));
        }
        if let Some(twin) = &kafka.twin {
            return Err(OpsError::NotReady(twin.clone()));
        }
        if let Some(topic) = ask.topic.as_ref().filter(|topic| !kafka.topics.contains(topic)) {
            let topics = kafka.topics.join(", ");
            return Err(OpsError::NotFound(format!("the topic {topic:?} is not read here; kafka.topics has {topics}")));
        }
        if let (None, Some(_), [only]) = (&ask.topic, ask.partition, &kafka.topics[..]) {
            ask.topic = Some(only.clone());
        }
        if ask.partition.is_some() && ask.topic.is_none() {
            return Err(OpsError::invalid("there are several topics: say of which one the partition is"));
        }
        match (way, ask.to) {
            (ResetWay::Skip, _) if ask.partition.is_none() => {
                Err(OpsError::invalid("a skip is for one partition: say which one, with topic and partition"))
            }
            (ResetWay::Skip, ResetTo::Earliest) => {
                Err(OpsError::invalid("a skip never goes back; to read records again: callbackd offsets rewind"))
            }
            (ResetWay::Rewind, ResetTo::End) => {
                Err(OpsError::invalid("a rewind never goes forward; to leave records out: callbackd offsets skip"))
            }
            (_, ResetTo::Offset(_)) if ask.partition.is_none() => {
                Err(OpsError::invalid("an offset belongs to one partition: say which one, with topic and partition"))
            }
            (_, ResetTo::Time(at)) if at > self.now() => Err(OpsError::invalid(format!("{at} lies in the future"))),
            _ => Ok(ask),
        }
    }

    /// What the consumer's thread and Kafka know of our partitions.
    async fn look(&self, way: ResetWay, ask: &ResetAsk) -> Result<Vec<Looked>, OpsError> {
        let at = match ask.to {
            ResetTo::Time(at) => Some(at),
            ResetTo::Earliest | ResetTo::End | ResetTo::Offset(_) => None,
        };
        let kept = self.parts().settings.borrow().keep.settled;
        let kept_since = (way == ResetWay::Rewind).then(|| self.now().minus(kept));
        let look = Look { topic: ask.topic.clone(), partition: ask.partition, at, kept_since };
        self.inner.ask_consumer(|answer| Ask::Look(look, answer), LOOK_PATIENCE).await
    }

    /// The partitions that are meant and that this instance does not read.
    async fn elsewhere(&self, ask: &ResetAsk, ours: &[Looked]) -> Result<Vec<PartitionReset>, OpsError> {
        let (topics, cluster) = {
            let kafka = self.parts().kafka.borrow();
            (kafka.topics.clone(), kafka.partitions.first().map(|read| Arc::clone(&read.partition.cluster)))
        };
        let is_meant = |row: &PartitionOffsets| {
            let PartitionKey { cluster: of, topic, number } = &row.partition;
            topics.iter().any(|read| **read == **topic)
                && cluster.as_ref().is_none_or(|cluster| cluster == of)
                && ask.topic.as_ref().is_none_or(|asked| **asked == **topic)
                && ask.partition.is_none_or(|asked| asked == *number)
                && ours.iter().all(|looked| *looked.partition != row.partition)
        };
        let mut rows = self.parts().reads.offsets().await?;
        rows.retain(is_meant);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let instances = self.parts().reads.instances(INSTANCES).await?;
        let own = self.parts().instance.0;
        Ok(rows
            .into_iter()
            .map(|row| {
                let note = who_reads(&row, &instances, own);
                PartitionReset::still(Arc::new(row.partition), ResetState::Elsewhere, note)
            })
            .collect())
    }
}

/// Refuses what would do nothing, and what would do more than was agreed to.
fn check_found(way: ResetWay, ask: &ResetAsk, found: &[PartitionReset]) -> Result<(), OpsError> {
    if found.is_empty() {
        let topic = ask.topic.as_deref().unwrap_or("any topic");
        return Err(OpsError::NotFound(match ask.partition {
            Some(number) => format!("no partition {number} of {topic} is known here"),
            None => format!("no partition of {topic} is known here"),
        }));
    }
    let sentences = || {
        let each = found.iter().map(|one| format!("{}: {}", one.partition, one.note.as_deref().unwrap_or_default()));
        each.collect::<Vec<_>>().join("; ")
    };
    let nothing_planned = found.iter().all(|one| one.plan.is_none());
    let any = |state: ResetState| found.iter().any(|one| one.state == state);
    if nothing_planned && any(ResetState::Failed) {
        return Err(OpsError::NotReady(sentences()));
    }
    let refused = ask.partition.is_some() && found.iter().any(|one| one.is_refused);
    if nothing_planned && (!ask.dry_run || refused) {
        return Err(OpsError::Conflict(sentences()));
    }
    let at_risk: u64 = found.iter().map(|one| one.at_risk).sum();
    if !ask.dry_run && at_risk > ask.at_most {
        return Err(OpsError::TooManyRows(match way {
            ResetWay::Skip => format!(
                "up to {at_risk} records would never be read, and at_most is {}; to leave them out, raise at_most (--yes)",
                ask.at_most
            ),
            ResetWay::Rewind => format!(
                "up to {at_risk} of these records are so old that their callbacks may be pruned (retention.settled) and would be sent again, and at_most is {}; to read them all the same, raise at_most (--yes)",
                ask.at_most
            ),
        }));
    }
    Ok(())
}

impl PartitionReset {
    fn still(partition: Arc<PartitionKey>, state: ResetState, note: String) -> Self {
        let is_refused = state == ResetState::Elsewhere;
        let note = Some(note);
        Self { partition, state, from: None, to: None, records: 0, at_risk: 0, note, plan: None, is_refused }
    }

    fn planned(way: ResetWay, to: ResetTo, Looked { partition, facts }: Looked) -> Self {
        let facts = match facts {
            Ok(facts) => facts,
            Err(why) => return Self::still(partition, ResetState::Failed, why),
        };
        let ResetPlan { from, reset, records, at_risk, is_cut } = match plan(way, to, &facts) {
            Ok(plan) => plan,
            Err(why) => {
                let still = Self::still(partition, ResetState::Unchanged, why.to_string());
                let is_refused = !matches!(why, NoReset::There(_));
                return Self { from: Some(facts.watermark), to: Some(facts.watermark), is_refused, ..still };
            }
        };
        let notes = [
            is_cut.then(|| format!("its log begins at {}: Kafka has nothing older", facts.low)),
            facts
                .is_paused
                .then(|| "nothing is read of it at the moment: it goes on there as soon as there is room".to_owned()),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        Self {
            partition,
            state: ResetState::Planned,
            from: Some(from),
            to: Some(reset.to),
            records,
            at_risk,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            plan: Some(reset),
            is_refused: false,
        }
    }

    /// What is done, for the audit.
    fn change(&self, way: ResetWay) -> String {
        let (from, to) = (self.from.unwrap_or_default(), self.to.unwrap_or_default());
        let what = match way {
            ResetWay::Rewind => "are read again",
            ResetWay::Skip => "are never read",
        };
        format!("from {from} to {to}: at most {} records {what}", self.records)
    }

    fn was_moved(&mut self, watermark: Result<i64, String>) {
        match watermark {
            Ok(watermark) => (self.state, self.to) = (ResetState::Moved, Some(watermark)),
            Err(why) => (self.state, self.note) = (ResetState::Failed, Some(why)),
        }
    }
}

/// Which instance reads a partition that this one does not read: a sentence that follows its name.
fn who_reads(row: &PartitionOffsets, instances: &[InstanceRow], own: i64) -> String {
    let lives =
        |instance: &&InstanceRow| Some(instance.id) == row.owner && instance.end.is_none() && instance.id != own;
    let Some(owner) = instances.iter().find(lives) else {
        return "no instance reads it at the moment: try again in a moment".to_owned();
    };
    let names: Vec<&str> = [&owner.name, &owner.host].into_iter().filter_map(|name| name.as_deref()).collect();
    format!("the instance {} ({}) reads it: give the command to that one", owner.run, names.join(" on "))
}

#[cfg(test)]
mod tests;
