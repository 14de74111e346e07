//! Delivery: the hot path from a lease to its settle.
//!
//! First try, tenth try and restart are one path: a lease goes in, one settle comes out. `attempt` is the only caller
//! of `settle`.

mod build;
mod claim;
mod claim_gate;
mod claimed;
mod clock_watch;
pub mod directory;
pub mod health;
mod key_usage;
mod lease_tokens;
mod pauses;
pub mod resolve;
mod sent_with;
mod shelf;
pub mod sign;
pub mod space_watch;
pub mod suspect;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderValue;

use crate::base::clock::{Clock, Timestamp};
use crate::base::labels::{ParkCause, Timeliness};
use crate::base::metrics::Metrics;
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::faults::{self, Fault};
use crate::flight::settle::Settler;
use crate::flight::{Inflight, parked};
use crate::model::attempt::{Attempt, Outcome, SentWithId};
use crate::model::endpoint::Origin;
use crate::model::lease::Lease;
use crate::model::no_body::NoBody;
use crate::model::retry::{self, Report, RetryPolicy};
use crate::model::settlement::{Change, Settle};
use crate::net::exchange::{Client, Exchange, Outgoing};
use crate::schedule::{PROMPT, Permit, Start};
pub use build::{Config, Delivery, DeliveryTask, Deps, build};
use directory::{Directory, TeamEntry};
use health::Health;
pub use lease_tokens::LeaseTokens;
use resolve::lane_of;
pub use shelf::ReadBodies;
use sign::Content;
use suspect::Launcher;

/// The objective: a first attempt begins within this time after its event.
const OBJECTIVE: Duration = Duration::from_secs(30);

/// What attempts share.
pub struct Engine {
    pub client: Client,
    /// Makes the attempts of suspects.
    launcher: Launcher,
    pub directory: Arc<Directory>,
    pub inflight: Arc<Inflight>,
    pub settler: Settler,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub health: Arc<Health>,
    pub user_agent: HeaderValue,
    /// A first attempt that is older than this gets its row early.
    pub park_after: Duration,
    /// Cuts off the attempts that are still under way when the grace of a stop is over.
    pub cut_off: Stop,
}

/// The result of an attempt, and the policy that decides about the next one.
struct Tried {
    exchange: Exchange,
    retry: RetryPolicy,
    /// The endpoint, if one was found.
    origin: Option<Origin>,
    /// The settings that it was sent with, if it came to that.
    sent_with: Option<SentWithId>,
}

impl Tried {
    /// An attempt that ended before anything was resolved.
    fn unresolved(exchange: Exchange, retry: RetryPolicy) -> Self {
        Self { exchange, retry, origin: None, sent_with: None }
    }

    fn into_attempt(self, begun_at: Timestamp, took: Duration) -> Attempt {
        let exchange = self.exchange;
        Attempt {
            outcome: exchange.outcome,
            sent: exchange.sent,
            status: exchange.status,
            begun_at,
            took,
            peer: exchange.peer,
            redialed: exchange.redialed,
            sent_with: self.sent_with,
            snippet: Bytes::copy_from_slice(&exchange.snippet),
        }
    }
}

impl Engine {
    /// One attempt: resolve, sign, send, decide, settle.
    pub async fn attempt(self: Arc<Self>, start: Start) {
        let Start { lease, mut slot, mut permit } = start;
        if !self.may_begin(&lease).await {
            return;
        }
        let begun = (lease.now(), Instant::now());
        self.observe_begin(&lease, begun.0);
        let end = tokio::time::Instant::now() + self.client.total_deadline();
        let tried = self.supervise(&lease, &mut permit, end).await;
        let took = begun.1.elapsed();
        if tried.exchange.status.is_some() && took < PROMPT {
            slot.was_prompt();
        }
        let report = Report {
            outcome: tried.exchange.outcome,
            hopeless: tried.exchange.hopeless,
            begun_at: begun.0,
            retry_after: tried.exchange.retry_after,
            clock_is_trusted: self.clock.is_trusted(),
        };
        let next = retry::next(&report, &lease.progress, &tried.retry, lease.now(), jitter());
        if let Some(origin) = tried.origin.as_ref().filter(|_| report.outcome.is_of_the_endpoint()) {
            let was_failing = self.health.note(&lease.facts.team, origin, report.outcome, lease.now());
            if !was_failing {
                self.observe_timeliness(&lease, begun.0);
            }
        }
        // The slot at the customer's endpoint is given back before our disk is written.
        drop(slot);
        permit.to_settling();
        let attempt = tried.into_attempt(begun.0, took);
        self.observe_end(&lease, &attempt);
        self.settler.settle(settled(&lease, attempt, next), permit).await;
    }

    /// An attempt begins only under a lease that outlives it, and while its partition is ours.
    async fn may_begin(&self, lease: &Arc<Lease>) -> bool {
        if self.is_paused(lease).await {
            self.give_back(lease).await;
            return false;
        }
        if !lease.has_room_for(self.client.total_deadline()) {
            let change = Change::Release { facts: Arc::clone(&lease.facts), token: lease.token };
            self.settler.submit(change).await;
            return false;
        }
        self.inflight.start(lease)
    }

    async fn is_paused(&self, lease: &Lease) -> bool {
        let pauses = self.directory.pauses();
        if pauses.is_empty() {
            return false;
        }
        let entry = self.directory.team(&lease.facts.team).await.ok().flatten();
        pauses.hold(&lease.facts.team, lane_of(&lease.facts.queue, entry.as_deref()).origin.as_ref())
    }

    /// A callback that may not be sent now waits in the store, so that others behind it can go on.
    async fn give_back(&self, lease: &Arc<Lease>) {
        if lease.epoch().is_none() {
            self.settler.submit(Change::Release { facts: Arc::clone(&lease.facts), token: lease.token }).await;
        } else if self.inflight.park(lease) {
            self.metrics.parked_total.with_label_values(&[ParkCause::Paused.name()]).inc();
            self.settler.submit(parked(lease, None)).await;
        }
    }

    /// Runs the attempt. Gives it its row early when it is slow, and cuts it off when the grace of a stop is over.
    async fn supervise(&self, lease: &Arc<Lease>, permit: &mut Permit, end: tokio::time::Instant) -> Tried {
        let mut cut_off = self.cut_off.clone();
        let mut trying = std::pin::pin!(AssertUnwindSafe(self.try_once(lease, end)).catch_unwind());
        let mut slow = std::pin::pin!(tokio::time::sleep(PROMPT));
        let mut late = std::pin::pin!(tokio::time::sleep(self.park_after));
        let (mut is_slow, mut is_late) = (false, false);
        loop {
            tokio::select! {
                tried = &mut trying => return tried.unwrap_or_else(|_| self.panicked()),
                () = &mut slow, if !is_slow => {
                    is_slow = true;
                    permit.to_slow();
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.park_early(lease).await;
                }
                () = cut_off.stopped() => {
                    let exchange = Exchange::refused(Outcome::Interrupted, "cut off: the daemon was stopped");
                    return Tried::unresolved(Exchange { sent: true, ..exchange }, self.directory.retry());
                }
            }
        }
    }

    async fn try_once(&self, lease: &Lease, end: tokio::time::Instant) -> Tried {
        assert!(!(faults::is_on(Fault::Panic) && lease.facts.task_id.contains("panic")), "a fault switch");
        if faults::is_on(Fault::Hang) && lease.facts.task_id.contains("hang") {
            std::future::pending::<()>().await;
        }
        if let Some(why) = lease.no_body {
            let outcome = if why == NoBody::Changed { Outcome::RecordChanged } else { Outcome::BodyGone };
            let why = format!("its body was not stored, since there was no room, and {why}");
            return Tried::unresolved(Exchange::refused(outcome, why), self.directory.retry());
        }
        let Ok(Some(entry)) = tokio::time::timeout_at(end, self.team(lease)).await else {
            let exchange = Exchange::refused(Outcome::NoKey, "the team can't be read");
            return Tried::unresolved(exchange, self.directory.retry());
        };
        let retry = entry.retry;
        let http = self.client.policy().http;
        let (mut origin, mut sent_with) = (None, None);
        let exchange = match resolve::resolve(lease.url.as_deref(), lease.facts.mode, entry, http) {
            Err(refusal) => Exchange::refused(refusal.outcome, refusal.why),
            Ok(resolved) => {
                origin = Some(resolved.target.origin.clone());
                sent_with = resolved.sent_with();
                if !resolved.target.origin.https && resolved.form == crate::model::team::AuthForm::Key {
                    self.metrics.http_key_exposed_total.inc();
                }
                let content = Content {
                    id: &lease.webhook_id(),
                    at: self.clock.wall(),
                    attempt: lease.progress.attempts.saturating_add(1),
                    body: lease.body.clone(),
                };
                self.send(lease, &sign::sign(resolved, content, &self.user_agent), end).await
            }
        };
        Tried { exchange, retry, origin, sent_with }
    }

    /// The exchange. A suspect's is made in a process of its own.
    async fn send(&self, lease: &Lease, outgoing: &Outgoing, end: tokio::time::Instant) -> Exchange {
        let now = self.clock.wall();
        let Some(suspect) = &lease.suspect else { return self.client.post(outgoing, now, end).await };
        let policy = self.client.policy();
        let exchange = self.launcher.post(outgoing, &policy, now, end, suspect.failed_before).await;
        if exchange.outcome == Outcome::Panicked {
            tracing::error!(
                callback = %lease.id(),
                why = %String::from_utf8_lossy(&exchange.snippet),
                abandoned = exchange.hopeless,
                "an attempt failed in a process of its own; the daemon goes on"
            );
        }
        exchange
    }

    /// The team. While the store is down, it is asked again and again.
    async fn team(&self, lease: &Lease) -> Option<Arc<TeamEntry>> {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match self.directory.team(&lease.facts.team).await {
                Ok(entry) => return entry,
                Err(_) => tokio::time::sleep(pace.next_wait()).await,
            }
        }
    }

    /// The callback gets its row now, under the lease that it began with, so that a receiver that hangs does not keep
    /// the watermark from rising.
    async fn park_early(&self, lease: &Arc<Lease>) {
        if self.inflight.park(lease) {
            self.metrics.parked_total.with_label_values(&[ParkCause::Slow.name()]).inc();
            self.settler.submit(parked(lease, Some(self.client.total_deadline()))).await;
        }
    }

    fn panicked(&self) -> Tried {
        let exchange = Exchange::refused(Outcome::Panicked, "the attempt panicked; the log says where");
        Tried::unresolved(Exchange { sent: true, ..exchange }, self.directory.retry())
    }

    fn observe_begin(&self, lease: &Lease, at: Timestamp) {
        self.metrics.in_flight.inc();
        if lease.is_first_attempt()
            && let Some(made) = lease.facts.record.time()
        {
            let lag = at.since(made);
            self.metrics.first_attempt_lag_seconds.observe(lag.as_secs_f64());
        }
    }

    /// Counts a first attempt for the objective. An endpoint that fails may make its own callbacks wait.
    fn observe_timeliness(&self, lease: &Lease, begun_at: Timestamp) {
        if lease.is_first_attempt()
            && let Some(made) = lease.facts.record.time()
        {
            let result = if begun_at.since(made) <= OBJECTIVE { Timeliness::InTime } else { Timeliness::Late };
            self.metrics.first_attempts_total.with_label_values(&[result.name()]).inc();
        }
    }

    fn observe_end(&self, lease: &Lease, attempt: &Attempt) {
        tracing::debug!(
            callback = %lease.id(),
            team = &*lease.facts.team,
            queue = lease.facts.queue.target.name(),
            outcome = attempt.outcome.name(),
            status = attempt.status,
            "an attempt ended"
        );
        self.metrics.in_flight.dec();
        self.metrics.attempts_total.with_label_values(&[attempt.outcome.name()]).inc();
        self.metrics.attempt_duration_seconds.observe(attempt.took.as_secs_f64());
    }
}

fn settled(lease: &Lease, attempt: Attempt, next: retry::Next) -> Settle {
    Settle {
        facts: Arc::clone(&lease.facts),
        token: lease.token,
        epoch: lease.epoch(),
        url: lease.url.clone(),
        body: lease.body.clone(),
        number: lease.progress.attempts.saturating_add(1),
        attempt,
        next,
    }
}

/// A random number in [0, 1), so that callbacks that failed together are not retried together.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
