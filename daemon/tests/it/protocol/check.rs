//! What must hold in every state, and what every state must come to.

use callbackd::model::settlement::Ended;

use super::world::{Step, World};

/// The invariants of a state.
pub(super) fn state(world: &World) -> Result<(), &'static str> {
    let rows = &world.store.rows;
    if world.store.is_above_record && rows.settled.is_none() && rows.pending.is_none() {
        return Err("the watermark is above a record without a row");
    }
    let ended = rows.settled.as_ref().map(|settled| settled.ended);
    if world.was_delivered && ended != Some(Ended::Delivered) {
        return Err("a delivered callback is not delivered any more");
    }
    let live = rows.pending.as_ref().filter(|pending| pending.round > 0 || rows.settled.is_none());
    let counted = live.map(|pending| pending.attempts).or(rows.settled.as_ref().map(|settled| settled.attempts));
    if counted.is_some_and(|counted| counted != world.settles) {
        return Err("the count of attempts is not that of the settles that were applied");
    }
    if world.successes > 1 + world.resends + world.at_risk {
        return Err("a callback was repeated more often than attempts were unsettled at a fault");
    }
    Ok(())
}

/// The longest way to the end.
const STEPS: usize = 60;

/// Without further faults, the callback ends: nothing is forgotten.
pub(super) fn ends(world: &World) -> Result<(), String> {
    let mut now = world.clone();
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let Some(step) = now.next_of_a_quiet_world() else { break };
        steps.push(step);
        now = now.after(step).map_err(|why| format!("{why}, after {}", told(&steps)))?;
    }
    let rows = &now.store.rows;
    if rows.settled.is_some() && rows.pending.is_none() && now.store.is_above_record {
        return Ok(());
    }
    Err(format!("the callback does not end; after {}", told(&steps)))
}

fn told(steps: &[Step]) -> String {
    format!("{steps:?}")
}
