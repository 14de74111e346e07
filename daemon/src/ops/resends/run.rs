//! Works on jobs: finds callbacks that match, and opens their rounds, a step at a time. Each step moves the job's cursor in the
//! transaction that opens the rounds, so that no callback is sent again twice, whatever ends in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::stop::Stop;
use crate::model::callback::CallbackId;
use crate::model::lease::Facts;
use crate::model::no_body::NoBody;
use crate::model::settlement::{Rows, Settled};
use crate::ops::{Inner, Ops, OpsError};
use crate::store::ResendStep;
use crate::store::reads::Page;
use crate::store::resends::{ResendCounts, ResendRow, ResendState};

/// Callbacks of one step, and the bytes of their bodies.
const ROWS: usize = 512;
const BYTES: usize = 4 << 20;
/// Bodies of one step that are read from Kafka.
const FROM_KAFKA: usize = 64;
/// No round is opened while so many of the job's team were not tried yet, or of all teams if it names none: they wait for their
/// endpoints.
const UNTRIED: usize = 20_000;
/// While so many records of Kafka are not durable yet, the machine is the limit, and jobs leave room for fresh callbacks.
const FRESH_WAIT: usize = 1_000;
/// So many rounds may be untried then.
const UNTRIED_BESIDE: usize = 256;
/// How long a job belongs to this instance, if it does not say more.
const HOLD: Duration = Duration::from_secs(5);
/// The time between two looks for jobs.
const LOOK: Duration = Duration::from_secs(1);
/// The wait of a job that can do nothing now.
const WAIT: Duration = Duration::from_millis(250);
/// The wait after a step that failed.
const ERROR_WAIT: Duration = Duration::from_secs(2);
/// The wait while Kafka does not answer, or does not know the partition.
const KAFKA_WAIT: Duration = Duration::from_secs(2);

/// The jobs that this instance works on.
#[derive(Default)]
struct Held {
    jobs: Vec<ResendRow>,
    looked_at: Option<Instant>,
    paces: HashMap<String, Pace>,
}

/// How fast a job may go on.
struct Pace {
    /// How many rounds it may open now.
    rounds: f64,
    filled_at: Instant,
    /// It has waited for something else until then.
    not_before: Option<Instant>,
    /// That it can't go on was said in the log.
    is_told: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { rounds: 0.0, filled_at: now, not_before: None, is_told: false }
    }

    /// Fills itself, up to the rounds of half a second.
    fn filled(&mut self, rate: u32, now: Instant) -> usize {
        let rate = f64::from(rate);
        let more = now.duration_since(self.filled_at).as_secs_f64() * rate;
        (self.rounds, self.filled_at) = ((self.rounds + more).min((rate / 2.0).max(1.0)), now);
        // It is never negative, and at most half of the highest rate.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the whole rounds in it")]
        let whole = self.rounds as usize;
        whole
    }
}

/// What one step came to.
enum Stepped {
    /// It did so much, and the job stands elsewhere now.
    Did(ResendCounts),
    /// The job is paused, has ended, or another instance has it.
    Lost,
    /// It can't go on before this time is over.
    Waits(Duration),
}

impl Ops {
    /// Works on jobs until `stop`.
    pub async fn run_resends(self, mut stop: Stop) {
        let mut held = Held::default();
        loop {
            let wait = tokio::select! {
                wait = self.0.work(&mut held) => wait,
                () = self.0.keep_holding() => LOOK,
                () = stop.stopped() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.resend_made.notified() => held.looked_at = None,
                () = stop.stopped() => return,
            }
        }
    }
}

impl Inner {
    /// Holds the jobs of this instance while it works on them. A step that reads from Kafka may take long.
    async fn keep_holding(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.hold().await {
                tracing::debug!(%error, "the jobs that send callbacks again can't be held now");
            }
        }
    }

    async fn hold(&self) -> Result<Vec<ResendRow>, OpsError> {
        let until = self.parts.clock.now().plus(HOLD);
        Ok(self.parts.admin.hold_resends(self.parts.instance, until).await?)
    }

    /// One step of each job. Returns how long to wait before the next ones.
    async fn work(&self, held: &mut Held) -> Duration {
        let now = Instant::now();
        if held.looked_at.is_none_or(|at| now.duration_since(at) >= LOOK) {
            held.jobs = match self.hold().await {
                Ok(jobs) => jobs,
                Err(error) => {
                    tracing::debug!(%error, "the jobs that send callbacks again can't go on now");
                    Vec::new()
                }
            };
            held.looked_at = Some(now);
            held.paces.retain(|id, _| held.jobs.iter().any(|job| job.id == *id));
        }
        let mut wait = LOOK;
        for job in &mut held.jobs {
            let pace = held.paces.entry(job.id.clone()).or_insert_with(|| Pace::new(now));
            match self.paced(job, pace).await {
                Stepped::Did(_) => wait = Duration::ZERO,
                // What became of it is seen at the next look.
                Stepped::Lost => (job.state, held.looked_at) = (ResendState::Paused, None),
                Stepped::Waits(time) => wait = wait.min(time),
            }
        }
        held.jobs.retain(|job| job.state == ResendState::Running);
        wait
    }

    /// One step of a job, if it may go on now. Whatever is wrong with it, the others go on.
    async fn paced(&self, job: &mut ResendRow, pace: &mut Pace) -> Stepped {
        let now = Instant::now();
        if let Some(left) = pace.not_before.and_then(|at| at.checked_duration_since(now)) {
            return Stepped::Waits(left);
        }
        let at_most = job.rate.map_or(ROWS, |rate| pace.filled(rate, now).min(ROWS));
        if at_most == 0 {
            return Stepped::Waits(WAIT);
        }
        match self.step(job, at_most).await {
            Ok(Stepped::Did(counts)) => {
                pace.rounds = (pace.rounds - counts.opened as f64).max(0.0);
                pace.is_told = false;
                Stepped::Did(counts)
            }
            Ok(Stepped::Waits(time)) => {
                pace.not_before = Some(Instant::now() + time);
                Stepped::Waits(time)
            }
            Ok(Stepped::Lost) => Stepped::Lost,
            Err(error) => {
                if !std::mem::replace(&mut pace.is_told, true) {
                    tracing::warn!(job = job.id, %error, "a job that sends callbacks again can't go on; it tries again");
                }
                pace.not_before = Some(Instant::now() + ERROR_WAIT);
                Stepped::Waits(ERROR_WAIT)
            }
        }
    }

    /// Opens the rounds of the next callbacks that match.
    async fn step(&self, job: &mut ResendRow, at_most: usize) -> Result<Stepped, OpsError> {
        let room = room_beside(self.parts.inflight.all_outstanding());
        let untried = self.parts.reads.untried_rounds(job.filter.team.as_deref(), room).await?;
        if untried >= room {
            return Ok(Stepped::Waits(WAIT));
        }
        let page = Page { before: job.cursor, limit: at_most };
        let found = self.parts.reads.callbacks(job.filter.clone(), page).await?;
        let ids = found.docs.iter().map(|(id, _)| *id).collect();
        let kept = self.parts.reads.bodies(ids, BYTES).await?;
        let mut docs = found.docs;
        let all = docs.len();
        docs.truncate(kept.len());
        self.look_again(&mut docs, &kept).await?;
        let bodies = self.bodies(job, &docs, kept).await;
        docs.truncate(bodies.len());
        if docs.is_empty() && all > 0 {
            return Ok(Stepped::Waits(KAFKA_WAIT));
        }
        let last = docs.last().map(|(id, _)| *id);
        let next = if docs.len() < all { last } else { found.next };
        let mut step = ResendStep {
            job: job.id.clone(),
            instance: self.parts.instance,
            from: job.cursor,
            to: next.or(last).or(job.cursor),
            is_last: next.is_none(),
            rounds: Vec::with_capacity(docs.len()),
            left: ResendCounts::default(),
        };
        for ((id, rows), body) in docs.into_iter().zip(bodies) {
            self.decide(job, &mut step, (id, &rows), body).await?;
        }
        let Some(counts) = self.parts.store.resend(step.clone()).await? else { return Ok(Stepped::Lost) };
        job.follow((step.to, step.is_last), counts, self.parts.clock.now());
        if counts.opened > 0 {
            self.parts.waker.wake();
        }
        Ok(Stepped::Did(counts))
    }

    /// Reads the rows of callbacks without a kept body again: they may have arrived since the first look.
    async fn look_again(&self, docs: &mut [(CallbackId, Rows)], kept: &[Option<Bytes>]) -> Result<(), OpsError> {
        for ((id, rows), _) in docs.iter_mut().zip(kept).filter(|(_, body)| body.is_none()) {
            *rows = self.parts.reads.rows(*id).await?;
        }
        Ok(())
    }

    /// The bodies of the first of these callbacks: as many as can be had now. `None` for one that nobody has any more, and for one
    /// that needs none.
    async fn bodies(
        &self,
        job: &ResendRow,
        docs: &[(CallbackId, Rows)],
        kept: Vec<Option<Bytes>>,
    ) -> Vec<Option<Bytes>> {
        let facts = |at: usize| to_send(job, &docs[at].1).map(|row| Arc::clone(&row.facts));
        let lacking = kept.iter().enumerate().filter(|(_, body)| body.is_none());
        let lacking: Vec<(usize, Arc<Facts>)> = lacking.filter_map(|(at, _)| Some((at, facts(at)?))).collect();
        let mut bodies = kept;
        if lacking.is_empty() {
            return bodies;
        }
        let few: Vec<_> = lacking.iter().take(FROM_KAFKA).map(|(_, facts)| Arc::clone(facts)).collect();
        let mut read = self.parts.rereader.read_all(&few).await;
        if read.first().is_none_or(|answer| *answer == Err(NoBody::Silent)) {
            // Perhaps they are too large together, or too far apart.
            read = vec![self.parts.rereader.read(&few[0]).await];
        }
        // Those that were not asked for come with the next step.
        if let Some((at, _)) = lacking.get(read.len()) {
            bodies.truncate(*at);
        }
        for ((at, _), answer) in lacking.iter().zip(read) {
            // A partition that Kafka does not know now may be there soon. If it stays away, the answer becomes another one.
            if matches!(answer, Err(NoBody::Silent | NoBody::Absent)) {
                bodies.truncate(*at);
                break;
            }
            bodies[*at] = answer.ok();
        }
        bodies
    }

    /// Adds a callback to the step, or counts why it is left alone.
    async fn decide(
        &self,
        job: &ResendRow,
        step: &mut ResendStep,
        (id, rows): (CallbackId, &Rows),
        body: Option<Bytes>,
    ) -> Result<(), OpsError> {
        let Some(settled) = to_send(job, rows) else {
            step.left.busy += 1;
            return Ok(());
        };
        let Some(body) = body else {
            step.left.no_body += 1;
            return Ok(());
        };
        match self.destination(&settled.facts, job.form, body, Some(job.created_at)).await {
            Ok(resend) => step.rounds.push((id, resend)),
            Err(OpsError::Conflict(_)) => step.left.refused += 1,
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

/// How many untried rounds may be open beside so many fresh callbacks under way.
const fn room_beside(fresh: usize) -> usize {
    if fresh < FRESH_WAIT { UNTRIED } else { UNTRIED_BESIDE }
}

/// The settled row of a callback that the job sends again: it is not being sent again already, and ended before the job began.
fn to_send<'r>(job: &ResendRow, rows: &'r Rows) -> Option<&'r Settled> {
    rows.settled.as_ref().filter(|row| rows.live().is_none() && row.settled_at < job.created_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_opens_no_more_rounds_than_its_rate_allows() {
        let begin = Instant::now();
        for rate in [1, 3, 100, 5_000] {
            let (mut pace, mut opened) = (Pace::new(begin), 0);
            for step in 1..=1_000 {
                let now = begin + Duration::from_millis(10 * step);
                let may = pace.filled(rate, now).min(ROWS);
                pace.rounds -= may as f64;
                opened += may;
            }
            let most = usize::try_from(rate).unwrap() * 10;
            assert!(opened <= most && opened + most / 100 + 1 >= most, "{rate} a second: {opened} in 10 s");
        }
        let mut pace = Pace::new(begin);
        assert_eq!(pace.filled(100, begin + Duration::from_secs(3_600)), 50, "what was not used is not saved up");
    }
}
