//! Leases for the tests of this room.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock::{Moment, Timestamp};
use crate::model::callback::CallbackId;
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, Lease, Right, Token};
use crate::model::retry::Progress;
use crate::model::team::Mode;

pub(super) fn partition(number: i32) -> Arc<PartitionKey> {
    Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number })
}

/// A lease of the event `event`, read at `offset` of a partition, or claimed where `epoch` is `None`.
pub(super) fn lease(event: u8, record: (&Arc<PartitionKey>, i64), epoch: Option<i64>, token: u64) -> Arc<Lease> {
    let facts = Facts {
        id: CallbackId::from_bytes([event; 16]),
        record: RecordRef { partition: Arc::clone(record.0), offset: record.1, timestamp: 1 },
        team: "team".into(),
        task_id: "task".into(),
        event_id: None,
        event_type: "task.completed".into(),
        queue: QueueKey { team: "team".into(), target: QueueTarget::Default(Mode::Live) },
        mode: Mode::Live,
        content_hash: [event; 32],
        builder: 1,
    };
    Arc::new(Lease {
        facts: Arc::new(facts),
        url: None,
        body: Bytes::new(),
        no_body: None,
        progress: Progress::default(),
        round: 0,
        new_id: false,
        token: Token(token),
        right: epoch.map_or(Right::Row, |epoch| Right::Record { epoch }),
        born_at: Timestamp::from_millis(0),
        born: Moment::now(),
        until: None,
        suspect: None,
    })
}
