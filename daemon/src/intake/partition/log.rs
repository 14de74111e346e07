//! Decides whether a partition's log is the one that the store knows. It compares the record below the watermark, and
//! the beginning and the end of the log.

use super::{
    AcceptFrom, Action, Actions, Awaited, Begin, Check, Committed, LogEnds, Partition, PartitionState, StartOverCause,
    StartOverReason,
};
use crate::model::callback::Hash;
use crate::model::offsets::{UNREAD, Watermark};

impl Partition {
    /// A record came.
    pub(super) fn read(&mut self, offset: i64, hash: Hash) -> Actions {
        // A record that comes before the client has moved belongs to the earlier place. A record that comes while we
        // ask about a missing record is read again later.
        if matches!(self.awaits, Some(Awaited::Moved | Awaited::Ends(Check::RecordGone))) {
            return Actions::none();
        }
        match self.state {
            PartitionState::Reading => {}
            PartitionState::Verifying { offset: known, hash: known_hash } => {
                self.position_is_stale = false;
                if offset > known {
                    // Either retention removed the record we know, or the log is another one.
                    return self.ask_ends(Check::RecordGone);
                }
                if offset < known || (hash != known_hash && hash != UNREAD) {
                    return self.start_over(StartOverReason::OtherRecord);
                }
                self.state = PartitionState::Reading;
                return Actions::none();
            }
            _ => return Actions::none(),
        }
        self.position_is_stale = false;
        self.read_upto = self.read_upto.max(Some(offset.saturating_add(1)));
        Actions::one(Action::Admit)
    }

    pub(super) fn know_ends(&mut self, ends: LogEnds) -> Actions {
        let asked = |awaits: &mut Awaited| matches!(awaits, Awaited::Ends(_) | Awaited::Obsolete);
        let Some(Awaited::Ends(check)) = self.awaits.take_if(asked) else { return Actions::none() };
        if let Some(watermark) = ends.watermark {
            self.watermark = watermark;
        }
        match check {
            Check::Silent => match self.state {
                PartitionState::Verifying { offset, .. } if ends.high <= offset => {
                    self.start_over(StartOverReason::EndsBelow)
                }
                _ => Actions::none(),
            },
            Check::RecordGone => match self.compare(&ends) {
                Some(actions) => actions,
                // The log has this offset, but not our record.
                None => self.start_over(StartOverReason::OtherRecord),
            },
            // There is no difference, so Kafka may have stopped serving this partition: it is taken again and verified.
            Check::OutOfRange => self.compare(&ends).unwrap_or_else(|| self.give_up()),
            Check::StartOver(reason) => {
                let cause = StartOverCause::LogChanged(reason);
                let action = Action::StartOver { start: ends.low, log_end: ends.high, cause };
                self.ask(Awaited::StartedOver(Begin::NewLog), action)
            }
            Check::Accept { from, committed } => self.start_accepted(from, committed, &ends),
        }
    }

    /// Compares the ends of the log with the records read. `None` if they fit.
    fn compare(&mut self, ends: &LogEnds) -> Option<Actions> {
        let Watermark { upto, last, .. } = self.watermark;
        let LogEnds { low, high, .. } = *ends;
        if upto > high || self.read_upto.is_some_and(|read_upto| read_upto > high) {
            return Some(self.start_over(StartOverReason::EndsBelow));
        }
        // A partition that was never read starts where its log begins, so none of its records is lost.
        let was_removed = upto > 0 && last.map_or(upto, |(offset, _)| offset) < low;
        if !was_removed && self.read_upto.is_none_or(|read_upto| read_upto >= low) {
            return None;
        }
        let read_upto = upto.max(self.read_upto.unwrap_or(0)).max(self.counted_upto);
        let lost = low.saturating_sub(read_upto);
        let mut actions = Actions::none();
        if lost > 0 {
            self.counted_upto = low;
            actions = actions.and(Action::CountLost { lost, begin: low });
        }
        self.state = PartitionState::Reading;
        self.read_upto = self.read_upto.max(Some(low));
        Some(self.go_to(Action::SkipTo(low.max(upto)), actions))
    }

    fn start_accepted(&mut self, from: AcceptFrom, committed: Option<Committed>, ends: &LogEnds) -> Actions {
        let (low, high) = (ends.low, ends.high);
        if high < self.counted_upto {
            // The topic was re-created while nobody read it.
            self.counted_upto = 0;
        }
        let Committed { offset, store } = committed.unwrap_or(Committed { offset: low, store: "".into() });
        let start = match from {
            AcceptFrom::Earliest => low,
            AcceptFrom::Committed => offset.min(high).max(low),
            AcceptFrom::End => high,
        };
        let action = Action::StartOver { start, log_end: high, cause: StartOverCause::Accepted { store } };
        self.ask(Awaited::StartedOver(Begin::Accepted), action)
    }

    /// Records below the watermark are those of an earlier log, although the last one may be of this log. So the partition starts over
    /// even if the store or Kafka does not answer now and it is taken again.
    pub(super) fn know_other_log(&mut self) -> Actions {
        self.has_other_log = true;
        self.start_over(StartOverReason::OtherRecord)
    }

    /// The partition was taken again because starting over has failed.
    pub(super) fn ask_to_start_over(&mut self) -> Actions {
        let check = Check::StartOver(StartOverReason::OtherRecord);
        self.ask(Awaited::Ends(check.clone()), Action::AskEnds(check))
    }

    /// The partition has another log now, so nothing that we know about the old one counts. Where an operator has accepted
    /// its offsets, or has moved its watermark, the log is the same: what was read or counted as lost before is not counted
    /// as lost again.
    pub(super) fn forget_log(&mut self, begin: Begin) {
        self.committed = None;
        match begin {
            Begin::NewLog => self.counted_upto = 0,
            Begin::Accepted => {}
            Begin::Reset { from } => self.counted_upto = self.counted_upto.max(from),
        }
    }

    /// Row 37: the topic was re-created or truncated. Its records are new, but they are still looked up by id.
    fn start_over(&mut self, reason: StartOverReason) -> Actions {
        let asked = matches!(self.awaits, Some(Awaited::Ends(_)));
        let actions = self.give_up();
        self.awaits = Some(Awaited::Ends(Check::StartOver(reason)));
        if asked { actions } else { actions.and(Action::AskEnds(Check::StartOver(reason))) }
    }
}
