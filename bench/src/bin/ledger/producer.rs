//! Produces the numbered events at an even pace: one thread for plain records, one for transactions. Each block of events has one of
//! the two ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::event::{BLOCK, Event, Mix, Receiver, Way, task_id, way_of_block};
use super::produced::{Produced, Said};

pub(crate) const TOPIC: &str = "ledger";
/// How long one call to Kafka may take. After it the call is made again.
const CALL: Duration = Duration::from_secs(5);
/// How long a transaction is tried to be ended.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);

/// What both threads share.
pub(crate) struct Plan {
    pub(crate) mix: Mix,
    pub(crate) duration: Duration,
    pub(crate) servers: String,
    pub(crate) produced: Arc<Produced>,
    pub(crate) url_of: Box<dyn Fn(Receiver) -> String + Send + Sync>,
    /// Nothing more is produced once this is set.
    pub(crate) stop: AtomicBool,
}

impl Plan {
    /// Waits until the event is due. False if production was stopped.
    fn await_turn(&self, begun: Instant, n: u64) -> bool {
        let due = begun + self.duration.mul_f64(n as f64 / self.produced.events() as f64);
        while Instant::now() < due && !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(PAUSE);
        }
        !self.stop.load(Ordering::SeqCst)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "110000")
            .set("queue.buffering.max.messages", "1000000")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0");
        config
    }
}

/// Notes what Kafka says of each plain record, and where each record is.
struct Notes {
    produced: Arc<Produced>,
    /// A record of a transaction is acknowledged by the commit.
    is_transactional: bool,
}

impl ClientContext for Notes {}

impl ProducerContext for Notes {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, n: usize) {
        if let Ok(message) = result {
            self.produced.lies_at(n as u64, (message.partition(), message.offset()));
            if !self.is_transactional {
                self.produced.note(n as u64, Said::Acknowledged);
            }
        }
    }
}

/// Produces the blocks of its ways. Returns when all are produced, or production was stopped.
///
/// # Errors
/// No producer can be made.
pub(crate) fn plain(plan: &Plan) -> anyhow::Result<()> {
    let notes = Notes { produced: Arc::clone(&plan.produced), is_transactional: false };
    let producer: ThreadedProducer<Notes> = plan.client().create_with_context(notes).context("make a producer")?;
    let begun = Instant::now();
    for n in 0..plan.produced.events() {
        if way_of_block(plan.mix, n / BLOCK) != Way::Plain {
            continue;
        }
        if !plan.await_turn(begun, n) {
            break;
        }
        send(plan, &producer, n)?;
    }
    // What is not acknowledged after this stays unknown.
    producer.flush(PATIENCE).ok();
    Ok(())
}

fn send(plan: &Plan, producer: &ThreadedProducer<Notes>, n: u64) -> anyhow::Result<()> {
    let event = Event::of(plan.mix, n);
    let (key, value) = (task_id(event.original()), event.value(&plan.url_of));
    plan.produced.note(n, Said::Unknown);
    let opaque = usize::try_from(n)?;
    let mut record = BaseRecord::with_opaque_to(TOPIC, opaque).partition(event.partition()).key(&key).payload(&value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(PAUSE);
            }
            Err((error, _)) => return Err(error).context("produce an event"),
        }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    Aborted,
    /// Kafka did not say, and this producer can't go on.
    Unknown,
}

/// Produces the blocks that are transactions.
///
/// # Errors
/// No producer can be made.
pub(crate) fn transactions(plan: &Plan) -> anyhow::Result<()> {
    let mut producer = transactional(plan)?;
    let begun = Instant::now();
    for block in 0..plan.produced.events().div_ceil(BLOCK) {
        let way = way_of_block(plan.mix, block);
        let last = ((block + 1) * BLOCK).min(plan.produced.events());
        if way == Way::Plain {
            continue;
        }
        if !plan.await_turn(begun, block * BLOCK) {
            break;
        }
        let events = block * BLOCK..last;
        let end = transaction(plan, &producer, events.clone(), way == Way::Committed);
        let said = match end {
            End::Committed => Said::Acknowledged,
            End::Aborted => Said::Aborted,
            End::Unknown => Said::Unknown,
        };
        events.for_each(|n| plan.produced.note(n, said));
        if end == End::Unknown {
            producer = transactional(plan)?;
        }
    }
    Ok(())
}

fn transactional(plan: &Plan) -> anyhow::Result<ThreadedProducer<Notes>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let notes = Notes { produced: Arc::clone(&plan.produced), is_transactional: true };
        let mut client = plan.client();
        client.set("transactional.id", "ledger").set("transaction.timeout.ms", "100000");
        client.set("message.timeout.ms", "90000");
        let producer: ThreadedProducer<Notes> = client.create_with_context(notes).context("make a producer")?;
        match producer.init_transactions(CALL) {
            Ok(()) => return Ok(producer),
            Err(error) if Instant::now() >= end || plan.stop.load(Ordering::SeqCst) => {
                return Err(error).context("begin a producer of transactions");
            }
            Err(_) => {}
        }
    }
}

fn transaction(plan: &Plan, producer: &ThreadedProducer<Notes>, events: std::ops::Range<u64>, commits: bool) -> End {
    if producer.begin_transaction().is_err() {
        return End::Unknown;
    }
    for n in events {
        if send(plan, producer, n).is_err() {
            return abort(producer);
        }
    }
    // The records must be sent before an abort: the broker refuses an abort that comes before its records.
    let end = Instant::now() + PATIENCE;
    while producer.flush(CALL).is_err() && Instant::now() < end {}
    if !commits {
        return abort(producer);
    }
    loop {
        match producer.commit_transaction(CALL) {
            Ok(()) => return End::Committed,
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => return abort(producer),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {}
            Err(_) => return End::Unknown,
        }
    }
}

fn abort(producer: &ThreadedProducer<Notes>) -> End {
    let end = Instant::now() + PATIENCE;
    loop {
        match producer.abort_transaction(CALL) {
            Ok(()) => return End::Aborted,
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {}
            Err(_) => return End::Unknown,
        }
    }
}
