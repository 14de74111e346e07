//! How the daemon stands: status, instances, sources, the level of its logs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::StartName;
use super::{EndpointShape, time};
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
    /// Below it every record is looked up before it is sent.
    pub seen_upto: i64,
    pub epoch: i64,
    pub owned: bool,
    /// Records between the watermark and the log's end, as this daemon saw it last; null for a partition it does not read.
    pub lag: Option<i64>,
    /// Every record up to this time is recorded.
    pub recorded_upto: Option<String>,
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
            moved_at: row.moved_at.to_string(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StatusShape {
    pub version: &'static str,
    pub store_id: String,
    pub ready: bool,
    pub troubles: Vec<String>,
    /// What keeps it from reading, though it is ready.
    pub note: Option<String>,
    pub kafka_reachable: bool,
    pub partitions: usize,
    pub pending: u64,
    pub oldest_due: Option<String>,
    pub in_flight: i64,
    pub unsettled: i64,
    pub waiting: i64,
    /// When this run began; the counts behind it are of this run.
    pub counted_since: Option<String>,
    pub delivered: u64,
    pub exhausted: u64,
    pub abandoned: u64,
    pub dead_letters: u64,
    /// Records between watermarks and the ends of the logs.
    /// Null while nothing is read: how far behind is not known then.
    pub lag: Option<i64>,
    /// Every partition is recorded up to this time.
    pub recorded_upto: Option<String>,
    /// Endpoints that fail, the longest row of failures first; at most five.
    pub worst_endpoints: Vec<EndpointShape>,
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
            counted_since: status.instances.first().map(|run| run.started_at.to_string()),
            delivered: status.delivered,
            exhausted: status.exhausted,
            abandoned: status.abandoned,
            dead_letters: status.dead_letters,
            lag: status.lag,
            recorded_upto: time(status.recorded_upto),
            worst_endpoints: status.worst.iter().map(EndpointShape::new).collect(),
            instances: status.instances.iter().map(InstanceShape::new).collect(),
        }
    }
}

/// A run of the daemon on this store.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceShape {
    pub instance_id: i64,
    pub started_at: String,
    /// Its last write to the store.
    pub seen_at: String,
    /// running, ended, or died: it did not end cleanly.
    pub state: &'static str,
}

impl InstanceShape {
    pub fn new(row: &InstanceRow) -> Self {
        Self {
            instance_id: row.id,
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

/// From where partitions start whose Kafka offsets speak of another store.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// earliest (repeats what the lost store had sent), committed (may lose what it had not), or end.
    #[schema(value_type = StartName)]
    pub from: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StartedShape {
    /// Partitions that started.
    pub started: usize,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevelShape {
    /// A level or filter: info, debug, callbackd=debug,info.
    pub level: String,
}
