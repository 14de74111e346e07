//! The records of a small topic that is deleted and created again during a run. Each time it gets a batch of other records. Their tasks
//! have numbers above those of all events.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use scale_callback::samples::{self, Kind, Seed, Wanted};

use super::event::{TEAM, task_id};

pub(crate) const TOPIC: &str = "ledger.recreated";
pub(crate) const PARTITIONS: i32 = 2;
/// The first task of these records: more events than that are never produced.
const FIRST: u64 = 1 << 40;
/// The most records of a batch.
const BATCH: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a task is one of these records'.
pub(crate) const fn is_of(task: u64) -> bool {
    task >= FIRST
}

/// What was produced so far.
#[derive(Default)]
pub(crate) struct Recreated {
    batches: AtomicU64,
    /// The tasks that Kafka has acknowledged.
    tasks: Mutex<BTreeSet<u64>>,
}

impl Recreated {
    pub(crate) fn tasks(&self) -> BTreeSet<u64> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Produces the next batch of so many records, evenly over the partitions, for a receiver. It blocks.
    ///
    /// # Errors
    /// Kafka does not take all of them.
    pub(crate) fn produce(&self, servers: &str, records: u64, url: &str) -> anyhow::Result<()> {
        let batch = self.batches.fetch_add(1, Ordering::SeqCst);
        let taken = Arc::new(AtomicU64::new(0));
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", servers).set("enable.idempotence", "true").set("log_level", "0");
        let producer: ThreadedProducer<Taken> =
            client.create_with_context(Taken(Arc::clone(&taken))).context("make a producer")?;
        let first = FIRST + batch * BATCH;
        for (task, partition) in (first..first + records.min(BATCH)).zip((0..PARTITIONS).cycle()) {
            let (key, value) = (task_id(task), value(task, url));
            let record = BaseRecord::to(TOPIC).partition(partition).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).context("produce a record")?;
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
        }
        producer.flush(PATIENCE).context("produce records")?;
        let taken = taken.load(Ordering::SeqCst);
        anyhow::ensure!(taken == records.min(BATCH), "Kafka took {taken} of {records} records for {TOPIC}");
        Ok(())
    }
}

/// Counts what Kafka has taken.
struct Taken(Arc<AtomicU64>);

impl ClientContext for Taken {}

impl ProducerContext for Taken {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A third of the records have ids with a time in them, a third have ids without, and a third have none.
fn value(task: u64, url: &str) -> String {
    let mut random = Seed::new(task);
    let event_id = match task % 3 {
        0 => Some(samples::uuid_v7(1_764_000_000_000 + (task - FIRST), &mut random)),
        1 => Some(format!("again-{task:x}")),
        _ => None,
    };
    let id = task_id(task);
    let wanted = Wanted { kind: Kind::Text, task_id: &id, callback_url: Some(url), is_test: false, items: 1 };
    samples::envelope(TEAM, event_id.as_deref(), &samples::task(&wanted, &mut random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_has_a_task_of_its_own_above_those_of_events() {
        assert!(is_of(FIRST) && !is_of(10_000_000));
        assert_ne!(value(FIRST, "http://127.0.0.1:1/"), value(FIRST + 3, "http://127.0.0.1:1/"));
    }
}
