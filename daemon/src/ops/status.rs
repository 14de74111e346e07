//! The state of the daemon, in one answer.

use std::time::{Duration, Instant};

use super::endpoints::{Endpoint, EndpointState};
use super::policy::Operation;
use super::{Inner, Ops, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::model::pause::PauseScope;
use crate::store::StoreError;
use crate::store::reads::{Counts, InstanceRow, Reads};

/// What the store says of its backlog. It is asked at most once a second, so that scrapes never crowd its readers.
#[derive(Default)]
pub(super) struct Backlog(tokio::sync::Mutex<Option<(Instant, u64, Option<Timestamp>)>>);

/// The most failing endpoints that a status names.
const WORST: usize = 5;
/// The endpoints of which a metric tells since when they fail.
const WORST_MEASURED: usize = 20;
/// The most instances that a status names.
const INSTANCES: usize = 5;
/// The most instances in their list.
const INSTANCES_LISTED: usize = 100;
const FRESH: Duration = Duration::from_secs(1);
/// How long a scrape waits for the store. After that it shows the values of the last scrape.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(1);

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
    /// One sentence for each reason why it can't do its work.
    pub troubles: Vec<String>,
    /// `None` while intake is held, because Kafka is not asked then.
    pub kafka_reachable: Option<bool>,
    /// The daemon was started without intake.
    pub intake_held: bool,
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
    /// What has ended and was buried since then.
    pub counts: Counts,
    pub counted_since: Timestamp,
    /// `None` while no partition is read, since the lag is not known then.
    pub lag: Option<i64>,
    pub recorded_upto: Option<Timestamp>,
    pub worst: Vec<Endpoint>,
    pub instances: Vec<InstanceRow>,
}

impl Ops {
    /// The daemon is ready when the store answers, no partition waits for an operator, intake runs and is not held,
    /// and it is not stopping. Kafka's state is shown but does not count, since the API is needed most when Kafka is down.
    pub fn readiness(&self) -> Readiness {
        self.0.readiness()
    }

    /// Why the daemon reads nothing, or ends nothing, though it is ready: a sentence for people.
    pub fn note(&self) -> Option<String> {
        self.0.note()
    }

    /// The metrics page, with what only the store knows. While the store is down or busy with other questions, the last
    /// known values are shown.
    pub async fn metrics_page(&self) -> String {
        let Inner { parts, backlog, .. } = &*self.0;
        let metrics = &parts.metrics;
        let mut something_due = false;
        let looked = tokio::time::timeout(SCRAPE_PATIENCE, backlog.look(&*parts.reads)).await;
        if let Ok(Ok((pending, oldest))) = looked {
            metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
            if let Some(due) = oldest.filter(|due| *due <= parts.clock.now()) {
                metrics.oldest_due_timestamp_seconds.set(due.millis() as f64 / 1000.0);
                something_due = true;
            }
        }
        metrics.partitions.set(i64::try_from(parts.kafka.borrow().assigned).unwrap_or(i64::MAX));
        metrics.ready.set(i64::from(self.readiness().ready));
        let (active, limited) = parts.lanes.lane_states();
        let failing = parts.health.failing();
        let pauses = parts.directory.pauses();
        let paused = pauses.list().iter().filter(|pause| pause.scope.origin().is_some()).count();
        for (state, count) in [
            (EndpointState::Active, active),
            (EndpointState::Limited, limited),
            (EndpointState::Failing, failing),
            (EndpointState::Paused, paused),
        ] {
            metrics.endpoints.with_label_values(&[state.name()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        // At most so many series, and none for an endpoint that does not fail.
        metrics.endpoint_failing_seconds.reset();
        let now = parts.clock.now();
        for endpoint in parts.health.worst(WORST_MEASURED).iter().filter(|endpoint| endpoint.recent.is_failing()) {
            let since = endpoint.recent.failing_since.unwrap_or(now);
            let series = metrics.endpoint_failing_seconds.with_label_values(&[&endpoint.origin.to_string()]);
            // Several teams may share an endpoint.
            series.set(series.get().max(now.since(since).as_secs_f64()));
        }
        metrics.store_up.set(i64::from(self.store_up()));
        metrics.encode(something_due)
    }
}

impl Session {
    /// The present state of the daemon.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn status(&self) -> Result<Status, OpsError> {
        self.allow(Operation::Status)?;
        let Inner { parts, backlog, .. } = &*self.inner;
        let metrics = &parts.metrics;
        let (pending, oldest_due) = backlog.look(&*parts.reads).await?;
        let (lag, recorded_upto) = {
            let kafka = parts.kafka.borrow();
            let reads = kafka.reachable && !kafka.partitions.is_empty();
            (reads.then(|| kafka.partitions.iter().map(|read| read.lag).sum()), kafka.recorded_upto())
        };
        let (counts, counted_since) = parts.reads.counts().await?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            store_id: parts.store_id.clone(),
            readiness: self.inner.readiness(),
            note: self.inner.note(),
            pending,
            oldest_due,
            in_flight: metrics.in_flight.get(),
            unsettled: metrics.unsettled.get(),
            waiting: metrics.waiting.get(),
            counts,
            counted_since,
            lag,
            recorded_upto,
            worst: self.inner.worst_endpoints(WORST).await?,
            instances: parts.reads.instances(INSTANCES).await?,
        })
    }

    /// The last instances on this store, the newest first.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, OpsError> {
        self.allow(Operation::Instances)?;
        Ok(self.parts().reads.instances(INSTANCES_LISTED).await?)
    }

    /// The level of the logs.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn log_level(&self) -> Result<String, OpsError> {
        self.allow(Operation::LogLevel)?;
        Ok(self.parts().log_level.current())
    }

    /// Sets the level of the logs, until the next restart, or a reload that names another one. Answers with the level
    /// that holds now.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, or the store's.
    pub async fn set_log_level(&self, level: &str) -> Result<String, OpsError> {
        self.allow(Operation::SetLogLevel)?;
        crate::base::telemetry::check_level(level).map_err(OpsError::InvalidRequest)?;
        self.parts().admin.note(self.caller.entry(Operation::SetLogLevel, "log", level)).await?;
        self.parts().log_level.set(level).map_err(OpsError::InvalidRequest)?;
        Ok(self.parts().log_level.current())
    }
}

impl Inner {
    fn readiness(&self) -> Readiness {
        let kafka = self.parts.kafka.borrow().clone();
        let store_up = *self.parts.store_up.borrow();
        let mut troubles = Vec::new();
        if !store_up {
            troubles.push("the store does not answer: nothing new begins until it is back".to_owned());
        }
        troubles.extend(kafka.twin.clone());
        if let Some(why) = &kafka.blocked {
            troubles.push(format!(
                "{why}; say from where to start: callbackd offsets accept --from earliest|committed|end"
            ));
        }
        let clock = self.parts.clock.state();
        troubles.extend(super::clock::trouble(clock));
        troubles.extend(self.parts.supervisor.failure().map(|failure| failure.to_string()));
        if kafka.held {
            let trouble = "intake is held: Kafka is not asked and no event is read; create the teams, then restart callbackd without --hold-intake";
            troubles.push(trouble.to_owned());
        }
        if self.parts.draining.is_on() {
            troubles.push("the daemon is stopping".to_owned());
        }
        Readiness {
            ready: troubles.is_empty(),
            troubles,
            kafka_reachable: (!kafka.held).then_some(kafka.reachable),
            intake_held: kafka.held,
            partitions: kafka.assigned,
            store_up,
        }
    }

    fn note(&self) -> Option<String> {
        let pauses = self.parts.directory.pauses();
        if let Some(pause) = pauses.of(&PauseScope::All) {
            return Some(format!("all deliveries are paused since {} by {}", pause.since, pause.paused_by));
        }
        if let Some(short) = self.parts.space_short.borrow().clone() {
            return Some(short);
        }
        let kafka = self.parts.kafka.borrow();
        if let Some(held) = kafka.held_by_transaction() {
            return Some(held);
        }
        if kafka.blocked.is_some() || kafka.twin.is_some() || kafka.held || self.parts.draining.is_on() {
            return None;
        }
        if let Some(unread) = kafka.unread_topics().filter(|_| kafka.reachable) {
            return Some(unread);
        }
        let note = match (kafka.reachable, kafka.assigned) {
            (false, _) => "Kafka can't be reached: no event is read until it can, and retries go on",
            (true, 0) => {
                "no partition is assigned to this instance: the consumer group may wait for a member that died (session.timeout.ms, 45 s unless set), or other members have all partitions"
            }
            _ => return super::clock::sentence(self.parts.clock.state()).filter(|_| self.readiness().ready),
        };
        Some(note.to_owned())
    }
}
