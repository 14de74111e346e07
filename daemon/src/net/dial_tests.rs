//! Which addresses of a name may be called.

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
fn one_denied_address_refuses_the_name() {
    let policy = nothing_special();
    let target = Target::parse("https://a.example:8443/").unwrap();
    allowed(&target, "team_a", &policy, &addresses(&["8.8.8.8", "2606:4700::1"])).unwrap();
    allowed(&target, "team_a", &policy, &[]).unwrap();
    let failed = allowed(&target, "team_a", &policy, &addresses(&["8.8.8.8", "10.0.0.1"])).unwrap_err();
    assert_eq!((failed.outcome, failed.hopeless), (Outcome::AddressDenied, false), "a name may get other addresses");
    let literal = Target::parse("https://10.0.0.1/").unwrap();
    let failed = allowed(&literal, "team_a", &policy, &addresses(&["10.0.0.1"])).unwrap_err();
    assert_eq!((failed.outcome, failed.hopeless), (Outcome::AddressDenied, true));
}

/// A port of loopback where nobody listens.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
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
    let dialer = Dialer {
        dns: Dns::new(&dns).unwrap(),
        tls: tls::connector(None, true).unwrap(),
        http1: tls::connector(None, false).unwrap(),
        deadlines,
    };
    let end = Instant::now() + second;
    let connected = dialer.connect(Answers::known(vec![open.ip()]), &target, "team_a", &loopback(), end).await;
    assert_eq!(connected.map(|(_, peer)| peer).unwrap(), open);
    let failed =
        dialer.connect(Answers::known(vec![open.ip()]), &target, "team_a", &nothing_special(), end).await.unwrap_err();
    assert_eq!((failed.outcome, failed.peer), (Outcome::AddressDenied, None), "it was not called");
    assert!(judge_peer(&target, open, "team_a", &loopback()).is_ok());
    let failed = judge_peer(&target, open, "team_a", &nothing_special()).unwrap_err();
    assert_eq!((failed.outcome, failed.hopeless), (Outcome::AddressDenied, false));
}
