//! The bodies that have not arrived whole: how many each sender may have at once, how fast each of them comes, and which one
//! gives way when there is no room for another. A body that arrives with its head is never counted here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scale_callback_serve::nets::{Net, Sender};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::rate::Rate;

/// Large bodies of one address at once: as many requests as one process of the platform sends to one server.
const LARGE_PER_ADDRESS: usize = 64;
/// Large bodies at once from addresses side by side.
const LARGE_PER_PREFIX: usize = 128;
/// A body gives way only after this time, since its rate is not known before.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// How many bodies may be waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitingBounds {
    pub(super) per_address: usize,
    pub(super) per_prefix: usize,
}

pub(super) struct Waiting {
    bounds: WaitingBounds,
    books: Mutex<Books>,
}

/// A body that is waited for; dropping it ends that.
pub(super) struct WaitingBody {
    waiting: Arc<Waiting>,
    id: u64,
    give_way: Arc<Notify>,
}

/// The sender has as many bodies under way as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// What became of the wish for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relief {
    /// A body gives way.
    OneGivesWay,
    /// The others are too young to be judged, or those that gave way have not left yet.
    NotYet,
    /// There is no other body that is waited for, and none that gave way still has its room.
    Nobody,
}

#[derive(Default)]
struct Books {
    next: u64,
    bodies: HashMap<u64, Body>,
    /// Bodies that gave way and still have their room.
    leaving: usize,
    /// How many bodies each net has, and how many of them are large.
    counts: HashMap<Net, Count>,
}

#[derive(Default, Clone, Copy)]
struct Count {
    all: usize,
    large: usize,
}

struct Body {
    sender: Sender,
    is_large: bool,
    began: Instant,
    rate: Rate,
    /// Since when it waits for room. Nobody reads it meanwhile, so its rate is the one of this moment.
    waits_since: Option<Instant>,
    give_way: Arc<Notify>,
}

impl Body {
    fn per_second(&self, now: Instant) -> f64 {
        match self.waits_since {
            // Nothing of it was read yet.
            Some(_) if !self.rate.is_known() => f64::INFINITY,
            since => self.rate.per_second(since.unwrap_or(now)),
        }
    }
}

impl Waiting {
    pub(super) fn new(bounds: WaitingBounds) -> Arc<Self> {
        Arc::new(Self { bounds, books: Mutex::default() })
    }

    /// A body of this sender is waited for from now on.
    pub(super) fn enter(self: &Arc<Self>, sender: Sender, now: Instant) -> Result<WaitingBody, TooMany> {
        let mut books = self.books();
        if books.count(sender.address).all >= self.bounds.per_address
            || books.count(sender.prefix).all >= self.bounds.per_prefix
        {
            return Err(TooMany);
        }
        let (id, give_way) = (books.next, Arc::new(Notify::new()));
        books.next += 1;
        let body = Body {
            sender,
            is_large: false,
            began: now,
            rate: Rate::new(now),
            waits_since: None,
            give_way: Arc::clone(&give_way),
        };
        for net in [sender.address, sender.prefix] {
            books.counts.entry(net).or_default().all += 1;
        }
        books.bodies.insert(id, body);
        Ok(WaitingBody { waiting: Arc::clone(self), id, give_way })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingBody {
    /// Bytes of the body came.
    pub(super) fn note(&self, bytes: usize, now: Instant) {
        if let Some(body) = self.waiting.books().bodies.get_mut(&self.id) {
            body.rate.note(bytes, now);
        }
    }

    /// The body is large. A large body has a place among those of its sender, for which a slower one gives way.
    pub(super) fn become_large(&self, now: Instant) -> Result<(), TooMany> {
        let mut books = self.waiting.books();
        let Some(sender) = books.bodies.get(&self.id).filter(|body| !body.is_large).map(|body| body.sender) else {
            return Ok(());
        };
        for (net, most) in [(sender.address, LARGE_PER_ADDRESS), (sender.prefix, LARGE_PER_PREFIX)] {
            if books.count(net).large >= most {
                let of_net = |body: &Body| body.is_large && [body.sender.address, body.sender.prefix].contains(&net);
                if books.make_slowest_give_way(self.id, now, of_net) != Relief::OneGivesWay {
                    return Err(TooMany);
                }
            }
        }
        if let Some(body) = books.bodies.get_mut(&self.id) {
            body.is_large = true;
        }
        for net in [sender.address, sender.prefix] {
            books.counts.entry(net).or_default().large += 1;
        }
        Ok(())
    }

    /// Room is short: the body that comes most slowly gives way, but never this one.
    pub(super) fn ask_for_room(&self, now: Instant) -> Relief {
        let mut books = self.waiting.books();
        if let Some(body) = books.bodies.get_mut(&self.id) {
            body.waits_since.get_or_insert(now);
        }
        books.make_slowest_give_way(self.id, now, |_| true)
    }

    /// The body could not come for a while, because nobody read it: its rate is measured anew.
    pub(super) fn begin_anew(&self, now: Instant) {
        if let Some(body) = self.waiting.books().bodies.get_mut(&self.id) {
            (body.began, body.rate, body.waits_since) = (now, Rate::new(now), None);
        }
    }

    /// Whether the body is large and comes with fewer bytes a second than this, as far as that is known after `grace`.
    pub(super) fn is_slower_than(&self, least: f64, grace: Duration, now: Instant) -> bool {
        let books = self.waiting.books();
        books.bodies.get(&self.id).is_some_and(|body| {
            body.is_large && now.saturating_duration_since(body.began) >= grace && body.rate.per_second(now) < least
        })
    }

    /// Waits until the body must give way.
    pub(super) async fn must_give_way(&self) {
        self.give_way.notified().await;
    }
}

impl Drop for WaitingBody {
    fn drop(&mut self) {
        let mut books = self.waiting.books();
        if books.remove(self.id).is_none() {
            // It gave way, and now its room is free.
            books.leaving = books.leaving.saturating_sub(1);
        }
    }
}

impl Books {
    fn count(&self, net: Net) -> Count {
        self.counts.get(&net).copied().unwrap_or_default()
    }

    /// The slowest of the bodies that `of` names gives way, but never the one that asks.
    fn make_slowest_give_way(&mut self, asking: u64, now: Instant, of: impl Fn(&Body) -> bool) -> Relief {
        let others = || self.bodies.iter().filter(|(id, body)| **id != asking && of(body));
        if others().next().is_none() {
            return if self.leaving > 0 { Relief::NotYet } else { Relief::Nobody };
        }
        let known = others().filter(|(_, body)| now.saturating_duration_since(body.began) >= LEAST_AGE);
        // The end of a body that holds nearly nothing would help nobody.
        let slowest = known.map(|(id, body)| (*id, body.per_second(now))).filter(|(_, rate)| rate.is_finite());
        // Of two that are equally slow, the older one.
        let slower = |one: &(u64, f64), other: &(u64, f64)| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0));
        let Some((id, _)) = slowest.min_by(slower) else { return Relief::NotYet };
        if let Some(body) = self.remove(id) {
            body.give_way.notify_one();
            self.leaving += 1;
        }
        Relief::OneGivesWay
    }

    fn remove(&mut self, id: u64) -> Option<Body> {
        let body = self.bodies.remove(&id)?;
        for net in [body.sender.address, body.sender.prefix] {
            if let Some(count) = self.counts.get_mut(&net) {
                count.all = count.all.saturating_sub(1);
                count.large = count.large.saturating_sub(usize::from(body.is_large));
                if count.all == 0 {
                    self.counts.remove(&net);
                }
            }
        }
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(address: &str) -> Sender {
        Sender::of(address.parse().unwrap())
    }

    async fn gave_way(body: &WaitingBody) -> bool {
        tokio::time::timeout(Duration::ZERO, body.must_give_way()).await.is_ok()
    }

    #[test]
    fn each_sender_has_so_many_bodies_and_no_more() {
        let waiting = Waiting::new(WaitingBounds { per_address: 2, per_prefix: 3 });
        let now = Instant::now();
        let enter = |address| waiting.enter(sender(address), now);
        let held = [enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_err());
        let another = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.3").is_err(), "its neighbours have three");
        let elsewhere = enter("198.51.100.1").unwrap();
        drop(held);
        assert!(enter("192.0.2.1").is_ok());
        drop((another, elsewhere));
        assert!(waiting.books().bodies.is_empty() && waiting.books().counts.is_empty());
    }

    #[tokio::test]
    async fn the_slowest_body_gives_way_and_never_the_one_that_asks_or_a_young_one() {
        let waiting = Waiting::new(WaitingBounds { per_address: 100, per_prefix: 100 });
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let [slow, fast, asking] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| waiting.enter(sender(address), begin).unwrap());
        assert_eq!(asking.ask_for_room(at(999)), Relief::NotYet);
        // Much came of the slow one, but long ago.
        slow.note(10 << 20, at(0));
        fast.note(100_000, at(8_000));
        let young = waiting.enter(sender("192.0.2.4"), at(7_500)).unwrap();
        assert_eq!(asking.ask_for_room(at(8_000)), Relief::OneGivesWay);
        assert!(gave_way(&slow).await && !gave_way(&fast).await && !gave_way(&young).await);
        assert_eq!(asking.ask_for_room(at(8_100)), Relief::OneGivesWay);
        assert!(gave_way(&fast).await && !gave_way(&young).await && !gave_way(&asking).await);
        assert_eq!(asking.ask_for_room(at(8_200)), Relief::NotYet);
        drop(young);
        assert_eq!(asking.ask_for_room(at(9_000)), Relief::NotYet, "those that gave way still have their room");
        drop((slow, fast));
        assert_eq!(asking.ask_for_room(at(9_000)), Relief::Nobody);
    }

    #[tokio::test]
    async fn a_body_that_waits_for_room_is_not_called_slow_for_it() {
        let waiting = Waiting::new(WaitingBounds { per_address: 100, per_prefix: 100 });
        let begin = Instant::now();
        let late = begin + Duration::from_secs(2);
        let [waits, drips] = ["192.0.2.1", "192.0.2.2"].map(|address| waiting.enter(sender(address), begin).unwrap());
        waits.note(64 << 10, begin);
        assert_eq!(waits.ask_for_room(begin), Relief::NotYet);
        drips.note(16 << 10, late);
        let asking = waiting.enter(sender("192.0.2.3"), late).unwrap();
        assert_eq!(asking.ask_for_room(late), Relief::OneGivesWay);
        assert!(gave_way(&drips).await && !gave_way(&waits).await);
        // It has room and is read again.
        waits.begin_anew(late);
        assert_eq!(asking.ask_for_room(late + LEAST_AGE), Relief::OneGivesWay);
        assert!(gave_way(&waits).await);
    }

    #[tokio::test]
    async fn a_newcomer_that_waits_for_room_does_not_give_way_to_those_who_took_it() {
        let waiting = Waiting::new(WaitingBounds { per_address: 100, per_prefix: 100 });
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let [first, second] = ["192.0.2.1", "192.0.2.2"].map(|address| waiting.enter(sender(address), begin).unwrap());
        for crowd in [&first, &second] {
            crowd.note(700 << 10, at(20));
        }
        let [some, none] = ["192.0.2.3", "192.0.2.4"].map(|address| waiting.enter(sender(address), at(50)).unwrap());
        // What had room of one newcomer came at once, and nothing of the other one was read.
        some.note(200 << 10, at(60));
        assert_eq!((some.ask_for_room(at(60)), none.ask_for_room(at(50))), (Relief::NotYet, Relief::NotYet));
        assert_eq!(first.ask_for_room(at(1_060)), Relief::OneGivesWay);
        assert!(gave_way(&second).await && !gave_way(&some).await && !gave_way(&none).await);
        assert_eq!(some.ask_for_room(at(1_060)), Relief::OneGivesWay);
        assert!(gave_way(&first).await && !gave_way(&none).await);
    }

    #[tokio::test]
    async fn a_sender_has_so_many_large_bodies_and_its_own_slowest_gives_way() {
        let waiting = Waiting::new(WaitingBounds { per_address: 1_000, per_prefix: 1_000 });
        let begin = Instant::now();
        let late = begin + Duration::from_secs(2);
        let enter = |address| waiting.enter(sender(address), begin).unwrap();
        let elsewhere = enter("198.51.100.1");
        assert_eq!(elsewhere.become_large(begin), Ok(()));
        let large: Vec<_> = (0..LARGE_PER_ADDRESS).map(|_| enter("192.0.2.1")).collect();
        for body in &large {
            assert_eq!((body.become_large(begin), body.become_large(begin)), (Ok(()), Ok(())), "twice is once");
            body.note(1_000, late);
        }
        let one_more = enter("192.0.2.1");
        assert_eq!(one_more.become_large(begin), Err(TooMany), "none can be judged yet");
        large[1..].iter().for_each(|body| body.note(1_000, late));
        assert_eq!(one_more.become_large(late), Ok(()));
        assert!(gave_way(&large[0]).await && !gave_way(&elsewhere).await, "the slowest one of the same sender");
        assert!(
            one_more.is_slower_than(1.0, Duration::ZERO, late) && !large[1].is_slower_than(1.0, Duration::ZERO, late)
        );
    }
}
