//! The contract of the histories of endpoints: what several processes write is put together as `RecentOutcomes::merge` says.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::ManualClock;
use callbackd::model::attempt::Outcome;
use callbackd::model::endpoint::Origin;
use callbackd::model::endpoint_history::{EndpointHistory, RecentOutcomes};
use callbackd::store::SetBack;
use scale_callback::samples::Seed;

use super::{START, opened};

const STORES: [&str; 3] = ["memory", "sqlite", "postgres"];

fn endpoint(n: u64, recent: RecentOutcomes) -> EndpointHistory {
    let origin = Origin::parse(&format!("https://host-{n}.example")).unwrap();
    EndpointHistory { team: "team_a".into(), origin, recent }
}

/// What a process knows of an endpoint: up to six attempts within twelve seconds, most of which failed.
fn any(seed: &mut Seed) -> RecentOutcomes {
    let mut recent = RecentOutcomes::default();
    for _ in 0..=seed.below(5) {
        let outcome = if seed.below(4) == 0 { Outcome::Ok } else { Outcome::ServerError };
        let last = recent.last_at.unwrap_or(START);
        recent.note(outcome, last.plus(Duration::from_secs(seed.below(3))));
    }
    recent
}

#[tokio::test]
async fn what_processes_know_of_an_endpoint_is_put_together() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let mut seed = Seed::new(7);
        let processes = [(); 3].map(|()| (0..300).map(|_| any(&mut seed)).collect::<Vec<_>>());
        for known in &processes {
            let histories = (0..).zip(known).map(|(n, recent)| endpoint(n, recent.clone())).collect();
            stores.engine.note_endpoints(histories).await.unwrap();
        }
        let stored = stores.engine.endpoint_histories(1_000).await.unwrap();
        assert_eq!(stored.len(), 300, "{name}");
        for (at, n) in (0..300).enumerate() {
            let mut merged = processes[0][at].clone();
            merged.merge(processes[1][at].clone());
            merged.merge(processes[2][at].clone());
            let expected = endpoint(n, merged);
            assert!(stored.contains(&expected), "{name}: {expected:?} of {:?}", processes.each_ref().map(|p| &p[at]));
        }
    }
}

#[tokio::test]
async fn a_history_of_a_wrong_clock_keeps_nobody_from_writing_what_is_newer() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let by = Duration::from_secs(86_400);
        let mut recent = RecentOutcomes::default();
        for second in 0..3 {
            recent.note(Outcome::HeadReset, START.plus(by + Duration::from_secs(second)));
        }
        stores.engine.note_endpoints(vec![endpoint(1, recent.clone())]).await.unwrap();
        let back = SetBack { by, now: START, from: START.plus(by) };
        stores.engine.set_back(back).await.unwrap();
        recent.set_back(START);
        let stored = stores.engine.endpoint_histories(9).await.unwrap();
        assert_eq!(stored, [endpoint(1, recent.clone())], "{name}");
        assert_eq!((recent.last_at, recent.failing_since), (Some(START), Some(START)), "{name}");
        let later = START.plus(Duration::from_secs(1));
        recent.note(Outcome::Ok, later);
        stores.engine.note_endpoints(vec![endpoint(1, recent.clone())]).await.unwrap();
        let stored = stores.engine.endpoint_histories(9).await.unwrap();
        assert_eq!(stored, [endpoint(1, recent)], "{name}");
    }
}
