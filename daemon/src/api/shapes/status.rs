//! How the daemon is doing: status, instances, offsets, the level of its logs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::StartName;
use super::{EndpointShape, time};
use crate::ops::clock::ClockAccepted;
use crate::ops::offsets::PartitionReport;
use crate::ops::status::Status;
use crate::store::reads::{InstanceEnd, InstanceRow};

#[derive(Debug, Serialize, ToSchema)]
pub struct OffsetsShape {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
    /// The watermark: every record below it is durable.
    pub watermark: i64,
    /// Below this offset every record is looked up in the store before it is sent, since it may have been sent before.
    pub seen_upto: i64,
    /// Rises whenever an instance takes the partition over.
    pub epoch: i64,
    /// An instance reads the partition now.
    pub owned: bool,
    /// Records between the watermark and the end of the partition, as this instance saw it last. Null for a partition that
    /// it does not read.
    pub lag: Option<i64>,
    /// Every record of this partition up to this time is recorded in the store.
    pub recorded_upto: Option<String>,
    /// A producer's open transaction keeps the rest of the partition from being read, since then.
    pub open_transaction_since: Option<String>,
    /// When the watermark rose last.
    pub moved_at: String,
}

impl OffsetsShape {
    pub fn new(partition: &PartitionReport) -> Self {
        let row = &partition.row;
        Self {
            cluster: row.partition.cluster.to_string(),
            topic: row.partition.topic.to_string(),
            partition: row.partition.number,
            watermark: row.watermark.upto,
            seen_upto: row.watermark.seen_upto,
            epoch: row.epoch,
            owned: row.owner.is_some(),
            lag: partition.lag,
            recorded_upto: time(partition.recorded_upto),
            open_transaction_since: time(partition.held_since),
            moved_at: row.moved_at.to_string(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StatusShape {
    pub version: &'static str,
    pub store_id: String,
    pub ready: bool,
    /// What keeps the daemon from its work, a sentence each.
    pub troubles: Vec<String>,
    /// Why the daemon reads nothing, or ends nothing, though it is ready.
    pub note: Option<String>,
    /// Null while intake is held, because Kafka is not asked then.
    pub kafka_reachable: Option<bool>,
    /// Partitions that are assigned to this instance.
    pub partitions: usize,
    /// Callbacks in the store that have not ended.
    pub pending: u64,
    /// When the first of them became due, or will become due: a time ahead is that of the next retry.
    pub oldest_due: Option<String>,
    /// Attempts under way.
    pub in_flight: i64,
    /// Attempts that began and whose end is not in the store yet: what a crash now could repeat.
    pub unsettled: i64,
    /// Callbacks in memory that wait for a slot.
    pub waiting: i64,
    /// Since when the next four numbers are counted. They outlive a restart.
    pub counted_since: String,
    pub delivered: u64,
    pub exhausted: u64,
    pub abandoned: u64,
    pub dead_letters: u64,
    /// Records between the watermarks and the ends of the partitions. Null while no partition is read, since it can't be
    /// told then.
    pub lag: Option<i64>,
    /// Every record up to this time, in every partition, is recorded in the store.
    pub recorded_upto: Option<String>,
    /// The endpoints whose last attempt failed, at most five. Those that are failing come first, the longest one before the
    /// others.
    pub worst_endpoints: Vec<EndpointShape>,
    /// The last instances on this store, the newest first.
    pub instances: Vec<InstanceShape>,
}

impl StatusShape {
    pub fn new(status: Status) -> Self {
        Self {
            version: status.version,
            store_id: status.store_id,
            ready: status.readiness.ready,
            troubles: status.readiness.troubles,
            note: status.note,
            kafka_reachable: status.readiness.kafka_reachable,
            partitions: status.readiness.partitions,
            pending: status.pending,
            oldest_due: status.oldest_due.map(|due| due.to_string()),
            in_flight: status.in_flight,
            unsettled: status.unsettled,
            waiting: status.waiting,
            counted_since: status.counted_since.to_string(),
            delivered: status.counts.delivered,
            exhausted: status.counts.exhausted,
            abandoned: status.counts.abandoned,
            dead_letters: status.counts.dead_letters,
            lag: status.lag,
            recorded_upto: time(status.recorded_upto),
            worst_endpoints: status.worst.iter().map(EndpointShape::new).collect(),
            instances: status.instances.iter().map(InstanceShape::new).collect(),
        }
    }
}

/// An instance: one run of the daemon on this store, from its start to its end.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceShape {
    /// The id of the run; ids are in the order in which the runs began.
    pub instance_id: String,
    /// instance.name in its configuration.
    pub name: Option<String>,
    /// The name of its machine.
    pub host: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// How many partitions it reads.
    pub partitions: u32,
    pub started_at: String,
    /// Its last sign of life.
    pub seen_at: String,
    /// running, ended, or died, which means that it did not end cleanly.
    pub state: &'static str,
}

impl InstanceShape {
    pub fn new(row: &InstanceRow) -> Self {
        Self {
            instance_id: row.run.clone(),
            name: row.name.clone(),
            host: row.host.clone(),
            version: row.version.clone(),
            partitions: row.partitions,
            started_at: row.started_at.to_string(),
            seen_at: row.seen_at.to_string(),
            state: match row.end {
                None => "running",
                Some(InstanceEnd::Clean) => "ended",
                Some(InstanceEnd::Died) => "died",
            },
        }
    }
}

/// From where the partitions start that wait for an operator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// earliest: from the first record that Kafka still holds, which repeats what the other store had sent. committed: from
    /// where the other store's watermark was, which loses what was still pending there. end: only records that come from now
    /// on.
    #[schema(value_type = StartName)]
    pub from: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StartedShape {
    /// Partitions that started.
    pub started: usize,
}

/// The store's clock after the wall clock was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClockShape {
    /// The store's clock now.
    pub now: String,
    /// By how many seconds it was set back. 0 if it was set forward, or if it was only confirmed.
    pub set_back_seconds: u64,
}

impl ClockShape {
    pub fn new(accepted: &ClockAccepted) -> Self {
        Self { now: accepted.now.to_string(), set_back_seconds: accepted.set_back.as_secs() }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevelShape {
    /// A level or a filter, for example: info, debug, callbackd=debug,info.
    pub level: String,
}
