//! The sections `kafka` and `intake`.

use super::super::hints::not_a_broker;
use super::super::raw::Raw;
use super::super::settings::KAFKA_PROPERTY_FILES;
use super::super::{ConfigError, Wrong};
use super::store::instance_name;
use crate::intake::{Config, Tombstones};

pub(super) fn intake(raw: &Raw, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let mut properties = raw.kafka.properties.clone();
    for (name, path) in &raw.kafka.property_files {
        let value = std::fs::read_to_string(path)
            .map_err(|error| wrong(KAFKA_PROPERTY_FILES, &format!("{name}: {path}: {error}")))?;
        properties.insert(name.clone(), value.trim_end_matches(['\r', '\n']).to_owned());
    }
    let brokers = raw.kafka.brokers.split(',').map(str::trim);
    if let Some(why) = brokers.filter_map(not_a_broker).next() {
        return Err(wrong("kafka.brokers", &why));
    }
    let tombstones = match raw.intake.tombstones.as_str() {
        "skip" => Tombstones::Skip,
        "dead_letter" => Tombstones::DeadLetter,
        _ => return Err(wrong("intake.tombstones", "say \"skip\" or \"dead_letter\"")),
    };
    Ok(Config {
        brokers: raw.kafka.brokers.clone(),
        group: raw.kafka.group.clone(),
        member: instance_name(raw, wrong)?,
        topics: raw.kafka.topics.clone(),
        properties,
        max_event_bytes: raw.intake.max_event.0,
        window: raw.intake.window,
        tombstones,
        rebalance_grace: raw.intake.rebalance_grace.0,
    })
}
