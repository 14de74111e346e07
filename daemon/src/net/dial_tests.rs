//! Which addresses of a name are called, and in which order.

use tokio::net::TcpListener;

use super::*;
use crate::model::team::HttpPolicy;
use crate::net::egress::{AllowRule, Allowed, Net};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// No rules, so only public addresses are allowed.
fn nothing_special() -> Policy {
    Policy {
        allow: Vec::new(),
        never: Vec::new(),
        own: Vec::new(),
        nat64: Vec::new(),
        http: HttpPolicy::Allow,
        generation: 1,
    }
}

fn loopback() -> Policy {
    let what = Allowed::Net(Net::parse("127.0.0.0/8").unwrap());
    Policy { allow: vec![AllowRule { what, ports: Vec::new(), teams: Vec::new() }], ..nothing_special() }
}

#[test]
fn the_families_take_turns() {
    for (found, ordered) in [
        (vec![], vec![]),
        (vec!["8.8.8.8", "9.9.9.9"], vec!["8.8.8.8", "9.9.9.9"]),
        (vec!["8.8.8.8", "2606::1"], vec!["2606::1", "8.8.8.8"]),
        (
            vec!["8.8.8.8", "9.9.9.9", "7.7.7.7", "2606::1", "2606::2"],
            vec!["2606::1", "8.8.8.8", "2606::2", "9.9.9.9", "7.7.7.7"],
        ),
    ] {
        assert_eq!(interleaved(&addresses(&found)), addresses(&ordered), "{found:?}");
    }
}

#[test]
fn one_denied_address_refuses_the_name() {
    let policy = nothing_special();
    let target = Target::parse("https://a.example:8443/").unwrap();
    let called = allowed(&target, "team_a", &policy, &addresses(&["8.8.8.8", "2606:4700::1"])).unwrap();
    assert_eq!(called, ["[2606:4700::1]:8443".parse().unwrap(), "8.8.8.8:8443".parse::<SocketAddr>().unwrap()]);

    let failed = allowed(&target, "team_a", &policy, &addresses(&["8.8.8.8", "10.0.0.1"])).unwrap_err();
    assert_eq!((failed.outcome, failed.hopeless), (Outcome::AddressDenied, false), "a name may get other addresses");
    let literal = Target::parse("https://10.0.0.1/").unwrap();
    let failed = allowed(&literal, "team_a", &policy, &addresses(&["10.0.0.1"])).unwrap_err();
    assert_eq!((failed.outcome, failed.hopeless), (Outcome::AddressDenied, true));
}

#[test]
fn at_most_eight_addresses_are_called() {
    let target = Target::parse("http://a.example/").unwrap();
    let many: Vec<_> = (1..=20).map(|n| ip(&format!("8.8.8.{n}"))).collect();
    assert_eq!(allowed(&target, "team_a", &nothing_special(), &many).unwrap().len(), RACE);
}

/// A port of loopback where nobody listens.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_first_connection_wins_and_the_first_error_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let closed = closed_port().await;
    let end = Instant::now() + Duration::from_secs(10);
    let (_stream, peer) = connect(&[closed, open], end).await.unwrap();
    assert_eq!(peer, open);

    let failed = connect(&[closed], end).await.unwrap_err();
    assert_eq!((failed.outcome, failed.peer), (Outcome::ConnectRefused, Some(closed)));
    let failed = connect(&[], end).await.unwrap_err();
    assert_eq!(failed.outcome, Outcome::DnsFailed);
    let failed = connect(&[open], Instant::now()).await.map(drop).err();
    assert!(failed.is_none_or(|failed| failed.outcome == Outcome::ConnectTimeout), "the deadline has passed");
}

#[tokio::test]
async fn the_connected_peer_is_judged_once_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let target = Target::parse(&format!("http://127.0.0.1:{}/", open.port())).unwrap();
    let second = Duration::from_secs(1);
    let deadlines = Deadlines { dns: second, connect: second, tls: second, head: second, total: second };
    // It is never asked.
    let dns = super::super::dns::Config { servers: vec![closed_port().await], cache_entries: 0 };
    let dialer = Dialer { dns: Dns::new(&dns).unwrap(), tls: tls::connector(None, true).unwrap(), deadlines };
    let end = Instant::now() + second;
    let connected = dialer.connect(&[open], &target, "team_a", &loopback(), end).await;
    assert_eq!(connected.map(|(_, peer)| peer).unwrap(), open);
    let failed = dialer.connect(&[open], &target, "team_a", &nothing_special(), end).await.unwrap_err();
    assert_eq!((failed.outcome, failed.peer), (Outcome::AddressDenied, Some(open)));
}
