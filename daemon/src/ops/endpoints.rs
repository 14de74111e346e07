//! Endpoints: where a team's callbacks go, how that goes lately, and what waits for it.
//!
//! What runs comes from the lanes, what waits from the store's queues; a queue that follows a default URL belongs to
//! the endpoint that the default names now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Ops, OpsError};
use crate::base::clock::Timestamp;
use crate::deliver::recent::Recent;
use crate::model::endpoint::{Origin, QueueTarget};
use crate::net::target::Target;
use crate::store::reads::{QueueMatch, QueueRow};

/// Queues that are looked at for one answer.
const QUEUES: usize = 20_000;
/// Pending callbacks of a queue are counted up to this in a list, and up to that for one endpoint.
const COUNT_IN_LIST: usize = 1_000;
const COUNT_ALONE: usize = 1_000_000;

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
    pub recent: Recent,
}

type Key = (Arc<str>, Origin);

impl Ops {
    /// Endpoints in use lately or with pending callbacks, by team and origin; of one team or of all, in one state or
    /// any.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn endpoints(&self, team: Option<&str>, state: Option<&str>) -> Result<Vec<Endpoint>, OpsError> {
        if state.is_some_and(|state| EndpointState::ALL.iter().all(|known| known.name() != state)) {
            return Err(OpsError::InvalidRequest("state is one of active, limited".to_owned()));
        }
        let queues = self.reads.queues(team.map(str::to_owned), QUEUES, COUNT_IN_LIST).await?;
        let mut endpoints = self.joined(team, queues).await?;
        endpoints.retain(|endpoint| state.is_none_or(|state| endpoint.state.name() == state));
        Ok(endpoints)
    }

    /// One endpoint.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn endpoint(&self, team: &str, origin: &str) -> Result<Endpoint, OpsError> {
        let origin = super::teams::origin(origin)?;
        let queues = self.reads.queues(Some(team.to_owned()), QUEUES, COUNT_ALONE).await?;
        let found = self.joined(Some(team), queues).await?.into_iter().find(|endpoint| endpoint.origin == origin);
        found.ok_or_else(|| {
            OpsError::NotFound(format!("{origin} is no endpoint of that team in use lately or with pending callbacks"))
        })
    }

    /// Those that fail, the longest row of failures first.
    ///
    /// # Errors
    /// The store's.
    pub async fn worst_endpoints(&self, at_most: usize) -> Result<Vec<Endpoint>, OpsError> {
        let mut failing = self.endpoints(None, None).await?;
        failing.retain(|endpoint| endpoint.recent.failures > 0);
        failing.sort_by_key(|endpoint| (std::cmp::Reverse(endpoint.recent.failures), endpoint.oldest_due));
        failing.truncate(at_most);
        Ok(failing)
    }

    /// The queues in which callbacks of an endpoint wait: those of the origin itself, and the defaults that name it.
    pub(super) async fn queues_of(&self, team: Option<&str>, endpoint: &str) -> Result<Vec<QueueMatch>, OpsError> {
        if let Some(QueueTarget::Default(mode)) = QueueTarget::parse(endpoint) {
            return Ok(vec![QueueMatch { team: None, target: QueueTarget::Default(mode).name() }]);
        }
        let origin = super::teams::origin(endpoint)?;
        let mut queues = vec![QueueMatch { team: None, target: origin.to_string() }];
        for team in self.people.teams_with_default(&origin.host, team.map(str::to_owned)).await? {
            for mode in [crate::model::team::Mode::Live, crate::model::team::Mode::Test] {
                let default = team.default_url(mode).and_then(|url| Target::parse(url).ok());
                if default.is_some_and(|target| target.origin == origin) {
                    let target = QueueTarget::Default(mode).name();
                    queues.push(QueueMatch { team: Some(team.id.to_string()), target });
                }
            }
        }
        Ok(queues)
    }

    async fn joined(&self, team: Option<&str>, queues: Vec<QueueRow>) -> Result<Vec<Endpoint>, OpsError> {
        let mut endpoints: BTreeMap<Key, Endpoint> = BTreeMap::new();
        for lane in self.lanes.seen() {
            let Some(origin) = lane.key.origin.clone() else { continue };
            if team.is_some_and(|team| team != &*lane.key.team) {
                continue;
            }
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
        recent: Recent::default(),
    }
}
