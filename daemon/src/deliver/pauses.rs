//! Carries out pauses. While everything is paused no attempt begins, and rows that were leased go back to the store. What is paused
//! alone, a team or an endpoint, is parked or given back at its turn, so that others go on, and its rows are not claimed.

use std::sync::Arc;
use std::time::Duration;

use super::Delivery;
use super::resolve::lane_of;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::flight::settle::Settler;
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::pause::{PauseScope, PausedQueues, Pauses};
use crate::model::settlement::Change;
use crate::model::team::Mode;

/// While everything is paused, leases that came meanwhile are given back this often.
const LOOK: Duration = Duration::from_secs(1);

/// Follows what is paused until `stop`.
pub(super) async fn follow(delivery: Delivery, settler: Settler, metrics: Arc<Metrics>, mut stop: Stop) {
    let mut pauses = delivery.directory.watch_pauses();
    loop {
        let now = Arc::clone(&pauses.borrow_and_update());
        observe(&metrics, &now);
        let all = now.all();
        delivery.lanes.set_paused(all);
        if all {
            give_leases_back(&delivery, &settler).await;
        }
        tokio::select! {
            changed = pauses.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK), if all => {}
            () = stop.stopped() => return,
        }
    }
}

async fn give_leases_back(delivery: &Delivery, settler: &Settler) {
    for lease in delivery.lanes.forget(|lease| lease.epoch().is_none()) {
        settler.submit(Change::Release { facts: Arc::clone(&lease.facts), token: lease.token }).await;
    }
}

fn observe(metrics: &Metrics, pauses: &Pauses) {
    let count = |is: fn(&PauseScope) -> bool| {
        let count = pauses.list().iter().filter(|pause| is(&pause.scope)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    for (scope, count) in [
        ("all", count(|scope| matches!(scope, PauseScope::All))),
        ("team", count(|scope| matches!(scope, PauseScope::Team(_)))),
        ("endpoint", count(|scope| matches!(scope, PauseScope::Endpoint(..)))),
    ] {
        metrics.pauses.with_label_values(&[scope]).set(count);
    }
}

/// The queues of what is paused. A default URL that leads to a paused endpoint makes the queue that follows it paused.
pub(super) async fn paused_queues(delivery: &Delivery) -> PausedQueues {
    let pauses = delivery.directory.pauses();
    let mut paused = PausedQueues::default();
    for pause in pauses.list() {
        match &pause.scope {
            PauseScope::All => {}
            PauseScope::Team(team) => drop(paused.teams.insert(Arc::clone(team))),
            PauseScope::Endpoint(team, origin) => {
                let entry = delivery.directory.team(team).await.ok().flatten();
                let targets = [Mode::Live, Mode::Test].map(QueueTarget::Default);
                for target in targets.into_iter().chain([QueueTarget::Origin(origin.clone())]) {
                    let queue = QueueKey { team: Arc::clone(team), target };
                    if lane_of(&queue, entry.as_deref()).origin.as_ref() == Some(origin) {
                        paused.queues.insert(queue);
                    }
                }
            }
        }
    }
    paused
}
