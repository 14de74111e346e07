//! Notices that another daemon runs on a copy of our store. Both would deliver the same pending callbacks.
//!
//! Each run of the daemon has an id, which is in its store and, with a time that is renewed, beside the offsets that it
//! commits to Kafka. A copy of the store does not know the runs that began after it was made. Of two runs, the one that
//! began later waits, and does so until it is restarted: if the earlier one is restarted, its id is the later one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;

/// The time after which a run writes its marks again.
pub(super) const RENEWAL: Duration = Duration::from_secs(30);
/// The time between two looks at the marks of all partitions.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// A run whose marks are older than this has ended.
const FRESH: Duration = Duration::from_secs(90);

/// What is committed beside an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The store's id; empty when a tool committed.
    pub(super) store: Arc<str>,
    /// Earlier versions wrote none.
    run: Arc<str>,
    /// `None` if the run has ended.
    at: Option<Timestamp>,
}

impl Mark {
    /// The mark of a run. Without a time, the run says that it has ended.
    pub(super) fn new(store: &str, run: &str, at: Option<Timestamp>) -> Self {
        Self { store: store.into(), run: run.into(), at }
    }

    pub(super) fn parse(metadata: &str) -> Self {
        let mut words = metadata.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (store, run) = (next().into(), next().into());
        let at = next().parse().ok().filter(|millis| *millis > 0).map(Timestamp::from_millis);
        Self { store, run, at }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.store, self.run, self.at.map_or(0, Timestamp::millis))
    }
}

/// How this run stands to others on copies of its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Alone,
    /// Another run began later. It waits.
    First {
        other: Arc<str>,
    },
    /// Another run began earlier: this one waits.
    Second {
        other: Arc<str>,
    },
}

pub(super) struct TwinWatch {
    store: Arc<str>,
    run: Arc<str>,
    /// The earlier runs of this store.
    earlier: HashSet<String>,
    /// Runs of other instances on this very store.
    ours: HashSet<String>,
    seen: HashMap<PartitionKey, Mark>,
    /// Other runs, with the time at which they were known to run.
    others: BTreeMap<Arc<str>, Instant>,
}

impl TwinWatch {
    pub(super) fn new(store: &str, run: &str, earlier: impl IntoIterator<Item = String>) -> Self {
        let earlier = earlier.into_iter().collect();
        Self {
            store: store.into(),
            run: run.into(),
            earlier,
            ours: HashSet::new(),
            seen: HashMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// These runs work on our very store.
    pub(super) fn are_ours(&mut self, runs: impl IntoIterator<Item = String>) {
        for run in runs {
            self.others.remove(&*run);
            self.ours.insert(run);
        }
    }

    /// Looks at the marks of all partitions.
    pub(super) fn look(&mut self, marks: Vec<(PartitionKey, Mark)>, now: Timestamp, moment: Instant) -> Standing {
        let mut is_seen = false;
        for (partition, mark) in marks {
            let is_fresh = mark.at.is_some_and(|at| now.since(at).max(at.since(now)) <= FRESH);
            is_seen |= mark.store == self.store && mark.run == self.run && is_fresh;
            let is_known = mark.run.is_empty() || mark.run == self.run || self.ours.contains(&*mark.run);
            let is_other = mark.store == self.store && !is_known;
            match mark.at.filter(|_| is_other) {
                // An earlier run of ours may have ended a moment ago. It does not renew its marks any more.
                Some(_) => {
                    let is_unknown = !self.earlier.contains(&*mark.run);
                    let before = self.seen.get(&partition).filter(|before| before.run == mark.run);
                    let is_renewed = before.is_some_and(|before| before.at != mark.at);
                    if is_renewed || (is_unknown && is_fresh && before.is_none()) {
                        self.others.insert(Arc::clone(&mark.run), moment);
                    }
                }
                None => drop(self.others.remove(&mark.run)),
            }
            self.seen.insert(partition, mark);
        }
        self.others.retain(|_, known| moment.saturating_duration_since(*known) <= FRESH);
        // A run's id begins with the time at which it began. One without marks of its own can't be seen by the others, so
        // none of them would wait for it.
        match self.others.keys().next() {
            None => Standing::Alone,
            Some(other) if *other > self.run && is_seen => Standing::First { other: Arc::clone(other) },
            Some(other) => Standing::Second { other: Arc::clone(other) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "0200-b";

    struct World {
        watch: TwinWatch,
        begun: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { watch: TwinWatch::new("st_a", OURS, ["0100-a".to_owned()]), begun: Instant::now() }
        }

        /// Looks at `second`: partition, store, run, and the second of the mark.
        fn look(&mut self, second: u64, marks: &[(i32, &str, &str, i64)]) -> Standing {
            let key = |number| PartitionKey { cluster: "c".into(), topic: "t".into(), number };
            let at = |second: i64| Timestamp::from_millis(1_000_000 + second * 1_000);
            let mark = |store, run, second: i64| Mark::new(store, run, (second >= 0).then(|| at(second)));
            let marks = marks.iter().map(|(number, store, run, second)| (key(*number), mark(*store, *run, *second)));
            let moment = self.begun + Duration::from_secs(second);
            self.watch.look(marks.collect(), at(i64::try_from(second).unwrap()), moment)
        }
    }

    fn first(other: &str) -> Standing {
        Standing::First { other: other.into() }
    }

    fn second(other: &str) -> Standing {
        Standing::Second { other: other.into() }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_old_ones_are_read_too() {
        for mark in [Mark::new("st_a", "r", Some(Timestamp::from_millis(7))), Mark::new("st_a", "r", None)] {
            assert_eq!(Mark::parse(&mark.to_string()), mark);
        }
        assert_eq!(Mark::parse("st_a"), Mark::new("st_a", "", None));
        assert_eq!(Mark::parse(""), Mark::new("", "", None));
    }

    #[test]
    fn a_run_that_the_store_does_not_know_is_another_one_and_the_later_one_waits() {
        let mut world = World::new();
        assert_eq!(world.look(0, &[(0, "st_a", OURS, 0), (1, "st_b", "0100-x", 0), (2, "", "", -1)]), Standing::Alone);
        assert_eq!(world.look(10, &[(0, "st_a", "0150-x", 5)]), second("0150-x"));
        let later = (0, "st_a", "0250-x", 5);
        assert_eq!(World::new().look(10, &[later, (1, "st_a", OURS, 5)]), first("0250-x"));
        assert_eq!(World::new().look(10, &[later]), second("0250-x"), "nobody can see this one");
        // The watch of the other one says the opposite.
        let mut other = TwinWatch::new("st_a", "0150-x", []);
        let mark = |number, run| {
            let key = PartitionKey { cluster: "c".into(), topic: "t".into(), number };
            (key, Mark::new("st_a", run, Some(Timestamp::from_millis(5))))
        };
        let marks = vec![mark(0, OURS), mark(1, "0150-x")];
        assert_eq!(other.look(marks, Timestamp::from_millis(9), world.begun), first(OURS));
    }

    #[test]
    fn an_earlier_run_of_ours_is_another_one_only_if_it_renews_its_marks() {
        let mut world = World::new();
        assert_eq!(world.look(0, &[(0, "st_a", "0100-a", 0), (1, "st_a", "0100-a", 0)]), Standing::Alone);
        assert_eq!(world.look(10, &[(0, "st_a", OURS, 5), (1, "st_a", "0100-a", 0)]), Standing::Alone);
        assert_eq!(world.look(40, &[(0, "st_a", OURS, 35), (1, "st_a", "0100-a", 30)]), second("0100-a"));
    }

    #[test]
    fn another_instance_of_the_same_store_is_no_twin_not_even_after_its_end() {
        let mut world = World::new();
        world.watch.are_ours(["0150-x".to_owned(), "0250-y".to_owned()]);
        let marks = |second| [(0, "st_a", OURS, second), (1, "st_a", "0150-x", second), (2, "st_a", "0250-y", second)];
        assert_eq!(world.look(10, &marks(5)), Standing::Alone);
        assert_eq!(world.look(40, &marks(35)), Standing::Alone);
        assert_eq!(world.look(50, &[(0, "st_a", OURS, 45), (1, "st_a", "0170-z", 45)]), second("0170-z"));
        // It began a moment before we looked, and was heard of only now.
        world.watch.are_ours(["0170-z".to_owned()]);
        assert_eq!(world.look(60, &[(0, "st_a", OURS, 55), (1, "st_a", "0170-z", 55)]), Standing::Alone);
    }

    #[test]
    fn a_clock_that_is_wrong_hides_nobody_who_renews() {
        let mut world = World::new();
        assert_eq!(world.look(0, &[(0, "st_a", "0150-x", 90_000)]), Standing::Alone);
        assert_eq!(world.look(30, &[(0, "st_a", "0150-x", 90_030)]), second("0150-x"));
    }

    #[test]
    fn the_wait_ends_when_the_other_says_so_or_is_silent() {
        let mut world = World::new();
        assert_eq!(world.look(0, &[(0, "st_a", "0150-x", 0)]), second("0150-x"));
        assert_eq!(world.look(60, &[(0, "st_a", "0150-x", 0)]), second("0150-x"));
        assert_eq!(world.look(91, &[(0, "st_a", "0150-x", 0)]), Standing::Alone, "nothing was renewed");
        assert_eq!(world.look(100, &[(0, "st_a", "0150-x", 95)]), second("0150-x"));
        assert_eq!(world.look(110, &[(0, "st_a", "0150-x", -1)]), Standing::Alone, "it ended");
    }
}
