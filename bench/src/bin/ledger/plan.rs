//! The schedule of faults: which fault comes when, as a pure function of the seed.
//!
//! Most faults come at random times and overlap. A few come alone: nothing else happens from some time before until some time after
//! them, so that what follows can have no other cause. They have a time of their own, by which all later faults are put off.

use std::collections::BTreeMap;
use std::time::Duration;

use scale_callback::samples::Seed;

/// Runs of at least this length have the faults that take long, and goals for what is counted.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// What a long run on PostgreSQL reaches at least: COMMITs cut, sessions terminated, and daemons killed at a cut.
const CUTS: u64 = 1_000;
const TERMINATED: u64 = 20;
const KILLS_AT_CUTS: usize = 5;
/// Sessions that end at once.
pub(crate) const SESSIONS: u32 = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// kill -9 of a daemon, and a new start
    Kill,
    /// kill -9 of a daemon just when one of its COMMITs was cut, and a new start
    KillAtCut,
    /// SIGTERM of a daemon, and a new start after a while
    Restart,
    /// SIGSTOP of a daemon past its session and its lease, then SIGCONT
    Pause,
    /// A further daemon joins, and leaves again
    Join,
    /// A daemon's wall clock is two minutes away for a while
    ClockStepped,
    /// Kafka is stopped, and started again
    KafkaStop,
    /// Kafka is killed, and started again
    KafkaKill,
    /// The group's offsets are set to the earliest ones while all daemons are down
    GroupReset,
    /// A small topic is deleted, and created again with other records
    TopicRecreated,
    /// PostgreSQL is stopped, and started again
    StoreStop,
    /// PostgreSQL is killed, and started again
    StoreKill,
    /// PostgreSQL stands still for a few seconds
    StoreFreeze,
    /// PostgreSQL stands still for a minute
    StoreFreezeLong,
    /// PostgreSQL's primary is killed, and its synchronous standby is promoted
    Failover,
    /// Connections break at a COMMIT: before PostgreSQL has it, or after its answer
    Cut,
    /// PostgreSQL ends some of its sessions
    Terminate,
    /// The daemon's files can't grow, as on a full disk
    DiskFull,
    /// A receiver's port is closed for a while
    Refuse,
}

impl Kind {
    pub(crate) const ALL: [Self; 19] = [
        Self::Kill,
        Self::KillAtCut,
        Self::Restart,
        Self::Pause,
        Self::Join,
        Self::ClockStepped,
        Self::KafkaStop,
        Self::KafkaKill,
        Self::GroupReset,
        Self::TopicRecreated,
        Self::StoreStop,
        Self::StoreKill,
        Self::StoreFreeze,
        Self::StoreFreezeLong,
        Self::Failover,
        Self::Cut,
        Self::Terminate,
        Self::DiskFull,
        Self::Refuse,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a daemon",
            Self::KillAtCut => "kill -9 of a daemon at a cut COMMIT",
            Self::Restart => "SIGTERM and a new start",
            Self::Pause => "SIGSTOP, then SIGCONT",
            Self::Join => "join and leave",
            Self::ClockStepped => "a daemon's clock stepped",
            Self::KafkaStop => "Kafka stopped",
            Self::KafkaKill => "Kafka killed",
            Self::GroupReset => "the group's offsets reset",
            Self::TopicRecreated => "a topic created again",
            Self::StoreStop => "PostgreSQL stopped",
            Self::StoreKill => "PostgreSQL killed",
            Self::StoreFreeze => "PostgreSQL stands still",
            Self::StoreFreezeLong => "PostgreSQL stands still for a minute",
            Self::Failover => "PostgreSQL failed over",
            Self::Cut => "COMMITs cut for a while",
            Self::Terminate => "sessions terminated",
            Self::DiskFull => "the disk full",
            Self::Refuse => "a receiver refuses",
        }
    }

    const fn fits(self, has_postgres: bool) -> bool {
        match self {
            Self::StoreStop
            | Self::StoreKill
            | Self::StoreFreeze
            | Self::StoreFreezeLong
            | Self::Failover
            | Self::Cut
            | Self::KillAtCut
            | Self::Terminate
            | Self::Join => has_postgres,
            Self::DiskFull => !has_postgres,
            _ => true,
        }
    }

    /// Whether it takes too long for a run of a minute.
    pub(crate) const fn takes_long(self) -> bool {
        matches!(self, Self::TopicRecreated | Self::StoreFreezeLong)
    }

    pub(crate) const fn is_kill(self) -> bool {
        matches!(self, Self::Kill | Self::KillAtCut)
    }

    /// Whether the store is away meanwhile, or stands still.
    pub(crate) const fn blocks_store(self) -> bool {
        matches!(
            self,
            Self::StoreStop
                | Self::StoreKill
                | Self::StoreFreeze
                | Self::StoreFreezeLong
                | Self::Failover
                | Self::DiskFull
        )
    }

    /// The time that is kept free for it, if it comes alone.
    const fn reserved(self) -> Option<Duration> {
        match self {
            Self::GroupReset => Some(Duration::from_secs(8)),
            Self::TopicRecreated => Some(Duration::from_secs(40)),
            Self::StoreFreezeLong => Some(Duration::from_secs(80)),
            _ => None,
        }
    }

    /// How often it comes in a run of this length, besides kills.
    fn times(self, duration: Duration) -> usize {
        let per_minute = match self {
            Self::Kill => 0.0,
            // One standby is there, so one failover.
            Self::Failover | Self::KafkaKill | Self::GroupReset | Self::StoreFreezeLong => 0.1,
            Self::Restart | Self::Terminate => 1.0,
            Self::Join | Self::Cut | Self::KillAtCut | Self::Refuse => 0.5,
            Self::Pause | Self::DiskFull => 0.3,
            Self::KafkaStop
            | Self::StoreStop
            | Self::StoreKill
            | Self::StoreFreeze
            | Self::ClockStepped
            | Self::TopicRecreated => 0.2,
        };
        let at_least = match self {
            Self::KillAtCut if duration >= LONG => KILLS_AT_CUTS,
            Self::Terminate if duration >= LONG => 9,
            Self::Cut if duration >= LONG => 10,
            // Once while the daemons are down, and once while they run.
            Self::TopicRecreated if duration >= LONG => 2,
            // A short run has each kind once.
            _ => 1,
        };
        ((per_minute * duration.as_secs_f64() / 60.0).ceil() as usize).max(at_least)
    }

    /// How long the fault lasts, in milliseconds: at least, and how much more at most.
    const fn length(self) -> (u64, u64) {
        match self {
            Self::Kill | Self::KillAtCut => (100, 4_000),
            Self::Restart => (100, 3_000),
            // The partitions of a paused daemon go to others when its session in Kafka is over (3 s), and PostgreSQL has ended the
            // transaction in which it stands still (5 s), or else the patience with a living owner is over (3 + 5 s). Most damage
            // is done if it goes on just after that.
            Self::Pause => (5_500, 8_500),
            Self::Join => (4_000, 4_000),
            Self::ClockStepped => (2_000, 2_000),
            Self::KafkaStop | Self::KafkaKill | Self::StoreStop | Self::StoreKill => (500, 4_000),
            Self::StoreFreeze => (3_000, 2_500),
            Self::StoreFreezeLong => (60_000, 1),
            Self::GroupReset | Self::TopicRecreated | Self::Failover | Self::Terminate => (0, 1),
            Self::Cut => (2_000, 3_000),
            Self::DiskFull => (2_000, 3_000),
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

impl Wanted {
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.kinds.iter().copied().filter(|kind| kind.fits(self.has_postgres))
    }

    fn times(&self, kind: Kind) -> usize {
        match kind {
            // One of them comes alone.
            Kind::Kill => self.kills.saturating_sub(usize::from(self.kills_alone())),
            Kind::Failover => 1,
            _ => self.times.unwrap_or_else(|| kind.times(self.duration)),
        }
    }

    /// When the first fault may come.
    fn first(&self) -> Duration {
        if self.kills_alone() {
            FIRST_KILL_ALONE
        } else if self.duration < LONG && self.kinds().any(|kind| kind.reserved().is_some()) {
            FIRST_OF_SHORT_RUN
        } else {
            FIRST
        }
    }

    /// Whether one kill comes alone, so that the takeover after it can be measured.
    fn kills_alone(&self) -> bool {
        let has_kills = self.kills > 0 && self.kinds.contains(&Kind::Kill);
        has_kills && self.has_several && self.duration >= LONG
    }
}

/// How much longer a killed daemon stays away whose work others must take over.
const AWAY: Duration = Duration::from_secs(15);
/// The same for the kill that comes alone: it is back when the takeover is over.
const AWAY_ALONE: Duration = Duration::from_secs(17);
/// The time that is kept free for this kill.
const RESERVED_FOR_KILL: Duration = Duration::from_secs(30);
/// The first daemons get a moment to start, and to share the partitions before the first kill that is measured. In a short run, what
/// comes alone comes first: later it would wait for others to be over.
const FIRST: Duration = Duration::from_secs(2);
const FIRST_OF_SHORT_RUN: Duration = Duration::from_secs(4);
const FIRST_KILL_ALONE: Duration = Duration::from_secs(6);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) length: Duration,
    /// Chooses the daemon, if it is a daemon's fault.
    pub(crate) pick: u64,
    /// No other fault comes at the same time.
    pub(crate) is_alone: bool,
    /// COMMITs go on being cut until so many were cut in the whole run, if this is not 0.
    pub(crate) cuts: u64,
}

/// A fault that comes alone, and the time that is kept free for it.
struct Window {
    step: Step,
    reserved: Duration,
}

/// The faults in their order.
pub(crate) fn schedule(wanted: &Wanted) -> Vec<Step> {
    let mut random = Seed::new(wanted.seed ^ 0xfa17);
    let windows = windows(wanted);
    let free = wanted.duration.saturating_sub(windows.iter().map(|window| window.reserved).sum());
    let mut steps = Vec::new();
    for kind in wanted.kinds().filter(|kind| kind.reserved().is_none()) {
        let (least, more) = kind.length();
        // Long faults begin early enough to end within the run.
        let last = (free.as_millis() as u64).saturating_sub(least / 2 + 1_000);
        let first = wanted.first().as_millis() as u64;
        for _ in 0..wanted.times(kind) {
            // One daemon in five that is killed stays away until its leases have ended.
            let stays_away = kind == Kind::Kill && wanted.has_several && random.below(5) == 0;
            let longer = if stays_away { AWAY } else { Duration::ZERO };
            let at = Duration::from_millis(first + random.below(last.saturating_sub(first)));
            steps.push(Step {
                at: at + put_off(at, &windows),
                kind,
                length: Duration::from_millis(least + random.below(more)) + longer,
                pick: random.next_u64(),
                is_alone: false,
                cuts: 0,
            });
        }
    }
    for (before, window) in windows.iter().enumerate() {
        let at = window.step.at + windows[..before].iter().map(|earlier| earlier.reserved).sum::<Duration>();
        steps.push(Step { at, ..window.step });
    }
    steps.sort_by_key(|step| step.at);
    let goal = goals(wanted, &steps).cuts;
    let times = steps.iter().filter(|step| step.kind == Kind::Cut).count() as u64;
    for (step, number) in steps.iter_mut().filter(|step| step.kind == Kind::Cut).zip(1..) {
        step.cuts = (goal * number).div_ceil(times);
    }
    steps
}

/// The faults that come alone, in their order. Their times, and those of all others, leave out what is reserved.
fn windows(wanted: &Wanted) -> Vec<Window> {
    let mut random = Seed::new(wanted.seed ^ 0xa10e);
    let mut alone = Vec::new();
    for kind in wanted.kinds() {
        let Some(reserved) = kind.reserved() else { continue };
        let length = Duration::from_millis(kind.length().0);
        alone.extend((0..wanted.times(kind)).map(|number| (kind, length, reserved, number as u64)));
    }
    // Sorted by random numbers, they come in a random order.
    alone.sort_by_cached_key(|_| random.next_u64());
    let reserved: Duration = alone.iter().map(|(_, _, reserved, _)| *reserved).sum();
    let for_kill = if wanted.kills_alone() { RESERVED_FOR_KILL } else { Duration::ZERO };
    let free = wanted.duration.saturating_sub(reserved + for_kill);
    let parts = alone.len() as u32 + 1;
    let mut windows = Vec::new();
    if wanted.kills_alone() {
        let (at, pick) = (wanted.first(), random.next_u64());
        let step = Step { at, kind: Kind::Kill, length: AWAY_ALONE, pick, is_alone: true, cuts: 0 };
        windows.push(Window { step, reserved: RESERVED_FOR_KILL });
    }
    for ((kind, length, reserved, number), part) in alone.into_iter().zip(1..) {
        let at = if wanted.duration < LONG { wanted.first() } else { free * part / parts };
        // The number of the fault decides how it comes, so that each way comes.
        let step = Step { at, kind, length, pick: number, is_alone: true, cuts: 0 };
        windows.push(Window { step, reserved });
    }
    windows
}

/// By how much a fault is put off by those that come alone before it.
fn put_off(at: Duration, windows: &[Window]) -> Duration {
    windows.iter().filter(|window| window.step.at <= at).map(|window| window.reserved).sum()
}

/// What must have happened at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Goals {
    pub(crate) times: BTreeMap<Kind, usize>,
    pub(crate) cuts: u64,
    pub(crate) terminated: u64,
    /// The takeover after a kill that came alone was measured.
    pub(crate) takeover: bool,
}

/// The goals of a schedule: every fault comes, and a long run on PostgreSQL counts what it did.
pub(crate) fn goals(wanted: &Wanted, steps: &[Step]) -> Goals {
    let mut times: BTreeMap<Kind, usize> = BTreeMap::new();
    for step in steps {
        *times.entry(step.kind).or_default() += 1;
    }
    let is_long = wanted.duration >= LONG && wanted.times.is_none();
    let goal = |kind: Kind, goal: u64| if is_long && times.contains_key(&kind) { goal } else { 0 };
    let (cuts, terminated) = (goal(Kind::Cut, CUTS), goal(Kind::Terminate, TERMINATED));
    Goals { times, cuts, terminated, takeover: wanted.kills_alone() }
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
            kinds: Kind::ALL.into_iter().filter(|kind| duration >= LONG || !kind.takes_long()).collect(),
            times: None,
        }
    }

    #[test]
    fn a_schedule_has_every_kind_and_is_the_same_for_the_same_seed() {
        let steps = schedule(&wanted(480, true));
        for kind in Kind::ALL.into_iter().filter(|kind| kind.fits(true)) {
            assert!(steps.iter().any(|step| step.kind == kind), "{kind:?}");
        }
        assert_eq!(steps.iter().filter(|step| step.kind == Kind::Kill).count(), 50);
        assert_eq!(steps, schedule(&wanted(480, true)));
        assert_ne!(steps, schedule(&Wanted { seed: 2, ..wanted(480, true) }));
        assert!(steps.iter().all(|step| step.at < Duration::from_secs(480)));
        let short = schedule(&wanted(45, false));
        assert!(short.iter().all(|step| step.kind.fits(false) && step.at < Duration::from_secs(45)));
        assert!(short.iter().any(|step| step.kind == Kind::DiskFull));
        assert!(short[0].kind == Kind::GroupReset && short[0].is_alone && !short[1].is_alone, "{short:?}");
    }

    #[test]
    fn a_full_run_leaves_what_comes_alone_its_time_and_has_room_for_the_rest() {
        for seed in 0..50 {
            let wanted = Wanted { seed, ..wanted(520, true) };
            let steps = schedule(&wanted);
            let goals = goals(&wanted, &steps);
            assert_eq!((goals.cuts, goals.terminated, goals.takeover), (CUTS, TERMINATED, true));
            assert!(goals.times[&Kind::KillAtCut] >= KILLS_AT_CUTS, "{goals:?}");
            assert!(goals.times[&Kind::Terminate] as u64 * u64::from(SESSIONS) >= TERMINATED, "{goals:?}");
            assert_eq!(steps.iter().map(|step| step.cuts).max(), Some(CUTS));
            assert!(steps[0].is_alone && steps[0].kind == Kind::Kill, "{:?}", steps[0]);
            for alone in steps.iter().filter(|step| step.is_alone) {
                let reserved = alone.kind.reserved().unwrap_or(RESERVED_FOR_KILL);
                assert!(alone.at + reserved <= wanted.duration, "{alone:?}");
                let within = |step: &&Step| *step != alone && step.at >= alone.at && step.at < alone.at + reserved;
                assert_eq!(steps.iter().find(within), None, "{alone:?}");
            }
            // What befalls daemons is spread over three of them, and each fault includes a start.
            let befalls =
                |kind: Kind| kind.is_kill() || matches!(kind, Kind::Restart | Kind::Pause | Kind::ClockStepped);
            let busy: Duration = steps
                .iter()
                .filter(|step| !step.is_alone && befalls(step.kind))
                .map(|step| step.length + Duration::from_secs(2))
                .sum();
            let reserved: Duration = windows(&wanted).iter().map(|window| window.reserved).sum();
            assert!(busy < (wanted.duration - reserved) * 3, "{busy:?}");
        }
    }
}
