//! The protocol of two processes over one callback, enumerated: every interleaving of reading, parking, attempts, settles, claims,
//! crashes, lost acknowledgements, leases that end, hand-overs and amendments, within small bounds. The rows change by the real
//! `settlement::apply`, `apply_claim` and `amendment::amend`; everything else is a small model of the daemon. Every state is checked
//! against the invariants of ARCHITECTURE.md, and from every state a world without further faults must come to the callback's end.
//!
//! Broken variants of the model show that the checks see what they are for.

mod check;
mod world;

use std::collections::{HashMap, VecDeque};

use world::{Bounds, Broken, Step, World};

/// The states that were seen, each with the number of the one before it and the step between them.
#[derive(Default)]
struct Seen {
    numbers: HashMap<World, usize>,
    came_by: Vec<Option<(usize, Step)>>,
}

impl Seen {
    /// The number of a state that is new.
    fn add(&mut self, world: &World, came_by: Option<(usize, Step)>) -> Option<usize> {
        if self.numbers.contains_key(world) {
            return None;
        }
        self.came_by.push(came_by);
        self.numbers.insert(world.clone(), self.came_by.len() - 1);
        Some(self.came_by.len() - 1)
    }

    /// The steps to a state, and what is wrong with it.
    fn told(&self, mut number: usize, why: &str) -> String {
        let mut lines = vec![why.to_owned()];
        while let Some((before, step)) = self.came_by[number] {
            lines.push(format!("{step:?}"));
            number = before;
        }
        lines.reverse();
        lines.join("\n")
    }
}

/// Walks every state that can be reached. The number of states, or the steps to the first violation.
fn walk(bounds: Bounds, broken: Option<Broken>) -> Result<usize, String> {
    let start = World::new(bounds, broken);
    let mut seen = Seen::default();
    let mut waiting: VecDeque<_> = seen.add(&start, None).map(|number| (number, start)).into_iter().collect();
    while let Some((number, world)) = waiting.pop_front() {
        check::state(&world).map_err(|why| seen.told(number, why))?;
        check::ends(&world).map_err(|why| seen.told(number, &why))?;
        for step in world.steps() {
            let next = world.after(step).map_err(|why| seen.told(number, &format!("{step:?}: {why}")))?;
            if let Some(new) = seen.add(&next, Some((number, step))) {
                waiting.push_back((new, next));
            }
        }
    }
    Ok(seen.came_by.len())
}

/// The bounds of `make test`. With `CALLBACKD_PROTOCOL=long` (`make protocol`) they are wider: it walks for minutes.
fn bounds() -> Vec<(&'static str, Bounds)> {
    let two = Bounds { posts: 2, takes: 2, ..Bounds::default() };
    let three = Bounds { takes: 3, ..two };
    let mut all = vec![
        ("hand-overs alone", three),
        ("a crash", Bounds { crashes: 1, ..three }),
        ("a lease that ends too early", Bounds { expiries: 1, ..two }),
        ("a partition that is taken away", Bounds { forced: 1, ..two }),
        ("a hand-over whose parks are late", Bounds { late_parks: 1, ..two }),
        ("an amendment and a crash", Bounds { crashes: 1, amendments: 1, ..two }),
    ];
    if std::env::var("CALLBACKD_PROTOCOL").is_ok_and(|form| form == "long") {
        let more = Bounds { posts: 3, ..three };
        all.extend([
            ("two amendments", Bounds { amendments: 2, ..three }),
            ("two crashes", Bounds { crashes: 2, ..more }),
            ("a crash and a partition that is taken away", Bounds { crashes: 1, forced: 1, ..three }),
            ("late parks and a lease that ends", Bounds { late_parks: 1, expiries: 1, ..three }),
            ("a crash, an amendment and a lease that ends", Bounds { crashes: 1, amendments: 1, expiries: 1, ..three }),
        ]);
    }
    all
}

#[test]
fn every_interleaving_of_two_owners_keeps_the_invariants() {
    let mut sum = 0;
    for (what, bounds) in bounds() {
        match walk(bounds, None) {
            Ok(states) => {
                println!("{what}: {states} states");
                sum += states;
            }
            Err(steps) => panic!("{what}:\n{steps}"),
        }
    }
    assert!(sum > 100_000, "only {sum} states were walked");
}

#[test]
fn a_protocol_that_is_broken_is_noticed() {
    for broken in Broken::ALL {
        let found = bounds().into_iter().find_map(|(_, bounds)| walk(bounds, Some(*broken)).err());
        let steps = found.unwrap_or_else(|| panic!("{broken:?} is not noticed"));
        println!("{broken:?} is noticed:\n{steps}\n");
    }
}
