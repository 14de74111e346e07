//! The end of a daemon, in order: readiness off, intake off, attempts in flight end within the grace, leases are given
//! back, the last batch is written, the last offsets are committed, and the store records the end.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::time::Instant;

use super::App;
use crate::base::stop::Switch;
use crate::flight::Inflight;
use crate::intake::Stops;
use crate::model::settlement::Change;
use crate::schedule::Lanes;

/// How long a stop waits for a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the Kafka client may take to leave its group.
const LEAVE: Duration = Duration::from_secs(10);

/// One switch for each phase of the drain.
pub(super) struct Switches {
    pub(super) draining: Switch,
    pub(super) cut_off: Switch,
    pub(super) stop_work: Switch,
    pub(super) stop_settling: Switch,
    pub(super) stop_consumer: Switch,
    pub(super) stop_servers: Switch,
}

impl Switches {
    pub(super) fn new() -> Self {
        Self {
            draining: Switch::new(),
            cut_off: Switch::new(),
            stop_work: Switch::new(),
            stop_settling: Switch::new(),
            stop_consumer: Switch::new(),
            stop_servers: Switch::new(),
        }
    }

    pub(super) fn for_intake(&self) -> Stops {
        Stops { quiet: self.draining.stop(), admission: self.stop_work.stop(), consumer: self.stop_consumer.stop() }
    }
}

impl App {
    /// Gives everything up at once and records nothing: the store does not know this instance any more. What was under way is
    /// repeated, and each repeat has its id.
    pub async fn abandon(self) {
        let switches = &self.switches;
        for switch in [&switches.draining, &switches.stop_work, &switches.cut_off, &switches.stop_settling] {
            switch.flip();
        }
        drop(self.delivery.lanes.close());
        switches.stop_consumer.flip();
        if !self.intake.consumer_ended(LEAVE).await {
            tracing::warn!("the Kafka client did not close in time");
        }
        switches.stop_servers.flip();
        for task in self.work.into_iter().chain([self.pulse, self.publishing]).chain(self.servers) {
            // One that does not end in time has nothing left that it could write.
            tokio::time::timeout(LEAVE, task).await.ok();
        }
    }

    /// Drains and ends. Returns how many attempts were cut off.
    ///
    /// # Errors
    /// The store's, if it broke during the drain.
    pub async fn stop(mut self) -> anyhow::Result<usize> {
        // From here on the daemon is not ready, and no record and no due row begins an attempt.
        self.switches.draining.flip();
        self.switches.stop_work.flip();
        self.end_work().await;
        self.give_back_what_waits().await;
        let cut_off = self.end_attempts().await;
        self.switches.stop_settling.flip();
        let settled = tokio::time::timeout(STORE_PATIENCE, self.settling).await;
        // The watermark does not move any more: offsets are committed for the last time, and the group is left.
        self.switches.stop_consumer.flip();
        if !self.intake.consumer_ended(LEAVE).await {
            tracing::warn!("the Kafka client did not close in time");
        }
        // It has a limit of time of its own.
        tokio::time::timeout(LEAVE, self.publishing).await.ok();
        self.switches.stop_servers.flip();
        for server in self.servers {
            // A server that panicked has logged its place.
            tokio::time::timeout(LEAVE, server).await.ok();
        }
        let noted = tokio::time::timeout(STORE_PATIENCE, self.delivery.health.write(&*self.store)).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::debug!("the last news of endpoints were not written");
        }
        let ended = tokio::time::timeout(STORE_PATIENCE, self.store.end(self.instance)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the store did not record the end of this instance");
        }
        // A socket file that remains is replaced at the next start.
        std::fs::remove_file(&self.api_socket).ok();
        tracing::info!(cut_off, "callbackd ended");
        let settled = settled.map_err(|_| {
            anyhow!("the store did not answer: the next start repeats the attempts that were in flight")
        })?;
        settled.context("settle what was in flight")?.context("settle what was in flight")?;
        Ok(cut_off)
    }

    /// Waits for the tasks that bring new work, all of them together at most for the grace.
    async fn end_work(&mut self) {
        let end = Instant::now() + self.grace;
        for task in &mut self.work {
            if !task.is_finished() {
                // A task that does not end in time ends with the process.
                tokio::time::timeout_at(end, task).await.ok();
            }
        }
        self.intake.admission_ended(end.saturating_duration_since(Instant::now())).await;
    }

    /// Releases or forgets the callbacks that wait in lanes. Their row or record brings them back.
    async fn give_back_what_waits(&self) {
        for lease in self.delivery.lanes.close() {
            if lease.epoch().is_none() {
                let change = Change::Release { facts: lease.facts.clone(), token: lease.token };
                self.flight.settler.submit(change).await;
            } else {
                // Copies that waited for the callback are read again, too.
                drop(self.flight.inflight.withdraw(&lease));
            }
        }
    }

    /// Waits until every attempt is settled, and cuts off attempts that are under way when the grace is over.
    async fn end_attempts(&self) -> usize {
        let lanes: &Lanes = &self.delivery.lanes;
        let inflight: &Inflight = &self.flight.inflight;
        if tokio::time::timeout(self.grace, lanes.settled()).await.is_ok() {
            return 0;
        }
        let late = inflight.started();
        for lease in &late {
            tracing::warn!(callback = %lease.id(), "the attempt was cut off because it did not end within shutdown.grace");
        }
        self.switches.cut_off.flip();
        // An attempt that the store does not record in this time is found at the next start.
        tokio::time::timeout(STORE_PATIENCE, lanes.settled()).await.ok();
        late.len()
    }
}
