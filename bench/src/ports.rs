//! Ports of loopback for servers that must be told theirs before they start. A server binds its port seconds after it was
//! chosen, so the port must be one that nobody else is given meanwhile: it lies below those that Linux gives to clients
//! and to whoever asks for port 0, and a process hands it out once.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;

/// Linux gives out ports from 32768 on by itself.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port where nobody listens, and which this process gives out once.
///
/// # Errors
/// No port is free.
pub fn free() -> anyhow::Result<u16> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different places.
    let start = std::process::id().wrapping_mul(101) % COUNT;
    for _ in 0..COUNT {
        let place = (start + TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {FIRST} and {} is free", FIRST + COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_clients_are_never_given_it() {
        let ports: std::collections::HashSet<u16> = (0..100).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 100);
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(ports.iter().all(|port| *port < lowest), "{ports:?} are below {lowest}");
    }
}
