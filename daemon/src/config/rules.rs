//! Combinations of values that can't work.

use std::time::Duration;

use super::{Config, ConfigError, Wrong};
use crate::intake;
use crate::model::retry::RetryPolicy;

/// A rule that must hold, the key that is named if it does not, and the sentence for that.
type Rule = (bool, &'static str, &'static str);

pub(super) fn check(config: &Config, wrong: &Wrong<'_>) -> Result<(), ConfigError> {
    intake::settings::check(&config.intake).map_err(|why| wrong("kafka.properties", &why))?;
    let rules = intake_rules(config).into_iter().chain(delivery_rules(config)).chain(time_rules(config));
    match rules.into_iter().find(|(holds, _, _)| !holds) {
        Some((_, key, why)) => Err(wrong(key, why)),
        None => Ok(()),
    }
}

fn intake_rules(config: &Config) -> [Rule; 7] {
    let intake = &config.intake;
    let poll = intake::settings::max_poll_interval(intake);
    [
        (!intake.topics.is_empty(), "kafka.topics", "name at least one topic"),
        (!intake.group.is_empty(), "kafka.group", "the consumer group needs a name"),
        (intake.max_event_bytes <= intake::settings::LARGEST_EVENT, "intake.max_event", "at most 16MiB"),
        (config.body_budget <= 1 << 32, "intake.body_budget", "at most 4GiB"),
        (
            config.body_budget >= intake.max_event_bytes.saturating_mul(2),
            "intake.body_budget",
            "it must hold at least twice intake.max_event",
        ),
        (intake.window >= 1, "intake.window", "at least 1"),
        (
            intake.rebalance_grace < poll / 3,
            "intake.rebalance_grace",
            "it must be less than a third of max.poll.interval.ms (300s unless set)",
        ),
    ]
}

fn delivery_rules(config: &Config) -> [Rule; 5] {
    let caps = &config.caps;
    [
        (
            config.user_agent.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "deliver.contact",
            "it is sent in a header: printable ASCII only",
        ),
        (
            caps.fast >= 1 && caps.slow >= 1 && caps.settling >= 1,
            "deliver.fast",
            "fast, slow and settling must each be at least 1",
        ),
        (caps.endpoint >= 1 && caps.origin >= 1, "deliver.per_endpoint", "at least 1"),
        (config.retry.retries <= RetryPolicy::MOST_RETRIES, "retry.retries", "at most 1000"),
        (
            !config.retry.horizon.is_zero() && config.retry.horizon <= RetryPolicy::LONGEST_HORIZON,
            "retry.horizon",
            "it must be more than 0, and at most 30d",
        ),
    ]
}

fn time_rules(config: &Config) -> [Rule; 5] {
    let d = config.exchange.deadlines;
    let timeouts = [d.dns, d.connect, d.tls, d.head, d.total];
    let kept = [config.retention.settled, config.retention.dead_letters, config.retention.event_ids];
    [
        (timeouts.iter().all(|t| !t.is_zero()), "deliver.total_timeout", "every timeout must be more than 0"),
        (kept.iter().all(|k| *k >= Duration::from_secs(60)), "retention.settled", "everything is kept for at least 1m"),
        (
            config.grace >= d.total.saturating_add(Duration::from_secs(2)),
            "shutdown.grace",
            "it must be at least deliver.total_timeout + 2s",
        ),
        (
            config.lease > d.total.saturating_add(Duration::from_secs(5)),
            "deliver.lease",
            "it must be more than deliver.total_timeout + 5s",
        ),
        (
            !config.park_after.is_zero() && config.park_after < config.grace,
            "deliver.park_after",
            "it must be more than 0, and less than shutdown.grace",
        ),
    ]
}
