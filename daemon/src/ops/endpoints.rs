//! Endpoints: where a team's callbacks go, how that goes lately, and what waits for it.
//!
//! What runs comes from the lanes, what waits from the store's queues; a queue that follows a default URL belongs to
//! the endpoint that the default names now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Ops, OpsError};
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::endpoint::{Origin, QueueTarget};
use crate::model::team::{Mode, Team};
use crate::net::target::Target;
use crate::schedule::{LaneSnapshot, RecentOutcomes};
use crate::store::reads::{QueueAsk, QueueMatch, QueueRow, Queues};

/// Queues that are looked at for one answer.
const QUEUES: usize = 20_000;
/// Pending callbacks of a queue are counted up to this in a list, and up to that for one endpoint.
const COUNT_IN_LIST: usize = 1_000;
const COUNT_ALONE: usize = 100_000;
/// Teams that are looked at in one read.
const TEAMS: usize = 1_000;

/// How an endpoint stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    Active,
    /// Work waits because a cap is reached: of the endpoint, its origin, its team, or of endpoints not seen to answer.
    Limited,
}

impl EndpointState {
    pub const ALL: [Self; 2] = [Self::Active, Self::Limited];

    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Limited => "limited",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub team: Arc<str>,
    pub origin: Origin,
    pub state: EndpointState,
    pub in_flight: usize,
    /// In memory, for a slot.
    pub waiting: usize,
    /// In the store, not under way; counted up to a bound.
    pub pending: u64,
    pub oldest_due: Option<Timestamp>,
    pub parked_bytes: u64,
    pub recent: RecentOutcomes,
    /// From the store, while this run has made no attempt: the last outcome of its oldest callback, and its failures.
    stored: Option<(Outcome, u32)>,
    /// The queues with callbacks for it, by team and target.
    queues: Vec<(String, String)>,
}

impl Endpoint {
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.recent.last().or(self.stored.map(|(outcome, _)| outcome))
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.stored.map_or(self.recent.failures, |(_, tries)| tries)
    }

    /// Team and origin: what endpoints are ordered by.
    pub fn name(&self) -> String {
        format!("{}\n{}", self.team, self.origin)
    }
}

type Key = (Arc<str>, Origin);

/// Endpoints by team and origin, in the order of their names.
pub struct Endpoints {
    pub docs: Vec<Endpoint>,
    /// Teams behind the last one were not looked at.
    pub more: bool,
}

impl Ops {
    /// Endpoints in use lately or with pending callbacks; of one team, or of all from `from` on; in one state or any.
    /// Their callbacks are not counted: [`count`](Self::count) does that, for those that are shown.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn endpoints(
        &self,
        team: Option<&str>,
        state: Option<&str>,
        from: Option<&str>,
    ) -> Result<Endpoints, OpsError> {
        if state.is_some_and(|state| EndpointState::ALL.iter().all(|known| known.name() != state)) {
            return Err(OpsError::InvalidRequest("state is one of active, limited".to_owned()));
        }
        let which = match team {
            Some(team) => Queues::Of(team.to_owned()),
            None => Queues::From { team: from.map(str::to_owned), at_most: QUEUES },
        };
        let mut queues = self.reads.queues(QueueAsk { which, count_upto: 0 }).await?;
        let mut lanes = self.lanes.snapshot();
        lanes.retain(|lane| team.is_none_or(|team| *team == *lane.key.team));
        let more = team.is_none() && queues.len() == QUEUES;
        if more && let Some(last) = queues.last().map(|queue| queue.team.clone()) {
            // Whole teams only; a team larger than that is shown as far as it was read.
            if queues.first().is_some_and(|first| first.team != last) {
                queues.retain(|queue| queue.team != last);
                lanes.retain(|lane| *lane.key.team < *last);
            }
        }
        let mut docs = self.joined(lanes, queues).await?;
        docs.retain(|endpoint| state.is_none_or(|state| endpoint.state.name() == state));
        docs.sort_by_cached_key(Endpoint::name);
        Ok(Endpoints { docs, more })
    }

    /// One endpoint, with its callbacks counted.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn endpoint(&self, team: &str, origin: &str) -> Result<Endpoint, OpsError> {
        let origin = super::teams::origin(origin)?;
        let targets = self.queues_of(Some(team), &origin.to_string()).await?;
        let these = targets.into_iter().map(|queue| (team.to_owned(), queue.target)).collect();
        let queues = self.reads.queues(QueueAsk { which: Queues::These(these), count_upto: COUNT_ALONE }).await?;
        let mut lanes = self.lanes.snapshot();
        lanes.retain(|lane| *team == *lane.key.team && lane.key.origin.as_ref() == Some(&origin));
        let found = self.joined(lanes, queues).await?.into_iter().find(|endpoint| endpoint.origin == origin);
        found.ok_or_else(|| {
            OpsError::NotFound(format!("{origin} is no endpoint of that team in use lately or with pending callbacks"))
        })
    }

    /// Those that fail, the longest row of failures first, with their callbacks counted.
    ///
    /// # Errors
    /// The store's.
    pub async fn worst_endpoints(&self, at_most: usize) -> Result<Vec<Endpoint>, OpsError> {
        let mut lanes = self.lanes.snapshot();
        lanes.retain(|lane| lane.recent.failures > 0 && lane.key.origin.is_some());
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.recent.failures));
        lanes.truncate(at_most);
        if lanes.is_empty() {
            // Soon after a start the lanes know little: the store knows who failed before.
            let mut failing = self.endpoints(None, None, None).await?.docs;
            failing.retain(|endpoint| endpoint.failures() > 0);
            failing.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.failures()));
            failing.truncate(at_most);
            return Ok(failing);
        }
        let mut these = Vec::new();
        for lane in &lanes {
            let Some(origin) = &lane.key.origin else { continue };
            let targets = self.queues_of(Some(&lane.key.team), &origin.to_string()).await?;
            these.extend(targets.into_iter().map(|queue| (lane.key.team.to_string(), queue.target)));
        }
        let queues = self.reads.queues(QueueAsk { which: Queues::These(these), count_upto: COUNT_IN_LIST }).await?;
        let mut failing = self.joined(lanes, queues).await?;
        failing.sort_by_key(|endpoint| (std::cmp::Reverse(endpoint.recent.failures), endpoint.oldest_due));
        Ok(failing)
    }

    /// Counts the callbacks of these endpoints, each queue up to a bound.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(&self, endpoints: &mut [Endpoint]) -> Result<(), OpsError> {
        let these: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.queues.iter().cloned()).collect();
        if these.is_empty() {
            return Ok(());
        }
        let counted = self.reads.queues(QueueAsk { which: Queues::These(these), count_upto: COUNT_IN_LIST }).await?;
        for endpoint in endpoints {
            let own = counted
                .iter()
                .filter(|row| endpoint.queues.iter().any(|(team, target)| *team == row.team && *target == row.target));
            endpoint.pending = own.map(|row| row.pending).sum();
        }
        Ok(())
    }

    /// The queues in which callbacks of an endpoint wait: those of the origin itself, and the defaults that name it.
    pub(super) async fn queues_of(&self, team: Option<&str>, endpoint: &str) -> Result<Vec<QueueMatch>, OpsError> {
        if let Some(QueueTarget::Default(mode)) = QueueTarget::parse(endpoint) {
            return Ok(vec![QueueMatch { team: None, target: QueueTarget::Default(mode).name() }]);
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
            if let Some(entry) = self.directory.team(team).await? {
                defaults(&entry.team, &mut queues);
            }
            return Ok(queues);
        }
        let mut after = None;
        loop {
            let teams = self.admin.teams(after, TEAMS).await?;
            teams.iter().for_each(|team| defaults(team, &mut queues));
            match teams.last().filter(|_| teams.len() == TEAMS) {
                Some(last) => after = Some(last.id.to_string()),
                None => return Ok(queues),
            }
        }
    }

    async fn joined(&self, lanes: Vec<LaneSnapshot>, queues: Vec<QueueRow>) -> Result<Vec<Endpoint>, OpsError> {
        let mut endpoints: BTreeMap<Key, Endpoint> = BTreeMap::new();
        for lane in lanes {
            let Some(origin) = lane.key.origin.clone() else { continue };
            let state = if lane.limited { EndpointState::Limited } else { EndpointState::Active };
            let key = (Arc::clone(&lane.key.team), origin);
            let endpoint = blank(&key);
            let (in_flight, waiting, recent) = (lane.in_flight, lane.waiting, lane.recent);
            endpoints.insert(key, Endpoint { state, in_flight, waiting, recent, ..endpoint });
        }
        for queue in queues {
            let Some(origin) = self.origin_of(&queue).await? else { continue };
            let key = (Arc::from(queue.team.as_str()), origin);
            let endpoint = endpoints.entry(key.clone()).or_insert_with(|| blank(&key));
            endpoint.pending = endpoint.pending.saturating_add(queue.pending);
            endpoint.parked_bytes = endpoint.parked_bytes.saturating_add(queue.parked_bytes);
            endpoint.oldest_due = match (endpoint.oldest_due, queue.oldest_due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            // Before its first attempt of this run, what the store knows of the oldest one tells more than nothing.
            if let Some(outcome) = queue.last_outcome.filter(|outcome| outcome.is_of_the_endpoint())
                && endpoint.recent.last().is_none()
            {
                endpoint.stored = Some((outcome, queue.tries));
            }
            endpoint.queues.push((queue.team, queue.target));
        }
        Ok(endpoints.into_values().collect())
    }

    /// Where a queue leads now; nowhere while a default is not set.
    async fn origin_of(&self, queue: &QueueRow) -> Result<Option<Origin>, OpsError> {
        match QueueTarget::parse(&queue.target) {
            Some(QueueTarget::Origin(origin)) => Ok(Some(origin)),
            Some(QueueTarget::Default(mode)) => {
                let entry = self.directory.team(&queue.team).await?;
                let url = entry.as_ref().and_then(|entry| entry.team.default_url(mode));
                Ok(url.and_then(|url| Target::parse(url).ok()).map(|target| target.origin))
            }
            None => Ok(None),
        }
    }
}

fn blank(key: &Key) -> Endpoint {
    Endpoint {
        team: Arc::clone(&key.0),
        origin: key.1.clone(),
        state: EndpointState::Active,
        in_flight: 0,
        waiting: 0,
        pending: 0,
        oldest_due: None,
        parked_bytes: 0,
        recent: RecentOutcomes::default(),
        stored: None,
        queues: Vec::new(),
    }
}
