//! From the written configuration to the values that the rooms take, section by section.

mod api;
mod deliver;
mod egress;
mod intake;
mod outcomes;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::hints::not_an_address;
use super::raw::{Log, Raw};
use super::settings::KAFKA_PROPERTY_FILES;
use super::{Config, ConfigError, Retention, Wrong};
use crate::base::telemetry;
use crate::deliver::space_watch::SpaceLimits;
use crate::keyring;
use crate::store::Options;

pub(super) fn build(raw: &Raw, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let directory = store::directory(raw, wrong)?;
    let topics = outcomes::topics(raw, wrong)?;
    let ops_listen = given(&raw.ops.listen).map(|text| address("ops.listen", text, 9464, wrong)).transpose()?;
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
        keyring: given(&raw.keyring.file).map_or(keyring::Source::Unset, |file| keyring::Source::File(file.into())),
        secret_files: secret_files(raw),
        api: api::api(raw, &directory, wrong)?,
        ops_listen,
        log: log(&raw.log, wrong)?,
        grace: raw.shutdown.grace.0,
        retention: Retention {
            settled: raw.retention.settled.0,
            dead_letters: raw.retention.dead_letters.0,
            event_ids: raw.retention.event_ids.0,
        },
        store: store::config(raw, &directory, wrong)?,
        space: SpaceLimits {
            parked_bytes: raw.store.parked_bytes.0 as u64,
            parked_bytes_of_queue: raw.store.parked_bytes_of_queue.0 as u64,
            pending_rows: raw.store.pending_rows,
            free_bytes: raw.store.free_bytes.0 as u64,
            notices: raw.outcomes.backlog,
        },
        store_options: Options { notices: outcomes::notices(&topics), ..store::options(raw, wrong)? },
        topics,
    })
}

/// The Kafka client's properties that name a file with a private key.
const KEY_FILES: [&str; 2] = ["ssl.key.location", "ssl.keystore.location"];

fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let kafka = &raw.kafka;
    let values = kafka.property_files.iter().map(|(name, path)| (format!("{KAFKA_PROPERTY_FILES}.{name}"), path));
    let keys = KEY_FILES.iter().filter_map(|name| kafka.properties.get(*name).map(|path| ((*name).to_owned(), path)));
    let tls = given(&raw.api.tls_key).map(|_| ("api.tls_key".to_owned(), &raw.api.tls_key));
    values.chain(keys).chain(tls).map(|(name, path)| (name, PathBuf::from(path))).collect()
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

/// Reads an address with a port. `port` is the usual one, for the example of the sentence.
fn address(key: &str, text: &str, port: u16, wrong: &Wrong<'_>) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| wrong(key, &not_an_address(text, port)))
}

/// A text that may be left empty.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
