//! What an operator has paused: all deliveries, those of a team, or those of one endpoint of a team. Attempts that are under way
//! end as usual; no other begins, and nothing is lost or given up meanwhile.

use std::collections::HashSet;
use std::sync::Arc;

use super::endpoint::{Origin, QueueKey};
use crate::base::clock::Timestamp;

/// What a pause holds back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PauseScope {
    All,
    Team(Arc<str>),
    Endpoint(Arc<str>, Origin),
}

impl PauseScope {
    /// The team, unless it is all of them.
    pub fn team(&self) -> Option<&Arc<str>> {
        match self {
            Self::All => None,
            Self::Team(team) | Self::Endpoint(team, _) => Some(team),
        }
    }

    /// The origin, if it is one endpoint.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Endpoint(_, origin) => Some(origin),
            Self::All | Self::Team(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    pub scope: PauseScope,
    pub since: Timestamp,
    /// The caller, as the audit names it.
    pub paused_by: String,
    /// Why, in the operator's words. May be empty.
    pub reason: String,
}

/// All pauses.
#[derive(Debug, Clone, Default)]
pub struct Pauses {
    list: Vec<Pause>,
    scopes: HashSet<PauseScope>,
}

impl Pauses {
    pub fn new(list: Vec<Pause>) -> Self {
        let scopes = list.iter().map(|pause| pause.scope.clone()).collect();
        Self { list, scopes }
    }

    pub fn list(&self) -> &[Pause] {
        &self.list
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all deliveries are paused.
    pub fn all(&self) -> bool {
        self.scopes.contains(&PauseScope::All)
    }

    /// The pause of exactly this scope.
    pub fn of(&self, scope: &PauseScope) -> Option<&Pause> {
        self.list.iter().find(|pause| pause.scope == *scope)
    }

    /// Whether callbacks of this team to this endpoint are held back. Callbacks without an endpoint wait only with all others of
    /// their team.
    pub fn hold(&self, team: &Arc<str>, origin: Option<&Origin>) -> bool {
        if self.is_empty() {
            return false;
        }
        let of_endpoint = |origin: &Origin| PauseScope::Endpoint(Arc::clone(team), origin.clone());
        self.all()
            || self.scopes.contains(&PauseScope::Team(Arc::clone(team)))
            || origin.is_some_and(|origin| self.scopes.contains(&of_endpoint(origin)))
    }
}

/// The queues from which no row is claimed.
#[derive(Debug, Clone, Default)]
pub struct PausedQueues {
    pub teams: HashSet<Arc<str>>,
    pub queues: HashSet<QueueKey>,
}

impl PausedQueues {
    pub fn include(&self, queue: &QueueKey) -> bool {
        self.teams.contains(&queue.team) || self.queues.contains(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_holds_what_is_in_its_scope_and_nothing_else() {
        let origin = |text: &str| Origin::parse(text).expect("an origin");
        let (a, b): (Arc<str>, Arc<str>) = ("team_a".into(), "team_b".into());
        let (x, y) = (origin("https://x.example"), origin("https://y.example"));
        let pauses = |scopes: &[PauseScope]| {
            let pause = |scope: &PauseScope| Pause {
                scope: scope.clone(),
                since: Timestamp::default(),
                paused_by: String::new(),
                reason: String::new(),
            };
            Pauses::new(scopes.iter().map(pause).collect())
        };
        let none = pauses(&[]);
        assert!(!none.hold(&a, Some(&x)) && none.is_empty());
        let all = pauses(&[PauseScope::All]);
        assert!(all.hold(&a, Some(&x)) && all.hold(&b, None) && all.all());
        let team = pauses(&[PauseScope::Team(Arc::clone(&a))]);
        assert!(team.hold(&a, Some(&x)) && team.hold(&a, None) && !team.hold(&b, Some(&x)) && !team.all());
        let endpoint = pauses(&[PauseScope::Endpoint(Arc::clone(&a), x.clone())]);
        assert!(endpoint.hold(&a, Some(&x)) && !endpoint.hold(&a, Some(&y)));
        assert!(!endpoint.hold(&a, None) && !endpoint.hold(&b, Some(&x)));
    }
}
