//! The partitions that are assigned to us, as the consumer's thread sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::callback::Hash;
use crate::model::event::SourceKey;

/// The shortest time between a pause and a resume of one partition: a pause throws away what was prefetched.
const HYSTERESIS: Duration = Duration::from_secs(1);

/// From where partitions start whose offsets an operator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFrom {
    Earliest,
    Committed,
    End,
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The store did not answer at the assignment: it is taken as soon as it does.
    NotTaken,
    /// Kafka's offsets speak of another store: an operator must say where to start.
    Blocked(String),
    /// Read from the last data record below the watermark, which must be the one we know.
    Verifying(i64, Hash),
    Reading,
}

pub struct Partition {
    pub source: Arc<SourceKey>,
    pub epoch: i64,
    pub standing: Standing,
    pub paused: bool,
    paused_at: Option<Instant>,
    /// The offset that was committed last.
    pub committed: i64,
}

impl Partition {
    pub fn new(source: Arc<SourceKey>) -> Self {
        Self { source, epoch: 0, standing: Standing::NotTaken, paused: false, paused_at: None, committed: -1 }
    }

    /// Whether to pause, resume, or leave it; remembers what it answered.
    pub fn turn(&mut self, wanted: bool) -> Option<bool> {
        let settled = self.paused_at.is_none_or(|at| at.elapsed() >= HYSTERESIS);
        if wanted == self.paused || !settled {
            return None;
        }
        self.paused = wanted;
        self.paused_at = Some(Instant::now());
        Some(wanted)
    }

    pub fn reads(&self) -> bool {
        matches!(self.standing, Standing::Reading | Standing::Verifying(..))
    }
}

/// By topic and number, as messages name them.
pub type Partitions = HashMap<(Arc<str>, i32), Partition>;
