//! How the daemon stands, in one answer.

use std::time::{Duration, Instant};

use super::endpoints::{Endpoint, EndpointState};
use super::{Caller, Ops, OpsError};
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::reads::{InstanceRow, Reads};

/// What the store says of its backlog, asked at most once a second, so that scrapes never crowd its readers.
#[derive(Default)]
pub struct Backlog(tokio::sync::Mutex<Option<(Instant, u64, Option<Timestamp>)>>);

/// Failing endpoints that a status names.
const WORST: usize = 5;
/// Runs that are told.
const INSTANCES: usize = 5;
const FRESH: Duration = Duration::from_secs(1);

impl Backlog {
    async fn look(&self, reads: &dyn Reads) -> Result<(u64, Option<Timestamp>), StoreError> {
        let mut kept = self.0.lock().await;
        if let Some((at, pending, oldest)) = *kept
            && at.elapsed() < FRESH
        {
            return Ok((pending, oldest));
        }
        let (pending, oldest) = reads.backlog().await?;
        *kept = Some((Instant::now(), pending, oldest));
        Ok((pending, oldest))
    }
}

/// Whether the daemon can do its work, and why not.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub ready: bool,
    /// One sentence a trouble.
    pub troubles: Vec<String>,
    pub kafka_reachable: bool,
    pub partitions: usize,
    pub store_up: bool,
}

#[derive(Debug, Clone)]
pub struct Status {
    pub version: &'static str,
    pub store_id: String,
    pub readiness: Readiness,
    pub note: Option<String>,
    pub pending: u64,
    pub oldest_due: Option<Timestamp>,
    pub in_flight: i64,
    pub unsettled: i64,
    pub waiting: i64,
    pub delivered: u64,
    pub exhausted: u64,
    pub abandoned: u64,
    pub dead_letters: u64,
    /// `None` while nothing is read: how far behind we are is not known then.
    pub lag: Option<i64>,
    pub recorded_upto: Option<Timestamp>,
    pub worst: Vec<Endpoint>,
    pub instances: Vec<InstanceRow>,
}

impl Ops {
    /// Ready: the store answers, no partition waits for an operator, intake runs, and nothing drains. Kafka's state is told, but
    /// does not count: the API is needed most when Kafka is gone.
    pub fn readiness(&self) -> Readiness {
        let kafka = self.kafka.borrow().clone();
        let store_up = *self.store_up.borrow();
        let mut troubles = Vec::new();
        if !store_up {
            troubles.push("the store does not answer: nothing new begins until it is back".to_owned());
        }
        if let Some(why) = &kafka.blocked {
            troubles.push(format!(
                "{why}; say from where to start: callbackd offsets accept --from earliest|committed|end"
            ));
        }
        troubles.extend(kafka.failed);
        if self.draining.is_on() {
            troubles.push("the daemon is stopping".to_owned());
        }
        Readiness {
            ready: troubles.is_empty(),
            troubles,
            kafka_reachable: kafka.reachable,
            partitions: kafka.assigned,
            store_up,
        }
    }

    /// What keeps it from reading, though it is ready: a sentence, for people.
    fn note(&self) -> Option<String> {
        let kafka = self.kafka.borrow();
        let note = match (kafka.reachable, kafka.assigned) {
            _ if kafka.blocked.is_some() || self.draining.is_on() => return None,
            (false, _) => "Kafka is not reached: no event is read, retries go on; it is tried again and again",
            (true, 0) => {
                "no partition is assigned: the group may wait for a member that died (session.timeout.ms, 45 s unless set), or others have them all"
            }
            _ => return None,
        };
        Some(note.to_owned())
    }

    /// How the daemon stands now; counts are of this run.
    ///
    /// # Errors
    /// The store's.
    pub async fn status(&self) -> Result<Status, OpsError> {
        let (pending, oldest_due) = self.backlog.look(&*self.reads).await?;
        let (lag, recorded_upto) = {
            let kafka = self.kafka.borrow();
            let reads = kafka.reachable && !kafka.partitions.is_empty();
            (reads.then(|| kafka.partitions.iter().map(|read| read.lag).sum()), kafka.recorded_upto())
        };
        let ended = |state: &str| self.metrics.callbacks_total.with_label_values(&[state]).get();
        let dead = crate::model::dead_letter::Unreadable::ALL
            .iter()
            .map(|reason| self.metrics.dead_letters_total.with_label_values(&[reason.name()]).get())
            .sum();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            store_id: self.store_id.clone(),
            readiness: self.readiness(),
            note: self.note(),
            pending,
            oldest_due,
            in_flight: self.metrics.in_flight.get(),
            unsettled: self.metrics.unsettled.get(),
            waiting: self.metrics.waiting.get(),
            delivered: ended("delivered"),
            exhausted: ended("exhausted"),
            abandoned: ended("abandoned"),
            dead_letters: dead,
            lag,
            recorded_upto,
            worst: self.worst_endpoints(WORST).await?,
            instances: self.instances().await?,
        })
    }

    /// The last runs on this store, the newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, OpsError> {
        Ok(self.reads.instances(INSTANCES).await?)
    }

    /// Another level of the logs, until the next restart or reload that names one.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn set_log_level(&self, caller: &Caller, level: &str) -> Result<(), OpsError> {
        crate::base::telemetry::check_level(level).map_err(OpsError::InvalidRequest)?;
        self.admin.note(caller.entry("log.level", "log", level)).await?;
        self.log_level.set(level).map_err(OpsError::InvalidRequest)?;
        Ok(())
    }

    /// The metrics page, with what only the store knows. While it is away, the last known values stand.
    pub async fn metrics_page(&self) -> String {
        let mut something_due = false;
        if let Ok((pending, oldest)) = self.backlog.look(&*self.reads).await {
            self.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
            if let Some(due) = oldest.filter(|due| *due <= self.clock.now()) {
                self.metrics.oldest_due.set(due.millis() as f64 / 1000.0);
                something_due = true;
            }
        }
        self.metrics.partitions.set(i64::try_from(self.kafka.borrow().assigned).unwrap_or(i64::MAX));
        self.metrics.ready.set(i64::from(self.readiness().ready));
        let (active, limited) = self.lanes.lane_states();
        for (state, count) in [(EndpointState::Active, active), (EndpointState::Limited, limited)] {
            self.metrics.endpoints.with_label_values(&[state.name()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.store_up.set(i64::from(*self.store_up.borrow()));
        self.metrics.encode(something_due)
    }
}
