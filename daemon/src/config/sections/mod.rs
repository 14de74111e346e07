//! From the written configuration to the values that the rooms take, section by section.

mod api;
mod deliver;
mod egress;
mod intake;

use std::path::PathBuf;

use super::raw::{Log, Raw};
use super::{Config, ConfigError, Retention, Wrong};
use crate::base::telemetry;
use crate::model::dead_letter::ValueBudget;
use crate::store;

pub(super) fn build(raw: &Raw, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let directory = PathBuf::from(&raw.store.path);
    let ops_listen = given(&raw.ops.listen).map(str::parse).transpose();
    Ok(Config {
        intake: intake::intake(raw, wrong)?,
        body_budget: raw.intake.body_budget.0,
        caps: deliver::caps(raw, wrong)?,
        park_after: raw.deliver.park_after.0,
        lease: raw.deliver.lease.0,
        user_agent: deliver::user_agent(raw),
        exchange: deliver::exchange(raw, wrong)?,
        retry: deliver::retry(raw),
        egress: egress::egress(raw, wrong)?,
        keyring_file: PathBuf::from(&raw.keyring.file),
        api: api::api(raw, &directory, wrong)?,
        ops_listen: ops_listen.map_err(|_| wrong("ops.listen", "write \"address:port\""))?,
        log: log(&raw.log, wrong)?,
        grace: raw.shutdown.grace.0,
        retention: Retention {
            settled: raw.retention.settled.0,
            dead_letters: raw.retention.dead_letters.0,
            event_ids: raw.retention.event_ids.0,
        },
        store: store::Config::Directory(directory),
        values: ValueBudget {
            of_topic: raw.store.dead_letter_bytes_of_topic.0 as u64,
            in_all: raw.store.dead_letter_bytes.0 as u64,
        },
    })
}

fn log(log: &Log, wrong: &Wrong<'_>) -> Result<telemetry::Config, ConfigError> {
    let format = match log.format.as_str() {
        "json" => telemetry::Format::Json,
        "human" => telemetry::Format::Human,
        _ => return Err(wrong("log.format", "say \"json\" or \"human\"")),
    };
    telemetry::check_level(&log.level).map_err(|why| wrong("log.level", &why))?;
    Ok(telemetry::Config { format, level: log.level.clone() })
}

/// A text that may be left empty.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
