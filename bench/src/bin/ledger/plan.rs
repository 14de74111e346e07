//! The schedule of faults: which fault comes when, as a pure function of the seed.

use std::time::Duration;

use scale_callback::samples::Seed;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// kill -9 of a daemon, and a new start
    Kill,
    /// SIGTERM of a daemon, and a new start after a while
    Restart,
    /// SIGSTOP of a daemon past its session and its lease, then SIGCONT
    Pause,
    /// A further daemon joins, and leaves again
    Join,
    /// Kafka is stopped, and started again
    KafkaStop,
    /// Kafka is killed, and started again
    KafkaKill,
    /// PostgreSQL is stopped, and started again
    StoreStop,
    /// PostgreSQL is killed, and started again
    StoreKill,
    /// PostgreSQL stands still for a few seconds
    StoreFreeze,
    /// PostgreSQL's primary is killed, and its synchronous standby is promoted
    Failover,
    /// Connections break at a COMMIT: before PostgreSQL has it, or after its answer
    Cut,
    /// PostgreSQL ends some of its sessions
    Terminate,
    /// A receiver's port is closed for a while
    Refuse,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::Join,
        Self::KafkaStop,
        Self::KafkaKill,
        Self::StoreStop,
        Self::StoreKill,
        Self::StoreFreeze,
        Self::Failover,
        Self::Cut,
        Self::Terminate,
        Self::Refuse,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a daemon",
            Self::Restart => "SIGTERM and a new start",
            Self::Pause => "SIGSTOP, then SIGCONT",
            Self::Join => "join and leave",
            Self::KafkaStop => "Kafka stopped",
            Self::KafkaKill => "Kafka killed",
            Self::StoreStop => "PostgreSQL stopped",
            Self::StoreKill => "PostgreSQL killed",
            Self::StoreFreeze => "PostgreSQL stands still",
            Self::Failover => "PostgreSQL failed over",
            Self::Cut => "COMMITs cut for a while",
            Self::Terminate => "sessions terminated",
            Self::Refuse => "a receiver refuses",
        }
    }

    const fn needs_postgres(self) -> bool {
        matches!(
            self,
            Self::StoreStop
                | Self::StoreKill
                | Self::StoreFreeze
                | Self::Failover
                | Self::Cut
                | Self::Terminate
                | Self::Join
        )
    }

    /// How often it comes in so many minutes, besides kills.
    fn times(self, minutes: f64) -> usize {
        let per_minute = match self {
            Self::Kill => 0.0,
            // One standby is there, so one failover.
            Self::Failover => 0.1,
            Self::Restart | Self::Terminate => 1.0,
            Self::Join | Self::Cut | Self::Refuse => 0.5,
            Self::Pause => 0.3,
            Self::KafkaStop | Self::StoreStop | Self::StoreKill | Self::StoreFreeze => 0.2,
            Self::KafkaKill => 0.1,
        };
        // A short run has each kind once.
        (per_minute * minutes).ceil().max(1.0) as usize
    }

    /// How long the fault lasts, in milliseconds: at least, and how much more at most.
    const fn length(self) -> (u64, u64) {
        match self {
            Self::Kill => (100, 4_000),
            Self::Restart => (100, 3_000),
            // The partitions of a paused daemon go to others when its session in Kafka is over (3 s), and PostgreSQL has ended the
            // transaction in which it stands still (5 s), or else the patience with a living owner is over (3 + 5 s). Most damage
            // is done if it goes on just after that.
            Self::Pause => (5_500, 8_500),
            Self::Join => (4_000, 4_000),
            Self::KafkaStop | Self::KafkaKill | Self::StoreStop | Self::StoreKill => (500, 4_000),
            Self::StoreFreeze => (3_000, 2_500),
            Self::Failover => (0, 1),
            Self::Cut => (2_000, 3_000),
            Self::Terminate => (0, 1),
            Self::Refuse => (2_000, 5_000),
        }
    }
}

/// What a schedule shall hold.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) seed: u64,
    /// While events are produced, faults come.
    pub(crate) duration: Duration,
    pub(crate) kills: usize,
    pub(crate) has_postgres: bool,
    /// Several daemons run, so that others take over while one is away.
    pub(crate) has_several: bool,
    pub(crate) kinds: Vec<Kind>,
    /// How often each kind comes, besides kills and a failover.
    pub(crate) times: Option<usize>,
}

/// How much longer a killed daemon stays away whose work others must take over.
const AWAY: Duration = Duration::from_secs(15);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) length: Duration,
    /// Chooses the daemon, if it is a daemon's fault.
    pub(crate) pick: u64,
}

/// The faults in their order.
pub(crate) fn schedule(wanted: &Wanted) -> Vec<Step> {
    let mut random = Seed::new(wanted.seed ^ 0xfa17);
    let minutes = wanted.duration.as_secs_f64() / 60.0;
    let mut steps = Vec::new();
    for kind in wanted.kinds.iter().copied().filter(|kind| wanted.has_postgres || !kind.needs_postgres()) {
        let times = match kind {
            Kind::Kill => wanted.kills,
            Kind::Failover => 1,
            _ => wanted.times.unwrap_or_else(|| kind.times(minutes)),
        };
        let (least, more) = kind.length();
        // Long faults begin early enough to end within the run, and the first daemons get a moment to start.
        let (first, last) = (2_000, (wanted.duration.as_millis() as u64).saturating_sub(least / 2 + 1_000));
        for _ in 0..times {
            // One daemon in five that is killed stays away until its leases have ended.
            let stays_away = kind == Kind::Kill && wanted.has_several && random.below(5) == 0;
            let longer = if stays_away { AWAY } else { Duration::ZERO };
            steps.push(Step {
                at: Duration::from_millis(first + random.below(last.saturating_sub(first))),
                kind,
                length: Duration::from_millis(least + random.below(more)) + longer,
                pick: random.next_u64(),
            });
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(seconds: u64, has_postgres: bool) -> Wanted {
        let duration = Duration::from_secs(seconds);
        Wanted {
            seed: 1,
            duration,
            kills: 50,
            has_postgres,
            has_several: has_postgres,
            kinds: Kind::ALL.to_vec(),
            times: None,
        }
    }

    #[test]
    fn a_schedule_has_every_kind_and_is_the_same_for_the_same_seed() {
        let steps = schedule(&wanted(480, true));
        for kind in Kind::ALL {
            assert!(steps.iter().any(|step| step.kind == kind), "{kind:?}");
        }
        assert_eq!(steps.iter().filter(|step| step.kind == Kind::Kill).count(), 50);
        assert_eq!(steps, schedule(&wanted(480, true)));
        assert_ne!(steps, schedule(&Wanted { seed: 2, ..wanted(480, true) }));
        assert!(steps.iter().all(|step| step.at < Duration::from_secs(480)));
        assert!(schedule(&wanted(45, false)).iter().all(|step| !step.kind.needs_postgres()));
    }
}
