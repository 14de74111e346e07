//! An operator moves a partition's watermark: back, so that records are read again, or forward, past records that are then
//! never read.
//!
//! The partition is given up and taken again before its watermark is moved. Nothing raises the watermark then, so the store's
//! one decides, and a crash at any moment leaves the old watermark or the new one.

use super::{Action, Actions, Awaited, Begin, Partition, PartitionState, StartOverCause};
use crate::base::clock::Timestamp;
use crate::base::named::named;
use crate::store::Taken;

named! {
    /// Which way a watermark is moved.
    pub enum ResetWay {
        Rewind = "rewind",
        Skip = "skip",
    }
}

/// Where reading goes on, as an operator says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// At the first record that Kafka still holds.
    Earliest,
    /// After the last record.
    End,
    Offset(i64),
    /// At the first record of this time or later.
    Time(Timestamp),
}

/// A planned move of a watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    pub way: ResetWay,
    pub to: i64,
    /// Ids of records below may have rows already.
    pub log_end: i64,
}

/// What is known of a partition and its log when a reset is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetFacts {
    pub low: i64,
    /// One above the last record.
    pub high: i64,
    pub watermark: i64,
    /// The first record of the time that was asked for, or later. `None` if there is none, or if no time was asked for.
    pub at_time: Option<i64>,
    /// Callbacks of records below may have been pruned. `None` if all records are that old, or if this was not asked for.
    pub kept_from: Option<i64>,
    /// Nothing is read of it at the moment.
    pub is_paused: bool,
}

/// What a reset does to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetPlan {
    pub from: i64,
    pub reset: Reset,
    /// At most so many records are read again, or left out.
    pub records: u64,
    /// So many of them at most are lost (left out), or are sent again because the store may not know them any more.
    pub at_risk: u64,
    /// What was asked for lies below the begin of the log, so it starts there.
    pub is_cut: bool,
}

/// Why a partition is not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReset {
    #[error(
        "its watermark is {watermark}, and {to} lies above it: a rewind never goes forward; to leave records out: callbackd offsets skip"
    )]
    Ahead { watermark: i64, to: i64 },
    #[error(
        "its watermark is {watermark}, and {to} lies below it: a skip never goes back; to read records again: callbackd offsets rewind"
    )]
    Behind { watermark: i64, to: i64 },
    #[error("its watermark is there already, at {0}")]
    There(i64),
    #[error("its log ends at {high}, below {to}")]
    BeyondTheEnd { high: i64, to: i64 },
}

/// Why a partition can't be moved at the moment: a sentence that follows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    #[error("it is being taken: try again in a moment")]
    BeingTaken,
    #[error("its log is being compared with what the store knows of it: try again in a moment")]
    BeingCompared,
    #[error("it waits for callbackd offsets accept")]
    Blocked,
}

/// What a reset would do to a partition.
///
/// # Errors
/// Why it would do nothing.
pub fn plan(way: ResetWay, to: ResetTo, facts: &ResetFacts) -> Result<ResetPlan, NoReset> {
    let ResetFacts { low, high, watermark, at_time, kept_from, .. } = *facts;
    let asked = match to {
        ResetTo::Earliest => low,
        ResetTo::End => high,
        ResetTo::Offset(offset) => offset,
        ResetTo::Time(_) => at_time.unwrap_or(high),
    };
    let to = asked.max(low);
    match way {
        ResetWay::Skip if asked < watermark => return Err(NoReset::Behind { watermark, to: asked }),
        ResetWay::Skip if asked > high => return Err(NoReset::BeyondTheEnd { high, to: asked }),
        ResetWay::Rewind if to > watermark => return Err(NoReset::Ahead { watermark, to }),
        _ if to == watermark => return Err(NoReset::There(watermark)),
        _ => {}
    }
    let at_risk = match way {
        // What lies below the begin of the log is gone already.
        ResetWay::Skip => to.saturating_sub(watermark.max(low)),
        ResetWay::Rewind => kept_from.unwrap_or(high).min(watermark).saturating_sub(to),
    };
    Ok(ResetPlan {
        from: watermark,
        reset: Reset { way, to, log_end: high },
        records: to.abs_diff(watermark),
        at_risk: u64::try_from(at_risk).unwrap_or(0),
        is_cut: asked < low || (low > 0 && at_time == Some(low)),
    })
}

impl Partition {
    /// Whether an operator can move the watermark now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_be_reset(&self) -> Result<(), Unready> {
        match self.state {
            PartitionState::Reading if self.awaits.is_none() => Ok(()),
            PartitionState::Reading | PartitionState::Verifying { .. } => Err(Unready::BeingCompared),
            PartitionState::NotTaken | PartitionState::Revoked => Err(Unready::BeingTaken),
            PartitionState::Blocked(_) => Err(Unready::Blocked),
        }
    }

    pub(super) fn reset(&mut self, reset: Reset) -> Actions {
        if self.may_be_reset().is_err() {
            return Actions::none();
        }
        let actions = self.give_up();
        self.awaits = Some(Awaited::TakenToReset(reset));
        actions.and(Action::Take)
    }

    /// The partition is ours alone, and nothing of it is under way: the watermark stands still.
    pub(super) fn taken_to_reset(&mut self, reset: Reset, taken: &Taken) -> Actions {
        let Reset { way, to, log_end } = reset;
        let from = taken.watermark.upto;
        // What was under way may have raised the watermark since the plan was made.
        let start = match way {
            ResetWay::Rewind => to.min(from),
            ResetWay::Skip => to.max(from),
        };
        if start == from {
            return self.start_reading(taken, Actions::none());
        }
        self.epoch = taken.epoch;
        let log_end = log_end.max(taken.watermark.seen_upto);
        let cause = StartOverCause::Reset { way, from };
        self.ask(Awaited::StartedOver(Begin::Reset { from }), Action::StartOver { start, log_end, cause })
    }
}
