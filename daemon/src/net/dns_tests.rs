//! What is asked of the name servers, and what their answers mean.

use std::net::{Ipv4Addr, Ipv6Addr};

use callbackd_bench::dns::{Answer as Told, NameServer};

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

async fn resolver(names: &[(&str, Told)]) -> (NameServer, Dns) {
    let server = NameServer::start().await.unwrap();
    for (name, answer) in names {
        server.set(name, answer.clone());
    }
    let dns = Dns::new(&Config { servers: vec![server.address], cache_entries: 100 }).unwrap();
    (server, dns)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn both(v4: &[IpAddr], v6: &[IpAddr]) -> Told {
    Told::Addresses(v4.iter().chain(v6).copied().collect())
}

#[tokio::test]
async fn both_families_are_asked_for() {
    let (_server, dns) = resolver(&[
        ("four.example", both(&[V4], &[])),
        ("six.example", both(&[], &[V6])),
        ("two.example", both(&[V4], &[V6])),
    ])
    .await;
    assert_eq!(dns.lookup("four.example", soon()).await, Ok(vec![V4]));
    assert_eq!(dns.lookup("six.example", soon()).await, Ok(vec![V6]));
    let mut found = dns.lookup("two.example", soon()).await.unwrap();
    found.sort();
    assert_eq!(found, [V4, V6]);
    assert_eq!(dns.lookup("none.example", soon()).await, Err(DnsError::NotFound));
}

#[tokio::test]
async fn a_name_is_asked_for_as_it_is() {
    let names =
        ["-dash.example.com", "dash-.example.com", "_under.example.com", "a--b.example.com", "xn--zca.example.com"];
    let (_server, dns) = resolver(&names.map(|name| (name, both(&[V4], &[])))).await;
    for name in names {
        assert_eq!(dns.lookup(name, soon()).await, Ok(vec![V4]), "{name}");
    }
}

#[tokio::test]
async fn one_family_does_not_wait_for_the_other() {
    let (_server, dns) = resolver(&[("slow.example", Told::SlowV6(vec![V4, V6], Duration::from_secs(1)))]).await;
    let mut answers = dns.ask("slow.example", soon());
    assert_eq!(answers.next().await, Some((Family::V4, Ok(vec![V4]))));
    assert!(!answers.is_done());
    assert_eq!(answers.next().await, Some((Family::V6, Ok(vec![V6]))));
    assert!(answers.is_done());
    assert_eq!(answers.next().await, None);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_kept_for_the_next_lookup() {
    let slow = Duration::from_millis(300);
    let (server, dns) = resolver(&[("slow.example", Told::SlowV6(vec![V4, V6], slow))]).await;
    let mut answers = dns.ask("slow.example", soon());
    assert_eq!(answers.next().await, Some((Family::V4, Ok(vec![V4]))));
    drop(answers);
    // From now on the name server is silent, so all that is known comes from the answers before.
    server.until_answered(2).await;
    server.set("slow.example", Told::Silence);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut found = dns.lookup("slow.example", Instant::now() + Duration::from_millis(100)).await.unwrap();
        found.sort();
        if found == [V4, V6] {
            return;
        }
        assert!(Instant::now() < until, "{found:?}");
    }
}

#[tokio::test]
async fn a_silent_or_failing_server_is_told_from_a_missing_name() {
    let (_server, dns) = resolver(&[("silent.example", Told::Silence), ("broken.example", Told::Failure)]).await;
    let end = Instant::now() + Duration::from_millis(200);
    assert_eq!(dns.lookup("silent.example", end).await, Err(DnsError::Timeout));
    assert!(matches!(dns.lookup("broken.example", soon()).await, Err(DnsError::Failed(_))));
}

#[test]
fn the_worse_failure_describes_the_lookup() {
    let failed = || DnsError::Failed("x".to_owned());
    for (one, other, whole) in [
        (None, DnsError::NotFound, DnsError::NotFound),
        (Some(DnsError::NotFound), DnsError::Timeout, DnsError::Timeout),
        (Some(DnsError::Timeout), DnsError::NotFound, DnsError::Timeout),
        (Some(failed()), DnsError::Timeout, DnsError::Timeout),
        (Some(failed()), DnsError::NotFound, failed()),
        (Some(DnsError::NotFound), failed(), failed()),
    ] {
        assert_eq!(worse(one.clone(), other.clone()), whole, "{one:?} {other:?}");
    }
}
