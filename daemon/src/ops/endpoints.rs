//! Endpoints: where a team's callbacks go, how their attempts went lately, and what waits for them.
//!
//! The lanes know what is under way, and the store's queues know what waits. A queue that follows a default URL
//! belongs to the endpoint that the default URL names now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policy::Operation;
use super::{Inner, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::base::named::named;
use crate::model::attempt::Outcome;
use crate::model::endpoint::{Origin, QueueKey, QueueTarget};
use crate::model::endpoint_history::RecentOutcomes;
use crate::model::team::{Mode, Team};
use crate::net::target::Target;
use crate::schedule::LaneSnapshot;
use crate::store::reads::{QueueAsk, QueueMatch, QueueRow, Queues};

/// The most queues that are looked at for one answer.
const QUEUES: usize = 20_000;
/// How far the pending callbacks of a queue are counted: in a list, and for one endpoint alone.
const COUNT_IN_LIST: usize = 1_000;
const COUNT_ALONE: usize = 100_000;
/// Teams that one read of the store gives.
const TEAMS: usize = 1_000;

named! {
    /// The state of an endpoint, in one word.
    pub enum EndpointState {
        Active = "active",
        /// Its last attempts have all failed, at least five of them in at least a minute.
        Failing = "failing",
        /// Callbacks wait because a limit is reached: that of the endpoint, of its origin, of its team, or of all
        /// endpoints that have not answered yet.
        Limited = "limited",
        /// An operator has paused it, or its team, or everything.
        Paused = "paused",
    }
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub team: Arc<str>,
    pub origin: Origin,
    pub state: EndpointState,
    pub in_flight: usize,
    /// Callbacks in memory that wait for a slot.
    pub waiting: usize,
    /// Callbacks in the store that are not under way, each queue counted up to a bound.
    pub pending: u64,
    /// False if there are more, because the count of a queue ended at the bound.
    pub pending_is_all: bool,
    pub oldest_due: Option<Timestamp>,
    pub parked_bytes: u64,
    pub recent: RecentOutcomes,
    /// What the queue knows of an endpoint without a history: the last outcome of the oldest callback, and how often that
    /// one has failed.
    queued: Option<(Outcome, u32)>,
    /// The queues that hold its callbacks, by team and target.
    queues: Vec<(String, String)>,
}

impl Endpoint {
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.recent.last().or(self.queued.map(|(outcome, _)| outcome))
    }

    /// How many attempts in a row have failed.
    pub fn failures(&self) -> u32 {
        self.queued.map_or(self.recent.failures, |(_, tries)| tries)
    }

    /// Adds what was counted of a queue: one callback more than `bound`, if there are as many.
    fn add_counted(&mut self, counted: u64, bound: usize) {
        self.pending = self.pending.saturating_add(counted.min(bound as u64));
        self.pending_is_all &= counted <= bound as u64;
    }

    /// Team and origin, by which endpoints are ordered.
    pub fn name(&self) -> String {
        format!("{}\n{}", self.team, self.origin)
    }
}

type Key = (Arc<str>, Origin);

/// Which endpoints. Every given field must match.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    pub team: Option<String>,
    pub state: Option<EndpointState>,
}

/// Endpoints in the order of their names.
pub struct Endpoints {
    pub docs: Vec<Endpoint>,
    /// There may be more endpoints after the last one.
    pub more: bool,
}

impl Session {
    /// A page of endpoints, by team and origin: those in use lately or with pending callbacks, from the first one after
    /// the endpoint of the name `after`.
    ///
    /// # Errors
    /// `forbidden`, `not_found` for the filter's team, or the store's.
    pub async fn endpoints(
        &self,
        filter: EndpointFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Endpoints, OpsError> {
        self.allow(Operation::Endpoints)?;
        if let Some(team) = &filter.team {
            self.inner.check_team_exists(team).await?;
        }
        let from = after.and_then(|after| after.split_once('\n')).map(|(team, _)| team);
        let (team, teams) = self.asked_teams(Operation::Endpoints, filter.team.as_deref())?;
        let mut found = match teams {
            None => self.inner.endpoints(team.as_deref(), from).await?,
            Some(teams) => self.inner.endpoints_of(&teams, from).await?,
        };
        found.docs.retain(|endpoint| filter.state.is_none_or(|state| endpoint.state == state));
        found.docs.retain(|endpoint| after.is_none_or(|after| endpoint.name().as_str() > after));
        found.more |= found.docs.len() > limit;
        found.docs.truncate(limit);
        self.inner.count(&mut found.docs).await?;
        Ok(found)
    }

    /// One endpoint, with its callbacks counted.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn endpoint(&self, team: &str, origin: &str) -> Result<Endpoint, OpsError> {
        self.allow_team(Operation::Endpoint, team)?;
        self.inner.check_team_exists(team).await?;
        let origin = super::teams::origin(origin)?;
        let targets = self.inner.queues_of(Some(team), &origin.to_string()).await?;
        let these = targets.into_iter().map(|queue| (team.to_owned(), queue.target)).collect();
        let ask = QueueAsk { which: Queues::These(these), count_upto: COUNT_ALONE + 1 };
        let queues = self.parts().reads.queues(ask).await?;
        let mut lanes = self.parts().lanes.snapshot();
        lanes.retain(|lane| *team == *lane.key.team && lane.key.origin.as_ref() == Some(&origin));
        let joined = self.inner.joined(lanes, queues, COUNT_ALONE).await?;
        joined.into_iter().find(|endpoint| endpoint.origin == origin).ok_or_else(|| {
            OpsError::NotFound(format!("that team has no endpoint {origin} in use lately or with pending callbacks"))
        })
    }
}

/// Callbacks that one transaction makes due.
const RETRIED_AT_ONCE: usize = 5_000;

impl Session {
    /// Makes the next attempts of all pending callbacks of an endpoint due now, for example after a receiver was repaired. Each
    /// takes the place of the planned one. The endpoint's limits hold, so they go out as fast as it takes them. Answers with how
    /// many callbacks waited for a later time.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's; then some callbacks may be due already.
    pub async fn retry_endpoint(&self, team: &str, origin: &str) -> Result<u64, OpsError> {
        self.allow_team(Operation::RetryEndpoint, team)?;
        self.inner.check_team_exists(team).await?;
        let origin = super::teams::origin(origin)?.to_string();
        let parts = self.parts();
        parts.admin.note(self.caller.entry(Operation::RetryEndpoint, team, origin.clone())).await?;
        let mut made_due = 0;
        for queue in self.inner.queues_of(Some(team), &origin).await? {
            let Some(target) = QueueTarget::parse(&queue.target) else { continue };
            let key = QueueKey { team: team.into(), target };
            loop {
                let piece = parts.store.retry_queue(key.clone(), RETRIED_AT_ONCE).await?;
                made_due += piece as u64;
                if piece < RETRIED_AT_ONCE {
                    break;
                }
            }
        }
        parts.waker.wake();
        Ok(made_due)
    }
}

impl Inner {
    /// Endpoints in use lately or with pending callbacks, of one team, or of all teams from `from` on. Their callbacks
    /// are not counted.
    async fn endpoints(&self, team: Option<&str>, from: Option<&str>) -> Result<Endpoints, OpsError> {
        let which = match team {
            Some(team) => Queues::Of(team.to_owned()),
            None => Queues::From { team: from.map(str::to_owned), at_most: QUEUES },
        };
        let mut queues = self.parts.reads.queues(QueueAsk { which, count_upto: 0 }).await?;
        let mut lanes = self.parts.lanes.snapshot();
        lanes.retain(|lane| team.is_none_or(|team| *team == *lane.key.team));
        let more = team.is_none() && queues.len() == QUEUES;
        if more && let Some(last) = queues.last().map(|queue| queue.team.clone()) {
            // The last team may be incomplete, so it is left to the next page. A single team that has more queues than
            // are looked at is shown as far as it was read.
            if queues.first().is_some_and(|first| first.team != last) {
                queues.retain(|queue| queue.team != last);
                lanes.retain(|lane| *lane.key.team < *last);
            }
        }
        let mut docs = self.joined(lanes, queues, 0).await?;
        docs.sort_by_cached_key(Endpoint::name);
        Ok(Endpoints { docs, more })
    }

    /// The same for these teams, each in its turn.
    async fn endpoints_of(&self, teams: &[String], from: Option<&str>) -> Result<Endpoints, OpsError> {
        let mut docs = Vec::new();
        for team in teams.iter().filter(|team| from.is_none_or(|from| team.as_str() >= from)) {
            docs.extend(self.endpoints(Some(team), None).await?.docs);
        }
        docs.sort_by_cached_key(Endpoint::name);
        Ok(Endpoints { docs, more: false })
    }

    /// The endpoints that fail, those that fail for the longest time first, with their callbacks counted.
    pub(super) async fn worst_endpoints(&self, at_most: usize) -> Result<Vec<Endpoint>, OpsError> {
        let worst = self.parts.health.worst(at_most);
        if worst.is_empty() {
            // What a crash kept from being written is told by the oldest callback of each queue.
            let mut failing = self.endpoints(None, None).await?.docs;
            failing.retain(|endpoint| endpoint.failures() > 0);
            failing.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.failures()));
            failing.truncate(at_most);
            self.count(&mut failing).await?;
            return Ok(failing);
        }
        let mut these = Vec::new();
        for endpoint in &worst {
            let targets = self.queues_of(Some(&endpoint.team), &endpoint.origin.to_string()).await?;
            these.extend(targets.into_iter().map(|queue| (endpoint.team.to_string(), queue.target)));
        }
        let ask = QueueAsk { which: Queues::These(these), count_upto: COUNT_IN_LIST + 1 };
        let queues = self.parts.reads.queues(ask).await?;
        let is_worst = |key: &Key| worst.iter().position(|of| of.team == key.0 && of.origin == key.1);
        let mut lanes = self.parts.lanes.snapshot();
        lanes.retain(|lane| {
            let key = lane.key.origin.clone().map(|origin| (Arc::clone(&lane.key.team), origin));
            key.is_some_and(|key| is_worst(&key).is_some())
        });
        let mut failing = self.joined(lanes, queues, COUNT_IN_LIST).await?;
        for endpoint in &worst {
            if !failing.iter().any(|known| known.team == endpoint.team && known.origin == endpoint.origin) {
                failing.push(self.blank(&(Arc::clone(&endpoint.team), endpoint.origin.clone())));
            }
        }
        failing.sort_by_key(|endpoint| is_worst(&(Arc::clone(&endpoint.team), endpoint.origin.clone())));
        failing.truncate(at_most);
        Ok(failing)
    }

    /// Counts the callbacks of these endpoints, each queue up to a bound.
    async fn count(&self, endpoints: &mut [Endpoint]) -> Result<(), OpsError> {
        let these: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.queues.iter().cloned()).collect();
        if these.is_empty() {
            return Ok(());
        }
        let ask = QueueAsk { which: Queues::These(these), count_upto: COUNT_IN_LIST + 1 };
        let counted = self.parts.reads.queues(ask).await?;
        for endpoint in endpoints {
            let is_own = |row: &&QueueRow| {
                endpoint.queues.iter().any(|(team, target)| *team == row.team && *target == row.target)
            };
            let own: Vec<_> = counted.iter().filter(is_own).map(|row| row.pending).collect();
            own.into_iter().for_each(|counted| endpoint.add_counted(counted, COUNT_IN_LIST));
        }
        Ok(())
    }

    /// The queues in which callbacks of an endpoint wait: that of the origin itself, and those that follow a default
    /// URL at this origin.
    pub(super) async fn queues_of(&self, team: Option<&str>, endpoint: &str) -> Result<Vec<QueueMatch>, OpsError> {
        if let Some(target @ (QueueTarget::Default(_) | QueueTarget::Nowhere)) = QueueTarget::parse(endpoint) {
            return Ok(vec![QueueMatch { team: None, target: target.name() }]);
        }
        let origin = super::teams::origin(endpoint)?;
        let mut queues = vec![QueueMatch { team: team.map(str::to_owned), target: origin.to_string() }];
        let defaults = |team: &Team, queues: &mut Vec<QueueMatch>| {
            for mode in [Mode::Live, Mode::Test] {
                let default = team.default_url(mode).and_then(|url| Target::parse(url).ok());
                if default.is_some_and(|target| target.origin == origin) {
                    let target = QueueTarget::Default(mode).name();
                    queues.push(QueueMatch { team: Some(team.id.to_string()), target });
                }
            }
        };
        if let Some(team) = team {
            if let Some(entry) = self.parts.directory.team(team).await? {
                defaults(&entry.team, &mut queues);
            }
            return Ok(queues);
        }
        let mut after = None;
        loop {
            let teams = self.parts.admin.teams(after, TEAMS).await?;
            teams.iter().for_each(|team| defaults(team, &mut queues));
            match teams.last().filter(|_| teams.len() == TEAMS) {
                Some(last) => after = Some(last.id.to_string()),
                None => return Ok(queues),
            }
        }
    }

    /// Joins lanes and queues by endpoint. The queues were counted up to `bound`, and one callback more.
    async fn joined(
        &self,
        lanes: Vec<LaneSnapshot>,
        queues: Vec<QueueRow>,
        bound: usize,
    ) -> Result<Vec<Endpoint>, OpsError> {
        let mut endpoints: BTreeMap<Key, Endpoint> = BTreeMap::new();
        for lane in lanes {
            let Some(origin) = lane.key.origin.clone() else { continue };
            let key = (Arc::clone(&lane.key.team), origin);
            let endpoint = self.blank(&key);
            let state = match endpoint.state {
                EndpointState::Active if lane.limited => EndpointState::Limited,
                state => state,
            };
            let (in_flight, waiting) = (lane.in_flight, lane.waiting);
            endpoints.insert(key, Endpoint { state, in_flight, waiting, ..endpoint });
        }
        for queue in queues {
            let Some(origin) = self.origin_of(&queue).await? else { continue };
            let key = (Arc::from(queue.team.as_str()), origin);
            let endpoint = endpoints.entry(key.clone()).or_insert_with(|| self.blank(&key));
            endpoint.add_counted(queue.pending, bound);
            endpoint.parked_bytes = endpoint.parked_bytes.saturating_add(queue.parked_bytes);
            endpoint.oldest_due = match (endpoint.oldest_due, queue.oldest_due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            // Without a history, the facts of the oldest callback are shown.
            if let Some(outcome) = queue.last_outcome.filter(|outcome| outcome.is_of_the_endpoint())
                && endpoint.recent.last().is_none()
            {
                endpoint.queued = Some((outcome, queue.tries));
            }
            endpoint.queues.push((queue.team, queue.target));
        }
        Ok(endpoints.into_values().collect())
    }

    /// An endpoint of which nothing but its history is known.
    fn blank(&self, key: &Key) -> Endpoint {
        let recent = self.parts.health.of(&key.0, &key.1).unwrap_or_default();
        let is_paused = self.parts.directory.pauses().hold(&key.0, Some(&key.1));
        Endpoint {
            team: Arc::clone(&key.0),
            origin: key.1.clone(),
            state: match (is_paused, recent.is_failing()) {
                (true, _) => EndpointState::Paused,
                (false, true) => EndpointState::Failing,
                (false, false) => EndpointState::Active,
            },
            in_flight: 0,
            waiting: 0,
            pending: 0,
            pending_is_all: true,
            oldest_due: None,
            parked_bytes: 0,
            recent,
            queued: None,
            queues: Vec::new(),
        }
    }

    /// The origin to which a queue's callbacks go now. `None` if the queue follows a default URL that is not set, or holds
    /// callbacks whose own URL is invalid.
    async fn origin_of(&self, queue: &QueueRow) -> Result<Option<Origin>, OpsError> {
        match QueueTarget::parse(&queue.target) {
            Some(QueueTarget::Origin(origin)) => Ok(Some(origin)),
            Some(QueueTarget::Default(mode)) => {
                let entry = self.parts.directory.team(&queue.team).await?;
                let url = entry.as_ref().and_then(|entry| entry.team.default_url(mode));
                Ok(url.and_then(|url| Target::parse(url).ok()).map(|target| target.origin))
            }
            Some(QueueTarget::Nowhere) | None => Ok(None),
        }
    }
}
