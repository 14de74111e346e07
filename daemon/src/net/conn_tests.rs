//! The pool of connections: who gets which one, and what is never kept.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::DuplexStream;

use super::*;
use crate::net::target::Target;

fn key(team: &str, host: &str, generation: u64) -> PoolKey {
    let target = Target::parse(&format!("https://{host}/")).unwrap();
    PoolKey { team: team.into(), origin: target.origin, generation }
}

/// A connection, and the end of the receiver. It stays open as long as that end is kept.
async fn connection(http2: bool) -> (Connection, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let dialed = Dialed { stream: Box::new(ours), meter: Arc::new(Meter::new()), peer, http2, tls: None };
    (Connection::over(dialed).await.unwrap(), theirs)
}

fn count(pool: &Pool) -> usize {
    pool.0.lock().unwrap().count
}

#[tokio::test]
async fn an_idle_connection_goes_to_its_own_key_alone() {
    let pool = Pool::default();
    let ours = key("team_a", "a.example", 1);
    let (connection, _end) = connection(false).await;
    pool.put(ours.clone(), connection);
    for other in [key("team_b", "a.example", 1), key("team_a", "b.example", 1), key("team_a", "a.example", 2)] {
        assert!(pool.take(&other).is_none(), "{other:?}");
    }
    let taken = pool.take(&ours).expect("it is idle");
    assert!(taken.reused);
    assert!(pool.take(&ours).is_none(), "it is in use");
    assert_eq!(count(&pool), 0);
}

#[tokio::test]
async fn the_connection_used_last_is_taken_first() {
    let pool = Pool::default();
    let key = key("team_a", "a.example", 1);
    let mut ends = Vec::new();
    for port in [1, 2] {
        let (ours, theirs) = tokio::io::duplex(1024);
        ends.push(theirs);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dialed = Dialed { stream: Box::new(ours), meter: Arc::new(Meter::new()), peer, http2: false, tls: None };
        pool.put(key.clone(), Connection::over(dialed).await.unwrap());
    }
    assert_eq!([pool.take(&key), pool.take(&key)].map(|taken| taken.unwrap().peer().port()), [2, 1]);
}

#[tokio::test]
async fn a_key_keeps_sixteen_idle_connections_and_all_keys_a_thousand() {
    let pool = Pool::default();
    let mut ends = Vec::new();
    for _ in 0..IDLE_PER_KEY + 3 {
        let (connection, end) = connection(false).await;
        ends.push(end);
        pool.put(key("team_a", "a.example", 1), connection);
    }
    assert_eq!(count(&pool), IDLE_PER_KEY);
    for n in 0..IDLE_IN_ALL {
        let (connection, end) = connection(false).await;
        ends.push(end);
        pool.put(key("team_a", &format!("host-{n}.example"), 1), connection);
    }
    assert_eq!(count(&pool), IDLE_IN_ALL);
    assert!(pool.take(&key("team_a", &format!("host-{}.example", IDLE_IN_ALL - 1), 1)).is_none(), "it came too late");
}

#[tokio::test]
async fn what_is_closed_too_old_or_idle_too_long_is_not_used() {
    let pool = Pool::default();
    let key = key("team_a", "a.example", 1);
    let (closed, end) = connection(false).await;
    pool.put(key.clone(), closed);
    drop(end);
    let until = Instant::now() + Duration::from_secs(10);
    while !pool.0.lock().unwrap().by_key[&key].idle[0].is_closed() {
        assert!(Instant::now() < until, "the library notices the end of the stream");
        tokio::task::yield_now().await;
    }
    assert!(pool.take(&key).is_none());
    assert_eq!(count(&pool), 0);

    let long_ago = |age: Duration| Instant::now().checked_sub(age).expect("the machine is up for longer");
    let (mut idle, _idle_end) = connection(false).await;
    idle.idle_since = long_ago(IDLE);
    assert!(!idle.usable(Instant::now()));
    let (mut old, _old_end) = connection(false).await;
    Arc::get_mut(&mut old.shared).expect("nobody else has it").born = long_ago(AGE);
    pool.put(key.clone(), old);
    assert_eq!(count(&pool), 1);
    pool.sweep();
    assert_eq!(count(&pool), 0);
    assert!(pool.0.lock().unwrap().by_key.is_empty(), "a key without connections is forgotten");
}

#[tokio::test]
async fn requests_share_one_http2_connection_as_far_as_it_has_room() {
    let pool = Pool::default();
    let key = key("team_a", "a.example", 1);
    let (first, _end) = connection(true).await;
    first.shared.streams.store(3, Ordering::Relaxed);
    pool.offer(&key, &first);
    let second = pool.take(&key).expect("a share");
    let third = pool.take(&key).expect("a share");
    assert!(second.reused && Arc::ptr_eq(&second.shared, &first.shared) && Arc::ptr_eq(&third.shared, &first.shared));
    assert!(pool.take(&key).is_none(), "the receiver takes three requests at once");
    pool.put(key.clone(), third);
    assert!(pool.take(&key).is_some(), "one has ended");
    assert_eq!(count(&pool), 1, "however many share it");

    let (other, _other_end) = connection(true).await;
    pool.offer(&key, &other);
    assert!(Arc::ptr_eq(&pool.take(&key).unwrap().shared, &first.shared), "the first one is kept");
    pool.retire(&key, &other);
    assert_eq!(count(&pool), 1, "another connection than the one that is kept");
    pool.retire(&key, &first);
    assert!(pool.take(&key).is_none());
    assert_eq!(count(&pool), 0);
}
