//! Jobs that send many callbacks again: all that match a filter, newest event first. They are kept in the store, so they survive
//! a restart, and any instance goes on with one whose instance died.

mod run;

use std::time::{Duration, Instant};

use scale_callback_serve::text::hex;

use super::policy::Operation;
use super::{Creation, OpsError, Session, created, random};
use crate::model::permission::TeamLimit;
use crate::model::state::State;
use crate::store::admin::IdempotencyKey;
use crate::store::reads::{CallbackFilter, Page};
use crate::store::resends::{ResendCounts, ResendForm, ResendRow, ResendState};

/// How long callbacks that match are counted.
const COUNTING: Duration = Duration::from_secs(20);
/// Ids that one read gives.
const IDS: usize = 250_000;
/// Without any bound: however many match.
const ALL: u64 = i64::MAX.cast_unsigned();
/// The highest rate that can be asked for.
const HIGHEST_RATE: u32 = 1_000_000;

/// Which callbacks are sent again, and how.
#[derive(Debug, Clone)]
pub struct NewResend {
    /// Without a state or a reason, it means the callbacks that have ended and were not delivered.
    pub filter: CallbackFilter,
    /// An origin, `default:live`, `default:test` or `none`; it takes the place of the filter's queues.
    pub endpoint: Option<String>,
    pub form: ResendForm,
    /// At most so many rounds are opened in a second.
    pub rate: Option<u32>,
    /// Nothing is done if more callbacks match.
    pub at_most: u64,
}

/// How many callbacks match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    pub count: u64,
    /// False if there was no time to count them all: then there are more.
    pub is_all: bool,
}

impl Matched {
    /// Whether so many may be changed at once.
    ///
    /// # Errors
    /// `too_many_rows`.
    pub(super) fn check(self, at_most: u64) -> Result<(), OpsError> {
        if self.is_all && self.count <= at_most || at_most >= ALL {
            return Ok(());
        }
        let or_more = if self.is_all { "" } else { " or more" };
        Err(OpsError::TooManyRows(format!(
            "{}{or_more} callbacks match, and at_most is {at_most}; for all of them, raise at_most (--yes)",
            self.count
        )))
    }
}

impl Session {
    /// How many callbacks a job would look at.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found` for the filter's team, or the store's.
    pub async fn preview_resend(&self, filter: CallbackFilter, endpoint: Option<&str>) -> Result<Matched, OpsError> {
        self.allow(Operation::PreviewResend)?;
        let filter = self.resend_filter(Operation::PreviewResend, filter, endpoint).await?;
        self.count(&filter, u64::MAX).await
    }

    /// Begins a job.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found` for the filter's team; `too_many_rows`; `conflict` if there are as many jobs as
    /// there may be; `idempotency_mismatch`; or the store's.
    pub async fn create_resend(
        &self,
        new: NewResend,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<ResendRow>, OpsError> {
        self.allow(Operation::CreateResend)?;
        if let Some(id) = self.made_before(once.as_ref()).await? {
            return Ok(Creation::Repeated(self.own_resend(&id).await?));
        }
        check_form(&new)?;
        let filter = self.resend_filter(Operation::CreateResend, new.filter, new.endpoint.as_deref()).await?;
        let matched = self.count(&filter, new.at_most).await?;
        matched.check(new.at_most)?;
        let now = self.now();
        let row = ResendRow {
            id: format!("rs_{:012x}{}", now.millis(), hex(&random::<4>())),
            created_at: now,
            created_by: self.caller.name.clone(),
            filter,
            endpoint: new.endpoint,
            form: new.form,
            rate: new.rate,
            state: ResendState::Running,
            matched: matched.count,
            cursor: None,
            counts: ResendCounts::default(),
            changed_at: now,
        };
        let team = row.filter.team.clone().unwrap_or_default();
        let audit = self.caller.entry(Operation::CreateResend, &team, format!("{}: {}", row.id, described(&row)));
        let made = self.parts().admin.create_resend(row.clone(), once, audit).await?;
        self.inner.resend_made.notify_one();
        match created(made, too_many)? {
            None => Ok(Creation::New(row)),
            Some(id) => Ok(Creation::Repeated(self.own_resend(&id).await?)),
        }
    }

    /// Jobs below the id `before`, newest first, and the id below which more may follow.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn resends(
        &self,
        before: Option<String>,
        limit: usize,
    ) -> Result<(Vec<ResendRow>, Option<String>), OpsError> {
        self.allow(Operation::Resends)?;
        let mut rows = self.parts().admin.resends(before, limit).await?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id.clone());
        rows.retain(|row| self.sees_resend(row));
        Ok((rows, next))
    }

    /// One job.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or the store's.
    pub async fn resend(&self, id: &str) -> Result<ResendRow, OpsError> {
        self.allow(Operation::Resend)?;
        self.own_resend(id).await
    }

    /// Opens no more rounds until the job is resumed. Rounds that are open go on.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` if the job has ended, or the store's.
    pub async fn pause_resend(&self, id: &str) -> Result<ResendRow, OpsError> {
        self.allow(Operation::PauseResend)?;
        self.change_resend(Operation::PauseResend, id, |row| ResendRow { state: ResendState::Paused, ..row }).await
    }

    /// Goes on with a paused job, with another rate if one is given.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, `conflict` if the job has ended, or the store's.
    pub async fn resume_resend(&self, id: &str, rate: Option<u32>) -> Result<ResendRow, OpsError> {
        self.allow(Operation::ResumeResend)?;
        check_rate(rate)?;
        let resumed = move |row: ResendRow| ResendRow { state: ResendState::Running, rate: rate.or(row.rate), ..row };
        let row = self.change_resend(Operation::ResumeResend, id, resumed).await?;
        self.inner.resend_made.notify_one();
        Ok(row)
    }

    /// Ends a job. Rounds that are open go on.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` if the job has ended, or the store's.
    pub async fn cancel_resend(&self, id: &str) -> Result<ResendRow, OpsError> {
        self.allow(Operation::CancelResend)?;
        self.change_resend(Operation::CancelResend, id, |row| ResendRow { state: ResendState::Cancelled, ..row }).await
    }

    /// The job that the same request began before. Meanwhile more callbacks may match than it asked for, so this comes first.
    async fn made_before(&self, once: Option<&IdempotencyKey>) -> Result<Option<String>, OpsError> {
        let Some(once) = once else { return Ok(None) };
        match self.parts().admin.made_before(&self.caller.name, once.clone()).await? {
            None => Ok(None),
            Some(made) => created(made, too_many),
        }
    }

    async fn change_resend(
        &self,
        operation: Operation,
        id: &str,
        change: impl FnOnce(ResendRow) -> ResendRow + Send + 'static,
    ) -> Result<ResendRow, OpsError> {
        let team = self.own_resend(id).await?.filter.team.unwrap_or_default();
        let audit = self.caller.entry(operation, &team, id.to_owned());
        let decide = |row: ResendRow| match row.state.has_ended() {
            true => Err(OpsError::Conflict(format!("the job {} has ended ({})", row.id, row.state.name()))),
            false => Ok(change(row)),
        };
        self.parts().admin.change_resend(id, audit, decide).await?.ok_or_else(|| no_job(id))?
    }

    /// A job that exists for the caller.
    async fn own_resend(&self, id: &str) -> Result<ResendRow, OpsError> {
        let row = self.parts().admin.resend(id).await?.filter(|row| self.sees_resend(row));
        row.ok_or_else(|| no_job(id))
    }

    /// Whether a job is about teams of the caller alone.
    fn sees_resend(&self, row: &ResendRow) -> bool {
        match (&row.filter.team, &row.filter.teams) {
            (Some(team), _) => self.sees(team),
            (None, Some(teams)) => self.caller.teams.covers(&TeamLimit::of(teams.iter().cloned())),
            (None, None) => self.caller.teams == TeamLimit::All,
        }
    }

    /// Which ended callbacks a filter means.
    async fn resend_filter(
        &self,
        operation: Operation,
        filter: CallbackFilter,
        endpoint: Option<&str>,
    ) -> Result<CallbackFilter, OpsError> {
        if filter.state == Some(State::Pending) {
            return Err(OpsError::invalid(
                "a pending callback has not ended, so it can't be sent again; to make next attempts now, say retry",
            ));
        }
        let (team, teams) = self.asked_teams(operation, filter.team.as_deref())?;
        let undelivered = filter.state.is_none() && filter.reason.is_none();
        self.inner.checked(CallbackFilter { team, teams, undelivered, ..filter }, endpoint).await
    }

    /// Counts the callbacks that match, at least until there are more than `enough`.
    pub(super) async fn count(&self, filter: &CallbackFilter, enough: u64) -> Result<Matched, OpsError> {
        let end = Instant::now() + COUNTING;
        let (mut before, mut count) = (None, 0_u64);
        loop {
            let page = Page { before, limit: IDS };
            let found = self.parts().reads.callback_ids(filter.clone(), page).await?;
            count = count.saturating_add(found.docs.len() as u64);
            before = found.next;
            if before.is_none() || count > enough || Instant::now() >= end {
                return Ok(Matched { count, is_all: before.is_none() });
            }
        }
    }
}

fn check_form(new: &NewResend) -> Result<(), OpsError> {
    if new.form.allow_new_origin && !new.form.to_default {
        return Err(OpsError::invalid("allow_new_origin is a consent to to_default, which is not asked for"));
    }
    check_rate(new.rate)
}

fn check_rate(rate: Option<u32>) -> Result<(), OpsError> {
    match rate {
        Some(rate) if rate == 0 || rate > HIGHEST_RATE => {
            Err(OpsError::invalid(format!("rate is a number of callbacks a second, from 1 to {HIGHEST_RATE}")))
        }
        _ => Ok(()),
    }
}

/// A job, for the audit.
fn described(row: &ResendRow) -> String {
    let mut words = vec![format!("{} callbacks match", row.matched)];
    words.extend(row.rate.map(|rate| format!("{rate} a second")));
    let form = row.form;
    let asked = [
        (form.to_default, "to the default URL"),
        (form.allow_new_origin, "also a new origin"),
        (form.new_id, "new ids"),
    ];
    words.extend(asked.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()));
    words.join(", ")
}

fn too_many() -> String {
    "there are as many jobs as there may be that have not ended; cancel one first".to_owned()
}

fn no_job(id: &str) -> OpsError {
    let shown = scale_callback_serve::text::printable(id.as_bytes(), 64);
    OpsError::NotFound(format!("there is no job {shown}"))
}
