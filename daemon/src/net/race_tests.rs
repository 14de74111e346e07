//! Which addresses are called, in which order, and what a late answer changes.

use tokio::net::TcpListener;

use super::*;
use crate::net::dns::{Config, Dns};
use callbackd_bench::dns::{Answer as Told, NameServer};

fn socket(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 443)
}

/// The addresses in the order in which they are called.
fn order(v6: &[&str], v4: &[&str]) -> Vec<SocketAddr> {
    let now = Instant::now();
    let mut schedule = Schedule::new(now);
    schedule.add(Family::V4, v4.iter().map(|text| socket(text)), true, now);
    schedule.add(Family::V6, v6.iter().map(|text| socket(text)), false, now);
    std::iter::from_fn(|| schedule.next_at().and_then(|_| schedule.take(now))).collect()
}

#[test]
fn the_families_take_turns() {
    for (v6, v4, ordered) in [
        (vec![], vec![], vec![]),
        (vec![], vec!["8.8.8.8", "9.9.9.9"], vec!["8.8.8.8", "9.9.9.9"]),
        (vec!["2606::1"], vec!["8.8.8.8"], vec!["2606::1", "8.8.8.8"]),
        (
            vec!["2606::1", "2606::2"],
            vec!["8.8.8.8", "9.9.9.9", "7.7.7.7"],
            vec!["2606::1", "8.8.8.8", "2606::2", "9.9.9.9", "7.7.7.7"],
        ),
    ] {
        let expected: Vec<_> = ordered.into_iter().map(socket).collect();
        assert_eq!(order(&v6, &v4), expected);
    }
}

#[test]
fn at_most_eight_addresses_are_called() {
    let many: Vec<_> = (1..=20).map(|n| format!("8.8.8.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(order(&[], &many).len(), RACE);
}

#[test]
fn ipv4_waits_a_moment_for_ipv6_and_no_longer() {
    let now = Instant::now();
    let v4 = || std::iter::once(socket("8.8.8.8"));
    let mut schedule = Schedule::new(now);
    schedule.add(Family::V4, v4(), true, now);
    assert_eq!(schedule.next_at(), Some(now + RESOLUTION_DELAY), "IPv6 is still to come");
    schedule.add(Family::V6, std::iter::empty(), false, now);
    assert_eq!(schedule.next_at(), Some(now), "there is none");

    let mut schedule = Schedule::new(now);
    schedule.add(Family::V6, std::iter::once(socket("2606::1")), true, now);
    assert_eq!(schedule.next_at(), Some(now), "IPv6 waits for nothing");
    schedule.take(now);
    schedule.add(Family::V4, v4(), false, now);
    assert_eq!(schedule.next_at(), Some(now + HEAD_START), "the address that is being called has a head start");
    schedule.failed(now);
    assert_eq!(schedule.next_at(), Some(now), "it has failed");
}

#[test]
fn a_host_that_refuses_tells_more_than_a_network_that_is_not_there() {
    let mut causes = Causes::default();
    causes.add(io::ErrorKind::NetworkUnreachable.into(), socket("2606::1"));
    causes.add(io::ErrorKind::HostUnreachable.into(), socket("2606::2"));
    causes.add(io::ErrorKind::ConnectionRefused.into(), socket("8.8.8.8"));
    causes.add(io::ErrorKind::ConnectionRefused.into(), socket("9.9.9.9"));
    let (error, address) = causes.connect.unwrap();
    assert_eq!((error.kind(), address), (io::ErrorKind::ConnectionRefused, socket("8.8.8.8")));
}

/// Runs a race for `name.example` at `port`, with a judge that denies `denied`.
async fn race(port: u16, told: Told, denied: Option<IpAddr>) -> Result<SocketAddr, Failed> {
    let server = NameServer::start().await.unwrap();
    server.set("name.example", told);
    let dns = Dns::new(&Config { servers: vec![server.address], cache_entries: 10 }).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let judge = |found: &[IpAddr]| match found.iter().find(|ip| Some(**ip) == denied) {
        Some(ip) => Err(Failed::new(Outcome::AddressDenied, ip)),
        None => Ok(()),
    };
    let race = Race { host: "name.example", port, judge: &judge, patience: Duration::from_secs(5), end };
    race.run(dns.ask("name.example", end)).await.map(|(_, address)| address)
}

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[tokio::test]
async fn the_family_that_listens_is_found() {
    for (listens, other) in [(V4, V6), (V6, V4)] {
        let listener = TcpListener::bind((listens, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connected = race(port, Told::Addresses(vec![V4, V6]), None).await.unwrap();
        assert_eq!(connected, SocketAddr::new(listens, port), "nothing listens at {other}");
    }
}

#[tokio::test]
async fn a_slow_answer_about_ipv6_does_not_hold_the_other_one() {
    let listener = TcpListener::bind((V4, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = Instant::now();
    let slow = Duration::from_secs(5);
    let connected = race(port, Told::SlowV6(vec![V4, V6], slow), None).await.unwrap();
    assert_eq!(connected, SocketAddr::new(V4, port));
    assert!(begun.elapsed() < slow, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_slow_answer_is_used_if_nothing_else_connects() {
    let listener = TcpListener::bind((V6, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connected = race(port, Told::SlowV6(vec![V4, V6], Duration::from_millis(400)), None).await.unwrap();
    assert_eq!(connected, SocketAddr::new(V6, port));
}

#[tokio::test]
async fn a_late_answer_that_is_denied_refuses_the_name() {
    // Nothing listens at the first address, so the race still goes on when the second one becomes known.
    let port = TcpListener::bind((V4, 0)).await.unwrap().local_addr().unwrap().port();
    let told = Told::SlowV6(vec![V4, V6], Duration::from_millis(400));
    let failed = race(port, told.clone(), Some(V6)).await.unwrap_err();
    assert_eq!(failed.outcome, Outcome::AddressDenied);
    let failed = race(port, told, None).await.unwrap_err();
    assert_eq!((failed.outcome, failed.peer), (Outcome::ConnectRefused, Some(SocketAddr::new(V4, port))));
}

#[tokio::test]
async fn a_name_without_an_address_is_told_from_a_silent_server() {
    assert_eq!(race(1, Told::Addresses(Vec::new()), None).await.unwrap_err().outcome, Outcome::DnsFailed);
    let judge = |_: &[IpAddr]| Ok(());
    let end = Instant::now() + Duration::from_millis(100);
    let server = NameServer::start().await.unwrap();
    server.set("name.example", Told::Silence);
    let dns = Dns::new(&Config { servers: vec![server.address], cache_entries: 10 }).unwrap();
    let race = Race { host: "name.example", port: 1, judge: &judge, patience: Duration::from_secs(5), end };
    let failed = race.run(dns.ask("name.example", end)).await.unwrap_err();
    assert_eq!(failed.outcome, Outcome::DnsTimeout);
}
