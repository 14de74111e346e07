//! The configuration as it is written: the shape of `config/callbackd.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use scale_callback_serve::text::duration;
use serde::{Deserialize, Deserializer, de};

use super::hints::{not_a_duration, not_a_size};
use super::size::parse_size;

#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    pub(super) kafka: Kafka,
    pub(super) intake: Intake,
    pub(super) instance: Instance,
    pub(super) store: Store,
    pub(super) outcomes: Outcomes,
    pub(super) deliver: Deliver,
    pub(super) retry: Retry,
    pub(super) egress: Egress,
    pub(super) dns: Dns,
    pub(super) keyring: Keyring,
    pub(super) api: Api,
    pub(super) ops: Ops,
    pub(super) log: Log,
    pub(super) shutdown: Shutdown,
    pub(super) retention: Retention,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kafka {
    pub(super) brokers: String,
    pub(super) group: String,
    pub(super) topics: Vec<String>,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) property_files: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Intake {
    pub(super) max_event: Size,
    pub(super) body_budget: Size,
    pub(super) window: usize,
    pub(super) tombstones: String,
    pub(super) rebalance_grace: Span,
}

#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Store {
    pub(super) url: String,
    pub(super) path: String,
    pub(super) migrate: String,
    pub(super) parked_bytes: Size,
    pub(super) parked_bytes_of_queue: Size,
    pub(super) pending_rows: u64,
    pub(super) free_bytes: Size,
    pub(super) dead_letter_bytes: Size,
    pub(super) dead_letter_bytes_of_topic: Size,
    pub(super) bodies: String,
    pub(super) kept_bytes: Size,
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcomes {
    pub(super) topic: String,
    pub(super) dead_letters_topic: String,
    pub(super) backlog: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Deliver {
    pub(super) fast: usize,
    pub(super) slow: usize,
    pub(super) settling: usize,
    pub(super) per_endpoint: usize,
    pub(super) per_origin: usize,
    pub(super) per_team_percent: usize,
    pub(super) park_after: Span,
    pub(super) dns_timeout: Span,
    pub(super) connect_timeout: Span,
    pub(super) tls_timeout: Span,
    pub(super) head_timeout: Span,
    pub(super) total_timeout: Span,
    pub(super) lease: Span,
    pub(super) contact: String,
    pub(super) http2: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Retry {
    pub(super) first: Span,
    pub(super) doublings: u32,
    pub(super) retries: u32,
    pub(super) horizon: Span,
    pub(super) end_on_gone: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Egress {
    pub(super) http: String,
    pub(super) ca_file: String,
    pub(super) nat64: Vec<String>,
    pub(super) allow: Vec<Allow>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Allow {
    pub(super) net: Option<String>,
    pub(super) host: Option<String>,
    #[serde(default)]
    pub(super) ports: Vec<u16>,
    #[serde(default)]
    pub(super) teams: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dns {
    pub(super) servers: Vec<String>,
    pub(super) cache_entries: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Keyring {
    pub(super) file: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Api {
    pub(super) socket: String,
    pub(super) listen: String,
    pub(super) tls_cert: String,
    pub(super) tls_key: String,
    pub(super) behind_tls_proxy: bool,
    pub(super) hosts: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ops {
    pub(super) listen: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    pub(super) format: String,
    pub(super) level: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Shutdown {
    pub(super) grace: Span,
}

#[derive(Debug, Deserialize)]
pub(super) struct Retention {
    pub(super) settled: Span,
    pub(super) dead_letters: Span,
    pub(super) event_ids: Span,
}

/// A duration, written "30s".
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

/// A size, written "5MiB".
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) usize);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map(Self).ok_or_else(|| de::Error::custom(not_a_duration(&text)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Self).ok_or_else(|| de::Error::custom(not_a_size(&text)))
    }
}
