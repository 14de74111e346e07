//! The egress policy of this installation: the operator's rules, and the addresses that are always refused.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use crate::net::egress::Policy;

/// How long the lookup of all brokers' addresses may take.
const LOOK_UP: std::time::Duration = std::time::Duration::from_secs(3);

/// `ours`: the daemon's own listeners.
pub(super) async fn policy(config: &Config, ours: &[SocketAddr]) -> Policy {
    let mut never = ours.to_vec();
    let brokers: Vec<_> = config.intake.brokers.split(',').map(str::trim).collect();
    let looked_up = futures_util::future::join_all(
        brokers
            .iter()
            .map(|broker| async move { tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(*broker)).await }),
    );
    for (broker, found) in brokers.iter().zip(looked_up.await) {
        match found {
            Ok(Ok(addresses)) => never.extend(addresses),
            _ => tracing::warn!(broker, "the name of a broker has no address now, so egress can't refuse its address"),
        }
    }
    Policy {
        allow: config.egress.allow.clone(),
        never,
        own: own_addresses(),
        nat64: config.egress.nat64.clone(),
        http: config.egress.http,
        generation: 1,
    }
}

/// Addresses of this machine's interfaces, as the kernel lists them.
fn own_addresses() -> Vec<IpAddr> {
    let mut own = Vec::new();
    if let Ok(table) = std::fs::read_to_string("/proc/net/fib_trie") {
        let mut last = None;
        for line in table.lines() {
            let line = line.trim();
            if let Some(address) = line.strip_prefix("|-- ") {
                last = address.parse::<IpAddr>().ok();
            } else if line.starts_with("/32 host LOCAL") {
                own.extend(last);
            }
        }
    }
    if let Ok(table) = std::fs::read_to_string("/proc/net/if_inet6") {
        let addresses = table.lines().filter_map(|line| line.split_whitespace().next());
        own.extend(
            addresses
                .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
                .map(|bits| IpAddr::V6(std::net::Ipv6Addr::from_bits(bits))),
        );
    }
    own.sort();
    own.dedup();
    own
}
