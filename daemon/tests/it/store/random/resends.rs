//! What operators do: they retry, cancel and send again, one by one, by jobs and by queues, and dead letters too.

use std::sync::Arc;

use callbackd::model::amendment::{Amendment, Resend};
use callbackd::model::callback::CallbackId;
use callbackd::model::lease::Facts;
use callbackd::model::retry::Reason;
use callbackd::model::settlement::Rows;
use callbackd::store::admin::{AdminStore, AuditEntry};
use callbackd::store::reads::{CallbackFilter, Reads};
use callbackd::store::resends::{ResendCounts, ResendForm, ResendRow, ResendState};
use callbackd::store::{EngineStore, LetterResend, ResendStep};

use super::ids;
use super::world::World;

impl World {
    fn some(&mut self, at_most: u64) -> Vec<u64> {
        let mut some: Vec<u64> = (0..1 + self.below(at_most)).map(|_| self.record()).collect();
        some.sort_unstable();
        some.dedup();
        some
    }

    fn resend(&mut self, n: u64) -> Resend {
        let ended_before = self.chance(30).then(|| self.now());
        let queue = ids::queue(self.below(10));
        let queue = callbackd::model::endpoint::QueueKey { team: ids::facts(n).team.clone(), ..queue };
        Resend { ended_before, new_id: self.chance(50), url: ids::url(n), queue, body: ids::body(n) }
    }

    pub(super) async fn amends(&mut self) {
        let seat = self.seat();
        let numbers = self.some(4);
        let mut changes: Vec<(CallbackId, Amendment)> = Vec::new();
        for n in &numbers {
            let amendment = match self.below(4) {
                0 => Amendment::RetryNow,
                1 => Amendment::Cancel(self.one_of(&[Reason::Cancelled, Reason::TeamDeleted])),
                _ => Amendment::Resend(Box::new(self.resend(*n))),
            };
            changes.push((ids::callback(*n), amendment));
        }
        let what = |amendment: &Amendment| match amendment {
            Amendment::RetryNow => "retry".to_owned(),
            Amendment::Cancel(reason) => format!("cancel: {}", reason.name()),
            Amendment::Resend(resend) => format!("resend to {}", resend.queue.target.name()),
        };
        let told: Vec<_> = changes.iter().map(|(id, one)| format!("{} {}", ids::number(*id), what(one))).collect();
        self.log.note(format!("{seat} amends {}", told.join(", ")));
        let amended = self.seats[seat].engine.amend(changes.clone()).await.unwrap();
        assert!(!amended.is_empty(), "{}: nothing was amended", self.name);
        // Those that were not done together with the first ones are asked for again, by whoever asks.
        changes.truncate(amended.len());
        let expected = self.model.amend(changes).await.unwrap();
        self.same(&amended, &expected, "amendments");
        self.compare_these(&numbers.into_iter().collect()).await;
    }

    pub(super) async fn retries_a_queue(&mut self) {
        let seat = self.seat();
        let queue = ids::queue(self.below(10));
        let mut later = Vec::new();
        for n in &self.numbers {
            let Rows { pending: Some(row), .. } = self.model.rows(ids::callback(*n)).await.unwrap() else { continue };
            if row.facts.queue == queue && row.token.is_none() && row.due > self.now() {
                later.push(row.due);
            }
        }
        later.sort_unstable();
        // Which of those that are due at the same time come first is open, so all of them come.
        let mut at_most = 1 + self.below(6) as usize;
        while at_most < later.len() && later[at_most - 1] == later[at_most] {
            at_most += 1;
        }
        self.log.note(format!("{seat} retries {at_most} of {} {}", queue.team, queue.target.name()));
        let found = self.seats[seat].engine.retry_queue(queue.clone(), at_most).await.unwrap();
        self.same(&found, &self.model.retry_queue(queue, at_most).await.unwrap(), "callbacks that were retried");
        let numbers = self.numbers.clone();
        self.compare_these(&numbers).await;
    }

    /// A job is made, held, changed, or makes a step.
    pub(super) async fn works_on_a_job(&mut self) {
        let Some(job) = self.job.clone() else { return self.creates_a_job().await };
        match self.below(6) {
            0 => self.holds_jobs().await,
            1 => self.changes_the_job(&job).await,
            _ => self.makes_a_step(&job).await,
        }
        let seat = self.seat();
        let found = self.seats[seat].stores.admin.resend(&job).await.unwrap();
        let expected = AdminStore::resend(&*self.model, &job).await.unwrap();
        self.same(&found, &expected, "the job");
        if expected.is_some_and(|row| row.state.has_ended()) {
            self.job = None;
        }
    }

    async fn creates_a_job(&mut self) {
        self.jobs += 1;
        let row = ResendRow {
            id: format!("rs_{:06}", self.jobs),
            created_at: self.now(),
            created_by: "ann".to_owned(),
            filter: CallbackFilter::default(),
            endpoint: None,
            form: ResendForm::default(),
            rate: None,
            state: ResendState::Running,
            matched: 4,
            cursor: None,
            counts: ResendCounts::default(),
            changed_at: self.now(),
        };
        let seat = self.seat();
        self.log.note(format!("{seat} creates {}", row.id));
        let made = self.seats[seat].stores.admin.create_resend(row.clone(), None, entry()).await.unwrap();
        let expected = self.model.create_resend(row.clone(), None, entry()).await.unwrap();
        self.same(&made, &expected, "a job that was made");
        self.job = Some(row.id);
        self.holds_jobs().await;
    }

    async fn holds_jobs(&mut self) {
        let seat = self.seat();
        self.log.note(format!("{seat} holds jobs"));
        let until = self.now().plus(std::time::Duration::from_secs(5));
        let one = &self.seats[seat];
        let found = one.stores.admin.hold_resends(one.instance, until).await.unwrap();
        let expected = self.model.hold_resends(one.twin, until).await.unwrap();
        self.same(&found, &expected, "jobs that are held");
    }

    async fn changes_the_job(&mut self, job: &str) {
        let state =
            self.one_of(&[ResendState::Running, ResendState::Paused, ResendState::Running, ResendState::Cancelled]);
        self.log.note(format!("{job} is {}", state.name()));
        let change = move |row: ResendRow| Ok::<_, ()>(ResendRow { state, ..row });
        let (seat, model) = (self.seat(), Arc::clone(&self.model) as Arc<dyn AdminStore>);
        let found = self.seats[seat].stores.admin.change_resend(job, entry(), change).await.unwrap();
        self.same(&found, &model.change_resend(job, entry(), change).await.unwrap(), "a job");
    }

    async fn makes_a_step(&mut self, job: &str) {
        let seat = self.seat();
        let row = AdminStore::resend(&*self.model, job).await.unwrap().unwrap();
        let numbers = self.some(5);
        let mut rounds = Vec::new();
        for n in &numbers {
            rounds.push((ids::callback(*n), self.resend(*n)));
        }
        let from = if self.chance(90) { row.cursor } else { Some(ids::callback(1)) };
        let left = ResendCounts { no_body: self.below(3), refused: self.below(2), ..ResendCounts::default() };
        let to = rounds.last().map(|(id, _)| *id);
        let is_last = self.chance(10);
        let one = &self.seats[seat];
        let step = ResendStep { job: job.to_owned(), instance: one.instance, from, to, is_last, rounds, left };
        let twin = ResendStep { instance: one.twin, ..step.clone() };
        let found = one.engine.resend(step).await.unwrap();
        let expected = EngineStore::resend(&*self.model, twin).await.unwrap();
        self.log.note(format!("{seat} makes a step of {job}, last: {is_last}: {numbers:?}: {expected:?}"));
        self.same(&found, &expected, "a step of a job");
        self.compare_these(&numbers.into_iter().collect()).await;
    }

    /// A dead letter becomes a callback: mostly that of its record, sometimes one that is there with the same or another content.
    pub(super) async fn resends_a_letter(&mut self) {
        let seat = self.seat();
        let n = self.a_letter();
        let of = if self.chance(70) { n } else { self.record() };
        let content_hash = if self.chance(90) { ids::facts(of).content_hash } else { [252; 32] };
        let facts = Arc::new(Facts { content_hash, ..(*ids::facts(of)).clone() });
        let resend = LetterResend { letter: ids::letter(n).id, facts, url: ids::url(of), body: ids::body(of) };
        self.log.note(format!("{seat} resends the letter {n} as {of}, content {}", content_hash[0]));
        let found = self.seats[seat].engine.resend_letter(resend.clone()).await.unwrap();
        self.same(&found, &self.model.resend_letter(resend).await.unwrap(), "a dead letter that is sent again");
        self.compare_these(&[n, of].into()).await;
    }

    pub(super) async fn discards_a_letter(&mut self) {
        let seat = self.seat();
        let n = self.a_letter();
        let letter = ids::letter(n).id;
        self.log.note(format!("{seat} discards the letter {n}"));
        let found = self.seats[seat].engine.discard_letter(letter).await.unwrap();
        self.same(&found, &self.model.discard_letter(letter).await.unwrap(), "a dead letter that is set aside");
        self.compare_these(&[n].into()).await;
    }

    fn a_letter(&mut self) -> u64 {
        let n = self.record();
        let n = n - n % 9 + 4;
        self.numbers.insert(n);
        n
    }
}

fn entry() -> AuditEntry {
    let [caller, address, object, change] = ["ann", "unix", "team_a", "what"].map(str::to_owned);
    AuditEntry { caller, address, action: "resend.create", object, change }
}
