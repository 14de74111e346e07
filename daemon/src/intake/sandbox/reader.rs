//! Starts sandboxes for one partition, one after the other, passes on what they read, and finds the records that end
//! them.

use std::io::{BufReader, Write as _};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::frame::{Frame, Order};
use super::killer::first_survivor;
use super::{COMMAND, Heard, Running, Sandboxes};
use crate::base::child_process::died_by_itself;
use crate::base::pace::Pace;
use crate::intake::partition::Place;
use crate::model::event::PartitionKey;

/// A batch is given up after so many sandboxes ended that had read nothing but it.
const DEATHS_ALONE: u32 = 2;
/// How often an offset is tried where a sandbox fails for another reason than a record.
const TRIES: u32 = 3;
/// The waits after such failures.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a thread that waits looks whether it must stop.
const NEXT_LOOK: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    sandboxes: Sandboxes,
    partition: Arc<PartitionKey>,
    running: Arc<Running>,
    heard: SyncSender<Heard>,
}

/// How one sandbox ended.
#[derive(Debug)]
enum Ended {
    /// Everything was read.
    Reached {
        next: i64,
    },
    /// It had a record, so its batch has not ended it.
    Survived,
    /// What it read ended it.
    Died,
    /// Kafka says that the partition does not exist.
    Absent,
    Failed(String),
    /// No process can be started.
    Impossible(std::io::Error),
    /// Nobody listens any more.
    Stopped,
}

/// How far reading has come.
struct Progress {
    next: Option<i64>,
    log_end: i64,
    /// The last sandbox had this record, and ended before all of it was here: the batch behind it came in between.
    got: Option<i64>,
    /// The last sandbox had any record.
    had_record: bool,
    /// Some sandbox had one, so sandboxes can read here.
    can_read: bool,
    /// Sandboxes that ended, and had nothing but the batch at `next`.
    deaths: u32,
    is_told: bool,
    pace: Pace,
}

impl Progress {
    fn from(place: Place) -> Self {
        let next = match place {
            Place::Beginning => None,
            Place::Offset(offset) => Some(offset),
        };
        let pace = Pace::new(FIRST_WAIT, LONGEST_WAIT);
        Self { next, log_end: 0, got: None, had_record: false, can_read: false, deaths: 0, is_told: false, pace }
    }

    /// Another sandbox begins. Returns whether one record is enough for it.
    fn begin(&mut self) -> bool {
        self.had_record = false;
        self.got.take().is_some()
    }

    fn got(&mut self, offset: i64) {
        (self.got, self.had_record, self.can_read) = (Some(offset), true, true);
    }

    /// All of a record is here.
    fn has(&mut self, offset: i64) {
        (self.next, self.got, self.deaths) = (Some(offset.saturating_add(1)), None, 0);
        self.pace.succeeded();
    }

    /// What the last sandbox read ended it. Returns the offset of the batch that is the reason, as soon as that is
    /// certain.
    fn died(&mut self) -> Option<i64> {
        // The records that it had had been read together with the batch. Its successor reads the batch alone.
        self.deaths = if self.had_record { 0 } else { self.deaths.saturating_add(1) };
        self.next.filter(|_| self.deaths >= DEATHS_ALONE)
    }

    fn passed(&mut self, next: i64) {
        (self.next, self.deaths) = (Some(next), 0);
    }
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
        let mut progress = Progress::from(place);
        if let Some(next) = self.read_all(&mut progress) {
            if progress.is_told {
                tracing::info!(partition = %self.partition, "this partition is read as usual again");
            }
            // If nobody listens any more, the partition has been given up.
            self.heard.send(Heard::End(next)).ok();
        }
    }

    /// Returns from where the client reads on, or `None` if nobody listens any more.
    fn read_all(&self, progress: &mut Progress) -> Option<Place> {
        let partition = &self.partition;
        loop {
            let failure = match self.read(progress) {
                Ended::Reached { next } => return Some(Place::Offset(next)),
                Ended::Survived => continue,
                Ended::Died => match progress.died() {
                    None => continue,
                    Some(killer) if self.bury(killer, progress)? => continue,
                    Some(_) => "each one ends, and none has read anything here".to_owned(),
                },
                Ended::Failed(reason) => reason,
                Ended::Impossible(error) if !self.sandboxes.after_deaths => {
                    tracing::error!(%partition, %error, "no sandbox can be started");
                    return None;
                }
                Ended::Impossible(error) => {
                    tracing::error!(%partition, %error, "no sandbox can be started; the daemon itself reads on");
                    return Some(progress.next.map_or(Place::Beginning, Place::Offset));
                }
                Ended::Absent => {
                    // If nobody listens any more, nobody needs to know.
                    self.heard.send(Heard::Absent).ok();
                    return None;
                }
                Ended::Stopped => return None,
            };
            tracing::warn!(%partition, reason = failure, "a sandbox could not read; another one tries again");
            self.wait(progress.pace.next_wait())?;
        }
    }

    /// Buries the records of the batch at this offset. False if it is not certain that the batch is the reason. `None`
    /// if nobody listens any more.
    fn bury(&self, killer: i64, progress: &mut Progress) -> Option<bool> {
        let mut can_read = progress.can_read;
        let upto = first_survivor(killer, progress.log_end, |offset| self.survives(offset, &mut can_read));
        progress.can_read = can_read;
        if self.running.is_stopped() {
            return None;
        }
        let Some(upto) = upto.filter(|_| can_read) else { return Some(false) };
        if self.sandboxes.after_deaths {
            tracing::error!(partition = %self.partition, offset = killer, upto, "a batch of records can't be read: each sandbox that read it ended; its records become dead letters (poison)");
        }
        for offset in killer..upto {
            self.heard.send(Heard::Unread(offset)).ok()?;
        }
        progress.passed(upto);
        Some(true)
    }

    /// Waits so long. `None` if nobody listens any more.
    fn wait(&self, time: Duration) -> Option<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.running.is_stopped() {
                return None;
            }
            std::thread::sleep(NEXT_LOOK);
        }
        Some(())
    }

    /// Whether a sandbox that begins at this offset has a record, or finds that there is none. `None` if it can't be
    /// told.
    fn survives(&self, offset: i64, can_read: &mut bool) -> Option<bool> {
        for _ in 0..TRIES {
            let ended = self.with_sandbox(Some(offset), true, |frame, _| match frame {
                Frame::Start { .. } | Frame::Failed { .. } => None,
                Frame::Got { .. } | Frame::Record { .. } => Some(Ended::Survived),
                Frame::End { next } => Some(Ended::Reached { next }),
                Frame::Absent => Some(Ended::Absent),
            });
            match ended {
                Ended::Survived => {
                    *can_read = true;
                    return Some(true);
                }
                Ended::Reached { .. } => return Some(true),
                Ended::Died => return Some(false),
                Ended::Absent | Ended::Stopped | Ended::Impossible(_) => return None,
                Ended::Failed(_) => self.wait(FIRST_WAIT)?,
            }
        }
        None
    }

    /// Passes on what one sandbox reads.
    fn read(&self, progress: &mut Progress) -> Ended {
        let only_one = progress.begin();
        let mut failure = None;
        let ended = self.with_sandbox(progress.next, only_one, |frame, answer| {
            match frame {
                Frame::Start { from, log_end } => {
                    (progress.next, progress.log_end) = (Some(from), log_end);
                    self.tell(progress);
                }
                Frame::End { next } => {
                    progress.next = Some(next);
                    return Some(if only_one { Ended::Survived } else { Ended::Reached { next } });
                }
                Frame::Absent => return Some(Ended::Absent),
                Frame::Failed { reason } => failure = Some(reason),
                Frame::Got { offset } => progress.got(offset),
                Frame::Record { head, value_bytes } => {
                    let record = head.with_value(answer, value_bytes)?;
                    progress.has(record.offset);
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

    /// Says once that there is something to read in a sandbox.
    fn tell(&self, progress: &mut Progress) {
        if self.sandboxes.after_deaths && !progress.is_told && progress.next.is_some_and(|next| next < progress.log_end)
        {
            progress.is_told = true;
            tracing::warn!(partition = %self.partition, "the daemon died twice, one time after the other, and this partition had not come further: it is read in a sandbox up to its end");
        }
    }

    /// Runs one sandbox from this offset until it ends, or until `heard` has an answer to one of its lines.
    fn with_sandbox(
        &self,
        from: Option<i64>,
        only_one: bool,
        mut heard: impl FnMut(Frame, &mut BufReader<ChildStdout>) -> Option<Ended>,
    ) -> Ended {
        let mut answer = match self.start(from, only_one) {
            Ok(answer) => BufReader::new(answer),
            Err(error) => return Ended::Impossible(error),
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
    fn start(&self, from: Option<i64>, only_one: bool) -> std::io::Result<ChildStdout> {
        let order = Order {
            client: self.sandboxes.client.clone(),
            cluster: (!self.sandboxes.after_deaths).then(|| self.partition.cluster.to_string()),
            topic: self.partition.topic.to_string(),
            partition: self.partition.number,
            from,
            or_from_beginning: !self.sandboxes.after_deaths,
            only_one,
            max_event_bytes: self.sandboxes.max_event_bytes,
            wanted: self.sandboxes.wanted.to_vec(),
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
        // Passwords are among the client's properties, so they go where nobody else can look. A sandbox that ends before
        // it has read them gives no answer.
        if let Some(mut input) = input {
            input.write_all(&serde_json::to_vec(&order)?).ok();
        }
        output.ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_reason_when_it_ended_two_sandboxes_that_had_nothing_else() {
        let mut progress = Progress::from(Place::Offset(7));
        assert!(!progress.begin());
        progress.got(7);
        progress.has(7);
        assert_eq!(progress.died(), None, "it had record 7 as well");
        // The next one gets record 8 and ends before all of it is here.
        assert!(!progress.begin(), "all of record 7 is here");
        progress.got(8);
        assert_eq!(progress.died(), None);
        assert!(progress.begin(), "record 8 is read alone");
        progress.got(8);
        progress.has(8);
        for (death, killer) in [(1, None), (2, Some(9))] {
            assert!(!progress.begin());
            assert_eq!(progress.died(), killer, "death {death}");
        }
        progress.passed(12);
        assert!(!progress.begin());
        assert_eq!((progress.died(), progress.next), (None, Some(12)), "another batch");
    }
}
