//! How far we are behind the end of the log, and up to which time all records are durable.

use std::collections::HashMap;
use std::sync::Arc;

use super::assigned::Held;
use super::context::Context;
use crate::base::clock::Timestamp;

pub(super) fn measure(context: &Context) {
    let deps = &context.deps;
    let ends = context.ends();
    let mut by_topic = HashMap::<Arc<str>, i64>::new();
    let mut oldest: Option<Timestamp> = None;
    let now = deps.clock.now();
    let mut held_for = 0.0_f64;
    for assigned in context.partitions().iter_mut() {
        let end = ends.get(&(assigned.key.topic.to_string(), assigned.key.number)).copied();
        // Only durable records count.
        let durable = deps.flight.inflight.watermark(&assigned.key).map_or(0, |watermark| watermark.upto);
        let lag = end.map_or(0, |end| end.offset.saturating_sub(durable).max(0));
        assigned.lag = lag;
        *by_topic.entry(Arc::clone(&assigned.key.topic)).or_default() += lag;
        let is_read = assigned.machine.reads() && !assigned.machine.is_paused();
        let end_reached = end.filter(|end| end.offset <= durable && is_read);
        assigned.recorded.recorded(durable, end_reached.and_then(|end| end.ended_there_at));
        assigned.held = Held::now(assigned.held, end.and_then(|end| end.open_from), durable, now);
        if let Some(held) = assigned.held {
            held_for = held_for.max(now.since(held.since).as_secs_f64());
        }
        if lag > 0 {
            oldest = [oldest, assigned.recorded.newest()].into_iter().flatten().min();
        }
    }
    for (topic, lag) in by_topic {
        deps.metrics.kafka_lag_records.with_label_values(&[&*topic]).set(lag);
    }
    let behind = oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
    deps.metrics.kafka_lag_seconds.set(behind.max(held_for));
    deps.metrics.open_transaction_seconds.set(held_for);
    for (topic, age) in deps.flight.inflight.watermark_ages() {
        deps.metrics.watermark_age_seconds.with_label_values(&[&*topic]).set(age.as_secs_f64());
    }
}
