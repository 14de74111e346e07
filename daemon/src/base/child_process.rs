//! What processes need that the daemon starts of itself for work that may end a process: they have little memory, they are the
//! first to go, and the way in which they ended says who is the reason. What they do is not decided here.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

/// The memory that such a process may take, beyond what it has at its start. It is at most half of what the machine or the
/// container has left.
const MEMORY: u64 = 384 << 20;
const LEAST_MEMORY: u64 = 64 << 20;
/// What the container may use, in version 2 and 1 of control groups.
const CONTAINER: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Where the machine has too little memory, this process is the first to be ended. It ends with its parent, too.
pub fn go_first() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior, set_parent_process_death_signal};
    // A process that can't be dumped may not even say this of itself. It has read no secret yet. Whatever fails here, the
    // process works all the same.
    set_dumpable_behavior(DumpableBehavior::Dumpable).ok();
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
}

/// Bounds the memory for data, from now on.
///
/// # Errors
/// A sentence that says why there is no bound.
pub fn bound_memory() -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let container = CONTAINER.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let left = kibibytes("/proc/meminfo", "MemAvailable:").into_iter().chain(container).min();
    let memory = left.map_or(MEMORY, |left| MEMORY.min(left / 2)).max(LEAST_MEMORY);
    let used = kibibytes("/proc/self/status", "VmData:").ok_or("its own memory can't be read")?;
    // A limit that the daemon has got itself can't be raised.
    let limit = Some(used.saturating_add(memory)).into_iter().chain(getrlimit(Resource::Data).maximum).min();
    setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }).map_err(|error| error.to_string())
}

/// A number of KiB in a file of the system, in bytes.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    number.parse::<u64>().ok()?.checked_mul(1_024)
}

/// Whether what the process did has ended it: without memory, it aborts. Any other signal comes from somebody else: an
/// operator, or a kernel whose memory is used up.
pub fn died_by_itself(status: ExitStatus) -> bool {
    let own = [Signal::ABORT, Signal::BUS, Signal::FPE, Signal::ILL, Signal::SEGV].map(Signal::as_raw);
    status.signal().is_some_and(|signal| own.contains(&signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_somebody_ended_accuses_nothing() {
        for (raw, is_own) in
            [(6, true), (6 | 0x80, true), (11, true), (9, false), (15, false), (2, false), (1 << 8, false), (0, false)]
        {
            assert_eq!(died_by_itself(ExitStatus::from_raw(raw)), is_own, "{raw}");
        }
    }
}
