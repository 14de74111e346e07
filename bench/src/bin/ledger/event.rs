//! The numbered events: what event n is, and what must become of it, as a pure function of the seed and of n.
//!
//! Events come in blocks. A copy, and an event that uses the id of another one for other content, follow their original in the same
//! block and the same partition, so that Kafka keeps their order.

use scale_callback::samples::{self, Kind, Seed, Wanted};

/// Events of one block. A transaction holds one block.
pub(crate) const BLOCK: u64 = 32;
pub(crate) const PARTITIONS: i32 = 6;
pub(crate) const TEAM: &str = "team_ledger";
/// Its callbacks have two retries only, so that they can be exhausted.
pub(crate) const TEAM_OF_FEW_RETRIES: &str = "team_of_few_retries";

/// What decides the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) seed: u64,
    /// How many of a thousand receivers are slow.
    pub(crate) slow: u64,
}

/// How a block is produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Committed,
    Aborted,
}

/// What an event is in relation to others of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Original,
    /// The same bytes as this earlier event.
    CopyOf(u64),
    /// The id of this earlier event, and another task.
    ReusesIdOf(u64),
    /// It is not JSON.
    Garbage,
}

/// Where the callback goes, and how it is answered there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Receiver {
    Prompt,
    /// Answers 200 after up to 2.6 s, so that some callbacks get their rows early.
    Slow,
    /// Never answers the first request.
    Hangs,
    /// Resets the connection after the body of the first request.
    Resets,
    /// Answers 500 to the first request.
    Fails,
    /// Its port is closed at times.
    Refuses,
    /// Answers every request with 500.
    Never,
    /// The task has no URL, and its team has none.
    NoUrl,
    /// The URL has an address that callbacks must not go to.
    Denied,
}

impl Receiver {
    /// Those that listen.
    pub(crate) const LISTENING: [Self; 7] =
        [Self::Prompt, Self::Slow, Self::Hangs, Self::Resets, Self::Fails, Self::Refuses, Self::Never];

    /// The share of each in thousandths, besides slow ones. The rest goes to prompt ones.
    const SHARES: [(Self, u64); 7] = [
        (Self::Hangs, 10),
        (Self::Resets, 20),
        (Self::Fails, 30),
        (Self::Refuses, 20),
        (Self::Never, 4),
        (Self::NoUrl, 3),
        (Self::Denied, 3),
    ];

    fn of(mut thousandth: u64, slow: u64) -> Self {
        for (receiver, share) in Self::SHARES.into_iter().chain([(Self::Slow, slow)]) {
            if thousandth < share {
                return receiver;
            }
            thousandth -= share;
        }
        Self::Prompt
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Slow => "slow",
            Self::Hangs => "hangs",
            Self::Resets => "resets",
            Self::Fails => "fails",
            Self::Refuses => "refuses",
            Self::Never => "never",
            Self::NoUrl => "no URL",
            Self::Denied => "denied",
        }
    }
}

/// What must become of an event that Kafka has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// A settled callback in this state, with this reason.
    Ends(&'static str, Option<&'static str>),
    DeadLetter(&'static str),
    /// Its original has the callback.
    NoSecondCallback,
}

pub(crate) const DELIVERED: Fate = Fate::Ends("delivered", None);

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) n: u64,
    mix: Mix,
    pub(crate) role: Role,
    pub(crate) receiver: Receiver,
}

/// How a block is produced: one in four is a transaction, and of these one in six is aborted.
pub(crate) fn way_of_block(mix: Mix, block: u64) -> Way {
    let mut random = Seed::new(mix.seed ^ block.wrapping_mul(0x51_7c_c1_b7_27_22_0a_95));
    match (random.below(4), random.below(6)) {
        (0, 0) => Way::Aborted,
        (0, _) => Way::Committed,
        _ => Way::Plain,
    }
}

fn random_of(seed: u64, n: u64) -> Seed {
    Seed::new(seed.wrapping_add(n.wrapping_mul(0xd6e8_feb8_6659_fd93)))
}

impl Event {
    pub(crate) fn of(mix: Mix, n: u64) -> Self {
        let mut random = random_of(mix.seed, n);
        let receiver = Receiver::of(random.below(1_000), mix.slow);
        let role = match random.below(1_000) {
            dice @ 0..50 => Self::related(mix, n, dice, &mut random),
            50..53 => Role::Garbage,
            _ => Role::Original,
        };
        Self { n, mix, role, receiver }
    }

    /// A copy, or an event with another one's id, if the block has an original before it that has an id.
    fn related(mix: Mix, n: u64, dice: u64, random: &mut Seed) -> Role {
        let begin = n - n % BLOCK;
        let Some(before) = (n > begin).then(|| begin + random.below(n - begin)) else { return Role::Original };
        let other = Self::of(mix, before);
        match other.role {
            Role::Original if other.event_id().is_none() => Role::Original,
            Role::Original if dice < 40 => Role::CopyOf(before),
            Role::Original => Role::ReusesIdOf(before),
            _ => Role::Original,
        }
    }

    /// The event whose callback, if it has one, is this event's as well.
    pub(crate) fn original(&self) -> u64 {
        match self.role {
            Role::CopyOf(other) => other,
            _ => self.n,
        }
    }

    pub(crate) fn partition(&self) -> i32 {
        let keyed_by = match self.role {
            Role::CopyOf(other) | Role::ReusesIdOf(other) => other,
            _ => self.n,
        };
        i32::try_from(random_of(self.mix.seed ^ 0x5bd1, keyed_by).below(6)).unwrap_or(0)
    }

    /// A third has ids with a time in them, a third has ids without, and a third has none.
    fn event_id(&self) -> Option<String> {
        if let Role::CopyOf(other) | Role::ReusesIdOf(other) = self.role {
            return Self::of(self.mix, other).event_id();
        }
        let mut random = random_of(self.mix.seed ^ 0xe7e7, self.n);
        match random.below(3) {
            0 => Some(samples::uuid_v7(1_764_000_000_000 + self.n, &mut random)),
            1 => Some(format!("evt-{:016x}", random.next_u64())),
            _ => None,
        }
    }

    pub(crate) fn team(&self) -> &'static str {
        if self.receiver == Receiver::Never { TEAM_OF_FEW_RETRIES } else { TEAM }
    }

    pub(crate) fn fate(&self) -> Fate {
        match self.role {
            Role::CopyOf(_) => Fate::NoSecondCallback,
            Role::ReusesIdOf(_) => Fate::DeadLetter("event_id_reused"),
            Role::Garbage => Fate::DeadLetter("not_json"),
            Role::Original => match self.receiver {
                Receiver::Never => Fate::Ends("exhausted", None),
                Receiver::NoUrl => Fate::Ends("abandoned", Some("no_url")),
                Receiver::Denied => Fate::Ends("abandoned", Some("address_denied")),
                _ => DELIVERED,
            },
        }
    }

    /// The record's value. `url_of` gives the address of a receiver that listens.
    pub(crate) fn value(&self, url_of: impl Fn(Receiver) -> String) -> String {
        match self.role {
            Role::CopyOf(other) => return Self::of(self.mix, other).value(url_of),
            Role::Garbage => return format!("event {} is not JSON", self.n),
            Role::Original | Role::ReusesIdOf(_) => {}
        }
        let url = match self.receiver {
            Receiver::NoUrl => None,
            Receiver::Denied => Some("http://10.255.255.1/denied".to_owned()),
            listening => Some(url_of(listening)),
        };
        let mut random = random_of(self.mix.seed ^ 0x7a5c, self.n);
        let task_id = task_id(self.n);
        let kind = Kind::ALL[usize::try_from(random.below(7)).unwrap_or(0)];
        let items = 1 + random.below(8);
        let wanted = Wanted { kind, task_id: &task_id, callback_url: url.as_deref(), is_test: false, items };
        let team = match self.role {
            // An id is reused within a team.
            Role::ReusesIdOf(other) => Self::of(self.mix, other).team(),
            _ => self.team(),
        };
        samples::envelope(team, self.event_id().as_deref(), &samples::task(&wanted, &mut random))
    }
}

pub(crate) fn task_id(n: u64) -> String {
    format!("{n:024x}")
}

/// The number of a task, from its id.
pub(crate) fn number_of(task_id: &str) -> Option<u64> {
    (task_id.len() == 24).then(|| u64::from_str_radix(task_id, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: Mix = Mix { seed: 7, slow: 60 };

    #[test]
    fn every_kind_of_event_is_there_and_copies_follow_their_originals() {
        let all: Vec<_> = (0..20_000).map(|n| Event::of(MIX, n)).collect();
        for receiver in Receiver::LISTENING {
            assert!(all.iter().any(|event| event.receiver == receiver), "{receiver:?}");
        }
        let (mut copies, mut reused) = (0, 0);
        for event in &all {
            let (Role::CopyOf(other) | Role::ReusesIdOf(other)) = event.role else { continue };
            let original = Event::of(MIX, other);
            assert!(other < event.n && other / BLOCK == event.n / BLOCK);
            assert_eq!(original.partition(), event.partition());
            assert_eq!(original.role, Role::Original);
            let url = |_| "http://127.0.0.1:1/".to_owned();
            if event.role == Role::CopyOf(other) {
                copies += 1;
                assert_eq!(original.value(url), event.value(url));
            } else {
                reused += 1;
                assert_eq!(original.event_id(), event.event_id());
                assert_ne!(original.value(url), event.value(url));
            }
        }
        assert!(copies > 100 && reused > 20, "{copies} copies, {reused} ids are reused");
        assert_eq!(number_of(&task_id(77)), Some(77));
    }
}
