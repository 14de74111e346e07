//! The sections `deliver`, `dns` and `retry`.

use std::path::PathBuf;

use super::super::raw::Raw;
use super::super::{ConfigError, Wrong};
use super::{address, given};
use crate::model::retry::RetryPolicy;
use crate::net::dial::Deadlines;
use crate::net::{dns, exchange};
use crate::schedule::Caps;

pub(super) fn caps(raw: &Raw, wrong: &Wrong<'_>) -> Result<Caps, ConfigError> {
    let d = &raw.deliver;
    if !(1..=100).contains(&d.per_team_percent) {
        return Err(wrong("deliver.per_team_percent", "between 1 and 100"));
    }
    let share = d.fast.saturating_add(d.slow).saturating_mul(d.per_team_percent) / 100;
    Ok(Caps {
        endpoint: d.per_endpoint,
        origin: d.per_origin,
        team: share.max(1),
        fast: d.fast,
        slow: d.slow,
        settling: d.settling,
        unproven: (d.fast / 4).max(1),
        lane_bytes: raw.intake.body_budget.0 / 8,
        waiting: 64,
    })
}

pub(super) fn user_agent(raw: &Raw) -> String {
    format!("callbackd/{} {}", env!("CARGO_PKG_VERSION"), raw.deliver.contact).trim_end().to_owned()
}

pub(super) fn exchange(raw: &Raw, wrong: &Wrong<'_>) -> Result<exchange::Config, ConfigError> {
    let d = &raw.deliver;
    let servers = raw.dns.servers.iter().map(|text| address("dns.servers", text, 53, wrong));
    Ok(exchange::Config {
        deadlines: Deadlines {
            dns: d.dns_timeout.0,
            connect: d.connect_timeout.0,
            tls: d.tls_timeout.0,
            head: d.head_timeout.0,
            total: d.total_timeout.0,
        },
        dns: dns::Config { servers: servers.collect::<Result<_, _>>()?, cache_entries: raw.dns.cache_entries },
        http2: d.http2,
        ca_file: given(&raw.egress.ca_file).map(PathBuf::from),
    })
}

pub(super) fn retry(raw: &Raw) -> RetryPolicy {
    RetryPolicy {
        first: raw.retry.first.0,
        doublings: raw.retry.doublings,
        retries: raw.retry.retries,
        horizon: raw.retry.horizon.0,
        end_on_gone: raw.retry.end_on_gone,
    }
}
