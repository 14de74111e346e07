//! Watermarks that an operator moves.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::ResetStateName;
use crate::base::named::Named;
use crate::ops::resets::{PartitionReset, ResetState};

/// From where records are read again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RewindShape {
    /// A time, RFC 3339, or a date, which means its midnight in UTC: the first record of that time or later. earliest: the
    /// first record that Kafka still holds. Or an offset, if one partition is named.
    pub to: String,
    /// Only partitions of this topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// Only this partition. With several topics, it needs topic.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub partition: Option<i32>,
    /// Move nothing, only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Nothing is done if more records are so old that their callbacks may be pruned, which are then sent again. 0 unless given.
    #[serde(default)]
    pub at_most: u64,
}

/// Which records of a partition are left out: those from its watermark up to this place.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipShape {
    /// An offset: the first record that is read. Or a time, RFC 3339, or a date, which means its midnight in UTC: the first
    /// record of that time or later. end: only records that come from now on.
    pub to: String,
    /// The topic of the partition. It can be left out where only one topic is read.
    #[serde(default)]
    pub topic: Option<String>,
    #[schema(minimum = 0)]
    pub partition: i32,
    /// Move nothing, only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Nothing is done if more records would be left out. 0 unless given.
    #[serde(default)]
    pub at_most: u64,
}

/// What was done, or would be done, to each partition.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResetShape {
    pub docs: Vec<PartitionResetShape>,
    pub dry_run: bool,
    /// No partition that was to be moved has failed. Partitions that other instances read do not count.
    pub succeeded: bool,
    /// The sum of the records at risk.
    pub at_risk: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionResetShape {
    pub topic: String,
    pub partition: i32,
    #[schema(inline, value_type = ResetStateName)]
    pub state: &'static str,
    /// The watermark before. Null if another instance reads the partition.
    pub from: Option<i64>,
    /// The watermark after it.
    pub to: Option<i64>,
    /// At most so many records are read again, or left out.
    pub records: u64,
    /// So many of them at most are lost (skip), or may be sent again because their callbacks may be pruned (rewind).
    pub at_risk: u64,
    pub note: Option<String>,
}

impl ResetShape {
    pub fn new(dry_run: bool, partitions: &[PartitionReset]) -> Self {
        Self {
            docs: partitions.iter().map(PartitionResetShape::new).collect(),
            dry_run,
            succeeded: partitions.iter().all(|one| one.state != ResetState::Failed),
            at_risk: partitions.iter().map(|one| one.at_risk).sum(),
        }
    }
}

impl PartitionResetShape {
    fn new(one: &PartitionReset) -> Self {
        Self {
            topic: one.partition.topic.to_string(),
            partition: one.partition.number,
            state: Named::name(one.state),
            from: one.from,
            to: one.to,
            records: one.records,
            at_risk: one.at_risk,
            note: one.note.clone(),
        }
    }
}
