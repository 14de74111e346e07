//! Reads a partition in a process of its own, the sandbox, whose memory is bounded. A record may end the process that
//! reads it: Kafka's client decompresses whole batches, and a few bytes can become gigabytes. The daemon does this after
//! it has died at the same place again, and until the end of the log is reached. A record that ends the sandbox by
//! itself, twice, is a dead letter (`poison`).

mod child;
mod frame;
mod killer;
mod reader;

pub use child::run as run_child;

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use self::frame::{CutValue, SandboxedRecord, Value};
use super::partition::Place;
use crate::model::event::PartitionKey;

/// The hidden command with which this program runs as a sandbox.
pub const COMMAND: &str = "read-sandboxed";
/// Sandboxes at once. Each may take half of the memory, so the other partitions wait for one that ends.
const AT_ONCE: usize = 1;
/// Records that were read and not taken yet. Each may be as large as an event.
const AHEAD: usize = 4;

/// What sandboxes need to know, and how many may run.
#[derive(Clone)]
pub(super) struct Sandboxes {
    client: BTreeMap<String, String>,
    max_event_bytes: usize,
    /// Offsets of records that are read again: their values come whole though they are larger than events may be by now.
    wanted: Arc<[i64]>,
    places: Arc<Semaphore>,
    /// A death of the daemon is the reason for them, and the log says so.
    after_deaths: bool,
}

/// What a sandbox brings.
#[derive(Debug)]
pub(super) enum Heard {
    Record(Box<SandboxedRecord>),
    /// Nobody can read the record at this offset, if there is one.
    Unread(i64),
    /// The end of the log was reached, or no sandbox can be started: the client goes on from here. One that reads a few records
    /// again begins with the first record that Kafka still has, and brings this only at the end of the log.
    End(Place),
    /// Kafka says that the partition does not exist. Only a sandbox that reads a few records again brings this.
    Absent,
    /// Its reader has ended without a word: a defect, and the partition is taken again. One that reads a few records again can't be
    /// started.
    Lost,
}

/// A partition's sandbox, which waits for its place before it begins. It ends when this value is dropped.
pub(super) struct Sandbox {
    sandboxes: Sandboxes,
    partition: Arc<PartitionKey>,
    from: Place,
    begun: Option<Begun>,
}

struct Begun {
    heard: Receiver<Heard>,
    running: Arc<Running>,
}

/// What the owner of a sandbox and its reader share.
#[derive(Default)]
struct Running {
    is_stopped: AtomicBool,
    child: Mutex<Option<Child>>,
}

impl Sandboxes {
    pub(super) fn new(client: &rdkafka::ClientConfig, max_event_bytes: usize) -> Self {
        let client = client.config_map().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, max_event_bytes, wanted: Arc::default(), places, after_deaths: true }
    }

    /// Sandboxes that read a few records again.
    pub(super) fn to_read_again(client: &rdkafka::ClientConfig, max_event_bytes: usize) -> Self {
        Self { after_deaths: false, ..Self::new(client, max_event_bytes) }
    }

    /// The same, for the records at these offsets.
    pub(super) fn wanting(&self, offsets: Vec<i64>) -> Self {
        Self { wanted: offsets.into(), ..self.clone() }
    }

    /// A sandbox that reads a partition from this place.
    pub(super) fn sandbox(&self, partition: &Arc<PartitionKey>, from: Place) -> Sandbox {
        Sandbox { sandboxes: self.clone(), partition: Arc::clone(partition), from, begun: None }
    }
}

impl Sandbox {
    /// What the sandbox brings next, if it is there. A sandbox that has a place begins with the first call.
    pub(super) fn hear(&mut self) -> Option<Heard> {
        if self.begun.is_none() {
            let place = Arc::clone(&self.sandboxes.places).try_acquire_owned().ok()?;
            match self.begin(place) {
                Ok(begun) => self.begun = Some(begun),
                Err(error) => {
                    tracing::error!(partition = %self.partition, %error, "a sandbox has no thread");
                    return Some(if self.sandboxes.after_deaths { Heard::End(self.from) } else { Heard::Lost });
                }
            }
        }
        match self.begun.as_ref()?.heard.try_recv() {
            Ok(heard) => Some(heard),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Heard::Lost),
        }
    }

    fn begin(&self, place: OwnedSemaphorePermit) -> std::io::Result<Begun> {
        let (sender, heard) = sync_channel(AHEAD);
        let running = Arc::new(Running::default());
        let (sandboxes, partition) = (self.sandboxes.clone(), Arc::clone(&self.partition));
        let reader = reader::Reader::new(sandboxes, partition, Arc::clone(&running), sender);
        let from = self.from;
        let run = move || {
            reader.run(from);
            drop(place);
        };
        std::thread::Builder::new().name("sandbox-reader".to_owned()).spawn(run)?;
        Ok(Begun { heard, running })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.running.is_stopped.store(true, Ordering::Release);
        if let Some(child) = &mut *self.running.child() {
            // It fails only if the process has ended already.
            child.kill().ok();
        }
    }
}

impl Running {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
