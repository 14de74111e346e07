//! The records of a run: each number is one record of one partition, and everything about it follows from the number.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::Timestamp;
use callbackd::model::callback::CallbackId;
use callbackd::model::dead_letter::{DeadLetter, Unreadable};
use callbackd::model::endpoint::{CallbackUrl, Origin, QueueKey, QueueTarget};
use callbackd::model::event::{PartitionKey, RecordRef};
use callbackd::model::lease::Facts;
use callbackd::model::team::Mode;
use scale_callback::samples::Seed;

use super::super::START;

pub(super) const PARTITIONS: u64 = 3;

/// The partition of a number, in which its offset is the number divided by [`PARTITIONS`].
pub(super) fn partition(n: u64) -> Arc<PartitionKey> {
    let (topic, number) = [("t", 0), ("t", 1), ("other", 0)][(n % PARTITIONS) as usize];
    Arc::new(PartitionKey { cluster: "c".into(), topic: topic.into(), number })
}

/// Some records can't be read.
pub(super) fn is_letter(n: u64) -> bool {
    n % 9 == 4
}

/// The time with which the id begins: none for some, one that a run does not reach for others, and one that lies ahead of the clock for
/// many.
pub(super) fn time(n: u64) -> Timestamp {
    match n % 12 {
        5 => Timestamp::from_millis(0),
        7 => START.plus(Duration::from_secs(400 * 86_400)),
        _ if n.is_multiple_of(2) => START.minus(Duration::from_secs(10 * 3_600)).plus(Duration::from_secs(n * 8 * 60)),
        _ => START.plus(Duration::from_secs(n * 17 * 60)),
    }
}

fn id(n: u64, kind: u64) -> CallbackId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&time(n).millis().to_be_bytes()[2..]);
    bytes[6..14].copy_from_slice(&Seed::new(2 * n + kind).next_u64().to_be_bytes());
    bytes[14..].copy_from_slice(&(n as u16).to_be_bytes());
    CallbackId::from_bytes(bytes)
}

pub(super) fn callback(n: u64) -> CallbackId {
    id(n, 0)
}

/// The number of a callback.
pub(super) fn number(id: CallbackId) -> u64 {
    let bytes = id.as_bytes();
    u64::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

/// One of the queues in which callbacks wait.
pub(super) fn queue(n: u64) -> QueueKey {
    let origin = |text: &str| QueueTarget::Origin(Origin::parse(text).unwrap());
    let target = match n % 5 {
        0 | 1 => origin("https://a.example"),
        2 => origin("https://b.example:8443"),
        3 => QueueTarget::Default(mode(n)),
        _ => QueueTarget::Nowhere,
    };
    QueueKey { team: team(n), target }
}

fn team(n: u64) -> Arc<str> {
    if (n / 2).is_multiple_of(2) { "team_a".into() } else { "team_b".into() }
}

fn mode(n: u64) -> Mode {
    if n.is_multiple_of(3) { Mode::Test } else { Mode::Live }
}

pub(super) fn url(n: u64) -> Option<CallbackUrl> {
    (n % 5 < 3).then(|| CallbackUrl::from(&*format!("https://a.example/{n}")))
}

pub(super) fn facts(n: u64) -> Arc<Facts> {
    Arc::new(Facts {
        id: callback(n),
        record: record(n),
        team: team(n),
        task_id: format!("task-{n}").into(),
        event_id: n.is_multiple_of(2).then(|| format!("event-{n}").into()),
        event_type: "task.completed".into(),
        queue: queue(n),
        mode: mode(n),
        content_hash: [(n % 251) as u8; 32],
        builder: 1,
    })
}

fn record(n: u64) -> RecordRef {
    RecordRef { partition: partition(n), offset: i64::try_from(n / PARTITIONS).unwrap(), timestamp: time(n).millis() }
}

/// A few bodies are large, so that claims have no room for them.
pub(super) fn body(n: u64) -> Bytes {
    let times = if n.is_multiple_of(7) { 150 } else { n % 5 };
    let text = format!("{{\"task\":\"{n}\"}}").repeat(1 + times as usize);
    Bytes::from(text.into_bytes())
}

/// The values of all letters together are larger than the budget.
pub(super) fn letter(n: u64) -> DeadLetter {
    let bytes = 100 + (n * 1_013 % 7_000) as usize;
    DeadLetter {
        id: id(n, 1),
        record: record(n),
        reason: if n.is_multiple_of(2) { Unreadable::NotJson } else { Unreadable::UnknownTeam },
        detail: "at line 1".to_owned(),
        team: n.is_multiple_of(2).then(|| (*team(n)).into()),
        task_id: n.is_multiple_of(3).then(|| "a\u{0}b".into()),
        event_id: None,
        value: Bytes::from(vec![0xff; bytes]),
        value_len: bytes as u64,
        value_hash: Some([9; 32]),
        headers: n.is_multiple_of(2).then(|| vec![("team-id".to_owned(), b"\xff\0".to_vec())]),
    }
}
