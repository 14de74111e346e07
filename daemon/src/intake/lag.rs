//! How far behind the log's end we are, and up to which time records are recorded.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::context::Context;
use crate::base::clock::Timestamp;

pub(super) fn measure(context: &Context) {
    let ends = context.ends.lock().unwrap_or_else(PoisonError::into_inner);
    let mut by_topic = HashMap::<Arc<str>, i64>::new();
    let mut oldest: Option<Timestamp> = None;
    for ((topic, number), partition) in context.partitions().iter_mut() {
        let end = ends.get(&(topic.to_string(), *number)).copied();
        // Only what is durable counts.
        let stored = context.inflight.stored(&partition.key).map_or(0, |watermark| watermark.upto);
        let lag = end.map_or(0, |end| end.offset.saturating_sub(stored).max(0));
        partition.lag = lag;
        *by_topic.entry(Arc::clone(topic)).or_default() += lag;
        let end_seen = end.filter(|end| end.offset <= stored && !partition.paused && partition.reads());
        partition.progress.recorded(stored, end_seen.and_then(|end| end.seen_until));
        if lag > 0 {
            oldest = [oldest, partition.progress.newest()].into_iter().flatten().min();
        }
    }
    for (topic, lag) in by_topic {
        context.metrics.kafka_lag_records.with_label_values(&[&*topic]).set(lag);
    }
    let behind = oldest.map_or(0.0, |oldest| context.clock.now().since(oldest).as_secs_f64());
    context.metrics.kafka_lag_seconds.set(behind);
    for (topic, age) in context.inflight.watermark_ages() {
        context.metrics.watermark_age_seconds.with_label_values(&[&*topic]).set(age.as_secs_f64());
    }
}
