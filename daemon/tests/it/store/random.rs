//! Long random runs of each real store against the model. Both get the same operations, which a seed chooses, and have to answer and
//! to hold the same. Nothing here looks at a clock but the manual one, so a seed gives the same run each time.
//!
//! A run that fails prints its seed and its last operations. `CALLBACKD_TEST_SEED` runs this seed alone, and `CALLBACKD_TEST_STEPS`
//! says how many operations a run has. With `CALLBACKD_RANDOM=long` (`make random-stores`) there are more and longer runs.
//!
//! A store may choose in some cases, and then the choice is checked and the model follows it:
//! - which queue a claim serves first, and which of the rows that are due at the same time (`claims`);
//! - how many amendments are done together (`amends`);
//! - PostgreSQL keeps ended callbacks until their whole day may go (`prunes`);
//! - PostgreSQL tells of a callback that ends twice in one batch only once, in its last revision (`compare::told`);
//! - SQLite answers a batch that it has applied before without verdicts, because one process has them anyway (`writes`).

#![allow(clippy::print_stdout, reason = "a run shows what it did, and a failed one how to repeat it")]

mod changes;
mod claims;
mod compare;
mod ids;
mod instances;
mod operations;
mod outboxes;
mod prunes;
mod resends;
mod world;
mod writes;

use world::World;

/// The form of `make test`: so many runs of each store, and so many operations in each.
const SHORT: (u64, u64) = (3, 150);
const LONG: (u64, u64) = (5, 2_500);
/// After so many operations, everything that the two hold is compared.
const WHOLE: u64 = 30;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value}")))
}

async fn runs(name: &'static str) {
    let is_long = std::env::var("CALLBACKD_RANDOM").is_ok_and(|form| form == "long");
    let (runs, steps) = if is_long { LONG } else { SHORT };
    let steps = number("CALLBACKD_TEST_STEPS").unwrap_or(steps);
    let seeds = number("CALLBACKD_TEST_SEED").map_or(1..=runs, |seed| seed..=seed);
    for seed in seeds {
        let mut world = World::new(name, seed).await;
        for step in 1..=steps {
            world.step().await;
            if step % WHOLE == 0 {
                world.compare_all().await;
            }
        }
        println!("{name}: seed {seed}: {steps} operations, {}", world.seen());
        world.finish().await;
    }
}

#[tokio::test]
async fn sqlite_does_as_the_model_does_in_random_runs() {
    runs("sqlite").await;
}

#[tokio::test]
async fn sqlite_behind_faults_does_as_the_model_does_in_random_runs() {
    runs("sqlite behind faults").await;
}

#[tokio::test]
async fn postgres_does_as_the_model_does_in_random_runs() {
    runs("postgres").await;
}

#[tokio::test]
async fn postgres_behind_faults_does_as_the_model_does_in_random_runs() {
    runs("postgres behind faults").await;
}
