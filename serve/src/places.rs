//! Who holds a place among a server's connections, and who gives way when there is none left. Places are bounded in all, for
//! each sender, and for the addresses around each sender. Where a bound is reached, the oldest connection within it gives
//! way that has not sent a whole request head: first those that never did, then those that wait between two requests. A
//! connection with an open request never gives way, and neither does one whose refusal is still to be sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::activity::Activity;
use crate::nets::{Net, Sender};

/// How many connections that have sent a request are looked at for one that is idle. Without this bound, a crowd of busy
/// connections would make each further connection expensive.
const LOOKED_AT: usize = 1_024;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceBounds {
    pub(crate) all: usize,
    pub(crate) per_address: usize,
    pub(crate) per_prefix: usize,
    /// How long a connection that has sent no head keeps its place in any case.
    pub(crate) patience: Duration,
}

/// The places of one server.
pub(crate) struct Places {
    books: Mutex<Books>,
    freed: Notify,
}

/// A place; dropping it frees it.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
}

/// There is no place, and nobody gives way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPlace;

/// Connections that are bounded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    All,
    Prefix(Net),
    Address(Net),
}

/// The connections of a group, by the order in which they came.
#[derive(Default)]
struct Members {
    /// Those that had sent no whole head when they were last looked at.
    fresh: BTreeSet<u64>,
    /// Those that have sent one.
    served: BTreeSet<u64>,
}

struct Member {
    sender: Option<Sender>,
    activity: Arc<Activity>,
    came: Instant,
}

struct Books {
    bounds: PlaceBounds,
    next: u64,
    members: HashMap<u64, Member>,
    groups: HashMap<Group, Members>,
}

impl Places {
    pub(crate) fn new(bounds: PlaceBounds) -> Arc<Self> {
        let books = Books { bounds, next: 0, members: HashMap::new(), groups: HashMap::new() };
        Arc::new(Self { books: Mutex::new(books), freed: Notify::new() })
    }

    /// Gives a connection a place, and says whether another one gave way for it. A connection without a sender is bounded
    /// among all alone.
    pub(crate) fn enter(
        self: &Arc<Self>,
        sender: Option<Sender>,
        activity: &Arc<Activity>,
    ) -> Result<(Place, bool), NoPlace> {
        let mut books = self.books();
        let gave_way = books.make_room(sender)?;
        let id = books.next;
        books.next += 1;
        books.add(id, Member { sender, activity: Arc::clone(activity), came: Instant::now() });
        drop(books);
        Ok((Place { places: Arc::clone(self), id }, gave_way))
    }

    /// Makes the oldest connection that may give way do so, because the system has no file descriptor left.
    pub(crate) fn make_one_give_way(&self) {
        let mut books = self.books();
        if let Some(id) = books.oldest(Group::All) {
            books.give_way(id);
        }
    }

    /// Waits until a place was freed.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.books().members.is_empty()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts the connection for another sender from now on, because it turned out whose it is.
    pub(crate) fn move_to(&self, sender: Sender) -> Result<(), NoPlace> {
        let mut books = self.places.books();
        // It gave way meanwhile.
        let Some(member) = books.remove(self.id) else { return Err(NoPlace) };
        books.make_room(Some(sender))?;
        books.add(self.id, Member { sender: Some(sender), ..member });
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A connection that gave way has no place any more.
        self.places.books().remove(self.id);
        self.places.freed.notify_one();
    }
}

impl Books {
    /// Makes sure that one more connection of this sender has a place, and says whether another one gave way for it.
    fn make_room(&mut self, sender: Option<Sender>) -> Result<bool, NoPlace> {
        let mut gave_way = false;
        // The narrowest bound comes first: what gives way there makes room in the wider ones.
        for group in groups(sender) {
            while self.groups.get(&group).is_some_and(|members| members.count() >= self.bound(group)) {
                let id = self.oldest(group).ok_or(NoPlace)?;
                self.give_way(id);
                gave_way = true;
            }
        }
        Ok(gave_way)
    }

    fn bound(&self, group: Group) -> usize {
        match group {
            Group::All => self.bounds.all,
            Group::Prefix(_) => self.bounds.per_prefix,
            Group::Address(_) => self.bounds.per_address,
        }
    }

    /// The connection of a group that gives way first.
    fn oldest(&mut self, group: Group) -> Option<u64> {
        let now = Instant::now();
        if !self.bounds.patience.is_zero() {
            // Behind one that keeps its place, there may be others that have sent their heads.
            self.note_heads(group);
        }
        while let Some(id) = self.groups.get(&group)?.fresh.first().copied() {
            let member = self.members.get(&id)?;
            if member.activity.had_head() {
                self.note_head(id);
            } else if now.duration_since(member.came) >= self.bounds.patience {
                return Some(id);
            } else {
                // Those that came later have not waited longer.
                break;
            }
        }
        let is_idle = |id: &&u64| self.members.get(*id).is_some_and(|member| member.activity.is_idle(now));
        self.groups.get(&group)?.served.iter().take(LOOKED_AT).find(is_idle).copied()
    }

    fn note_heads(&mut self, group: Group) {
        let had_head = |id: &&u64| self.members.get(*id).is_some_and(|member| member.activity.had_head());
        let fresh = self.groups.get(&group).map(|members| &members.fresh);
        let found: Vec<u64> = fresh.into_iter().flatten().filter(had_head).copied().collect();
        found.into_iter().for_each(|id| self.note_head(id));
    }

    /// From now on the connection counts as one that has sent a head.
    fn note_head(&mut self, id: u64) {
        let sender = self.members.get(&id).and_then(|member| member.sender);
        for group in groups(sender) {
            if let Some(members) = self.groups.get_mut(&group)
                && members.fresh.remove(&id)
            {
                members.served.insert(id);
            }
        }
    }

    fn give_way(&mut self, id: u64) {
        if let Some(member) = self.remove(id) {
            member.activity.give_way();
        }
    }

    fn add(&mut self, id: u64, member: Member) {
        for group in groups(member.sender) {
            self.groups.entry(group).or_default().fresh.insert(id);
        }
        self.members.insert(id, member);
    }

    fn remove(&mut self, id: u64) -> Option<Member> {
        let member = self.members.remove(&id)?;
        for group in groups(member.sender) {
            if let Some(members) = self.groups.get_mut(&group) {
                members.fresh.remove(&id);
                members.served.remove(&id);
                if members.count() == 0 {
                    self.groups.remove(&group);
                }
            }
        }
        Some(member)
    }
}

impl Members {
    fn count(&self) -> usize {
        self.fresh.len() + self.served.len()
    }
}

/// The groups of a sender's connections, the narrowest first.
fn groups(sender: Option<Sender>) -> impl Iterator<Item = Group> {
    let own = sender.map(|sender| [Group::Address(sender.address), Group::Prefix(sender.prefix)]);
    own.into_iter().flatten().chain([Group::All])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::OpenRequest;

    /// Places, and the connections that came, by number.
    struct Kit {
        places: Arc<Places>,
        came: Vec<(Arc<Activity>, Option<Place>)>,
    }

    impl Kit {
        fn new(all: usize, per_prefix: usize, per_address: usize) -> Self {
            let patience = Duration::ZERO;
            Self { places: Places::new(PlaceBounds { all, per_address, per_prefix, patience }), came: Vec::new() }
        }

        /// A connection comes; whether it gets a place.
        fn comes(&mut self, address: &str) -> bool {
            let activity = Arc::new(Activity::default());
            let entered = self.places.enter(Some(Sender::of(address.parse().unwrap())), &activity).ok();
            let is_in = entered.is_some();
            self.came.push((activity, entered.map(|(place, _)| place)));
            is_in
        }

        /// The numbers of those that gave way.
        fn gave_way(&self) -> Vec<usize> {
            let gone = |(_, (activity, _)): &(usize, &(Arc<Activity>, Option<Place>))| activity.gave_way();
            self.came.iter().enumerate().filter(gone).map(|(number, _)| number).collect()
        }
    }

    #[test]
    fn the_oldest_without_a_head_gives_way_within_the_bound_that_is_reached() {
        let mut kit = Kit::new(6, 4, 2);
        // Two of one address, then one more of it: the oldest of that address gives way, not the oldest of all.
        assert!(
            kit.comes("198.51.100.1") && kit.comes("192.0.2.1") && kit.comes("192.0.2.1") && kit.comes("192.0.2.1")
        );
        assert_eq!(kit.gave_way(), [1]);
        // The addresses around it have four places together.
        assert!(kit.comes("192.0.2.2") && kit.comes("192.0.2.3") && kit.comes("192.0.2.4"));
        assert_eq!(kit.gave_way(), [1, 2]);
        // All six are taken by now with one more: the oldest of all gives way.
        assert!(kit.comes("203.0.113.1") && kit.comes("203.0.113.2"));
        assert_eq!(kit.gave_way(), [0, 1, 2]);
        kit.came.clear();
        assert!(kit.places.is_empty() && kit.places.books().groups.is_empty(), "every place came back");
    }

    #[test]
    fn open_requests_never_give_way_and_idle_ones_do_so_last() {
        let mut kit = Kit::new(3, 3, 3);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert!(kit.comes(address));
        }
        let open: Vec<_> = kit.came[..2].iter().map(|(activity, _)| OpenRequest::new(activity)).collect();
        // The third has sent nothing and gives way, and so does the one that came for it.
        assert!(kit.comes("192.0.2.4") && kit.comes("192.0.2.5"));
        assert_eq!(kit.gave_way(), [2, 3]);
        let last = OpenRequest::new(&kit.came[4].0);
        assert!(!kit.comes("192.0.2.6"), "all are busy");
        // One of them waits for its next request now.
        let mut open = open;
        drop(open.remove(1));
        assert!(!kit.comes("192.0.2.7"), "its answer is not written yet");
        kit.came[1].0.flushed();
        assert!(kit.comes("192.0.2.8"));
        assert_eq!(kit.gave_way(), [1, 2, 3]);
        drop((open, last));
    }

    #[test]
    fn with_patience_a_connection_has_time_for_its_first_head() {
        let patience = Duration::from_secs(60);
        let places = Places::new(PlaceBounds { all: 3, per_address: 3, per_prefix: 3, patience });
        let activities: Vec<_> = (0..3).map(|_| Arc::new(Activity::default())).collect();
        let held: Vec<_> = activities.iter().map(|activity| places.enter(None, activity).unwrap().0).collect();
        let more = Arc::new(Activity::default());
        assert_eq!(places.enter(None, &more).err(), Some(NoPlace), "they have come just now");
        // The second one was served, and waits for its next request.
        drop(OpenRequest::new(&activities[1]));
        activities[1].flushed();
        let (fourth, gave_way) = places.enter(None, &more).unwrap();
        assert!(gave_way && activities[1].gave_way() && !activities[0].gave_way());
        assert!(places.enter(None, &more).is_err(), "the others have not waited for long");
        let came = Instant::now().checked_sub(patience).unwrap();
        places.books().members.get_mut(&held[0].id).unwrap().came = came;
        let (fifth, gave_way) = places.enter(None, &more).unwrap();
        assert!(gave_way && activities[0].gave_way() && !activities[2].gave_way());
        drop((held, fourth, fifth));
    }

    #[test]
    fn a_connection_is_counted_for_whom_it_turns_out_to_be() {
        let patience = Duration::ZERO;
        let places = Places::new(PlaceBounds { all: 10, per_address: 1, per_prefix: 10, patience });
        let (first, second) = (Arc::new(Activity::default()), Arc::new(Activity::default()));
        let sender = Sender::of("192.0.2.1".parse().unwrap());
        let of_proxy = |activity| places.enter(None, activity).unwrap().0;
        let (one, other) = (of_proxy(&first), of_proxy(&second));
        assert_eq!(one.move_to(sender), Ok(()));
        assert!(!first.gave_way());
        assert_eq!(other.move_to(sender), Ok(()));
        assert!(first.gave_way() && !second.gave_way());
        assert_eq!(one.move_to(sender), Err(NoPlace), "it gave way");
        let busy = OpenRequest::new(&second);
        let third = Arc::new(Activity::default());
        let late = of_proxy(&third);
        assert_eq!(late.move_to(sender), Err(NoPlace));
        drop((one, other, late, busy));
        assert!(places.is_empty() && places.books().groups.is_empty());
    }
}
