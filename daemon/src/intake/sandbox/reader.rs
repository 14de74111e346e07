//! Starts sandboxes for one partition, one after the other, passes on what they read, and finds the records that end them.

use std::io::{BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rustix::process::Signal;

use super::frame::{Frame, Order};
use super::killer::first_survivor;
use super::{COMMAND, Heard, Running, Sandboxes};
use crate::intake::partition::Place;
use crate::model::event::PartitionKey;

/// A batch is given up after so many sandboxes ended that had read nothing but it.
const DEATHS_ALONE: u32 = 2;
/// So many sandboxes may fail, one after the other, for another reason than a record.
const FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// How long the thread waits for a place before it looks again whether it must stop.
const NEXT_LOOK: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    sandboxes: Sandboxes,
    partition: Arc<PartitionKey>,
    running: Arc<Running>,
    heard: SyncSender<Heard>,
}

/// How one sandbox ended.
enum Ended {
    /// Everything was read.
    Reached {
        next: i64,
    },
    /// What it read ended it.
    Died,
    Failed(String),
    /// Nobody listens any more.
    Stopped,
}

/// How far reading has come.
#[derive(Default)]
struct Progress {
    next: Option<i64>,
    log_end: i64,
    /// The last sandbox has read a record.
    has_read: bool,
    /// Sandboxes that ended before they had read a record from here.
    deaths: u32,
    failures: u32,
}

/// Whether what the process did has ended it: without memory, it aborts. Any other signal comes from somebody else: an
/// operator, or a kernel whose memory is used up.
fn died_by_itself(status: ExitStatus) -> bool {
    let own = [Signal::ABORT, Signal::BUS, Signal::FPE, Signal::ILL, Signal::SEGV].map(Signal::as_raw);
    status.signal().is_some_and(|signal| own.contains(&signal))
}

impl Reader {
    pub(super) fn new(
        sandboxes: Sandboxes,
        partition: Arc<PartitionKey>,
        running: Arc<Running>,
        heard: SyncSender<Heard>,
    ) -> Self {
        Self { sandboxes, partition, running, heard }
    }

    /// Runs until the end of the log.
    pub(super) fn run(self, place: Place) {
        let from = match place {
            Place::Beginning => None,
            Place::Offset(offset) => Some(offset),
        };
        let _place = loop {
            match Arc::clone(&self.sandboxes.places).try_acquire_owned() {
                Ok(place) => break place,
                Err(_) if self.running.is_stopped() => return,
                Err(_) => std::thread::sleep(NEXT_LOOK),
            }
        };
        let partition = &self.partition;
        tracing::warn!(%partition, "the daemon died twice while it read this partition from the same place: it is read in a sandbox up to its end");
        if let Some(end) = self.read_all(from) {
            tracing::info!(%partition, "this partition is read as usual again");
            // If nobody listens any more, the partition has been given up.
            self.heard.send(end).ok();
        }
    }

    fn read_all(&self, from: Option<i64>) -> Option<Heard> {
        let partition = &self.partition;
        let mut progress = Progress { next: from, ..Progress::default() };
        loop {
            match self.read(&mut progress) {
                Ended::Reached { next } => return Some(Heard::End { next: Place::Offset(next) }),
                Ended::Stopped => return None,
                // The records that it had read stood in its memory as well: its successor reads the next batch alone.
                Ended::Died if progress.has_read => {}
                Ended::Died => {
                    progress.deaths += 1;
                    let Some(killer) = progress.next.filter(|_| progress.deaths >= DEATHS_ALONE) else { continue };
                    let upto = first_survivor(killer, progress.log_end, |offset| self.survives(offset));
                    let upto = upto.unwrap_or(0).max(killer.saturating_add(1));
                    tracing::error!(%partition, offset = killer, upto, "a batch of records can't be read: each sandbox that read it ended; its records are dead letters (poison)");
                    self.heard.send(Heard::Killer { from: killer, upto }).ok()?;
                    (progress.next, progress.deaths) = (Some(upto), 0);
                }
                Ended::Failed(reason) => {
                    progress.failures += 1;
                    tracing::warn!(%partition, reason, "a sandbox could not read");
                    if progress.failures >= FAILURES {
                        return Some(Heard::End { next: progress.next.map_or(Place::Beginning, Place::Offset) });
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Whether a sandbox that begins at this offset reads a record, or finds none. `None` if it can't be told.
    fn survives(&self, offset: i64) -> Option<bool> {
        for _ in 0..FAILURES {
            let ended = self.with_sandbox(Some(offset), |frame, _| match frame {
                Frame::Start { .. } | Frame::Failed { .. } => None,
                Frame::Record { .. } | Frame::End { .. } => Some(Ended::Reached { next: offset }),
            });
            match ended {
                Ended::Reached { .. } => return Some(true),
                Ended::Died => return Some(false),
                Ended::Stopped => return None,
                Ended::Failed(_) => std::thread::sleep(PAUSE),
            }
        }
        None
    }

    /// Passes on what one sandbox reads.
    fn read(&self, progress: &mut Progress) -> Ended {
        let mut failure = None;
        progress.has_read = false;
        let ended = self.with_sandbox(progress.next, |frame, answer| {
            match frame {
                Frame::Start { from, log_end } => (progress.next, progress.log_end) = (Some(from), log_end),
                Frame::End { next } => return Some(Ended::Reached { next }),
                Frame::Failed { reason } => failure = Some(reason),
                Frame::Record { head, value_bytes } => {
                    let record = head.with_value(answer, value_bytes)?;
                    let next = record.offset.saturating_add(1);
                    *progress =
                        Progress { next: Some(next), log_end: progress.log_end, has_read: true, ..Progress::default() };
                    if self.heard.send(Heard::Record(Box::new(record))).is_err() {
                        return Some(Ended::Stopped);
                    }
                }
            }
            None
        });
        match (ended, failure) {
            (Ended::Failed(_), Some(reason)) => Ended::Failed(reason),
            (ended, _) => ended,
        }
    }

    /// Runs one sandbox from this offset until it ends, or until `heard` has an answer to one of its lines.
    fn with_sandbox(
        &self,
        from: Option<i64>,
        mut heard: impl FnMut(Frame, &mut BufReader<ChildStdout>) -> Option<Ended>,
    ) -> Ended {
        let mut answer = match self.start(from) {
            Ok(answer) => BufReader::new(answer),
            Err(error) => return Ended::Failed(error.to_string()),
        };
        let (mut answered, mut has_started) = (None, false);
        while answered.is_none() {
            let Some(frame) = Frame::read(&mut answer) else { break };
            has_started |= matches!(frame, Frame::Start { .. });
            answered = heard(frame, &mut answer);
        }
        let Some(mut child) = self.running.child().take() else { return Ended::Stopped };
        // It may still run, if its answer made no sense. This fails only if the process has ended already.
        child.kill().ok();
        let status = child.wait();
        if self.running.is_stopped() {
            return Ended::Stopped;
        }
        answered.unwrap_or_else(|| match status {
            // What ends it before it reads is no record.
            Ok(status) if has_started && died_by_itself(status) => Ended::Died,
            Ok(status) => Ended::Failed(status.to_string()),
            Err(error) => Ended::Failed(error.to_string()),
        })
    }

    /// Starts a sandbox, and gives its answer.
    fn start(&self, from: Option<i64>) -> std::io::Result<ChildStdout> {
        let order = Order {
            client: self.sandboxes.client.clone(),
            topic: self.partition.topic.to_string(),
            partition: self.partition.number,
            from,
            max_event_bytes: self.sandboxes.max_event_bytes,
        };
        // This program itself, even if its file has another version by now.
        let mut child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut current = self.running.child();
        if self.running.is_stopped() {
            // It fails only if the process has ended already.
            child.kill().ok();
        }
        *current = Some(child);
        drop(current);
        // Passwords are among the client's properties, so they go where nobody else can look.
        input.ok_or(std::io::ErrorKind::BrokenPipe)?.write_all(&serde_json::to_vec(&order)?)?;
        output.ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_somebody_ended_accuses_no_record() {
        for (raw, is_own) in
            [(6, true), (6 | 0x80, true), (11, true), (9, false), (15, false), (2, false), (1 << 8, false), (0, false)]
        {
            assert_eq!(died_by_itself(ExitStatus::from_raw(raw)), is_own, "{raw}");
        }
    }
}
