//! A gate: one limit on how many requests may be under way, and the lanes that wait for room. It is pure.
//!
//! Every limit is a gate: the machine's fast permits, the unproven permits, a team's share, the slots of an origin over
//! all teams. A gate only counts and holds its waiters; it never decides who goes next.

use super::list::List;

/// A limit: at most `cap` are inside, `used` are inside now, and `waiters` wait for room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate<W = ()> {
    cap: usize,
    used: usize,
    pub(super) waiters: W,
}

/// One of the two lines of a gate.
///
/// Lanes that need an unproven permit wait in a line of their own, which is called only while such a permit is left. In
/// a common line, each of them would be called each time the gate has room, find no permit, and go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Main,
    Unproven,
}

impl Line {
    pub(super) const ALL: [Self; 2] = [Self::Main, Self::Unproven];
}

/// The two lines of lanes that wait at a gate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines([List; 2]);

impl std::ops::Index<Line> for Lines {
    type Output = List;

    fn index(&self, line: Line) -> &List {
        &self.0[line as usize]
    }
}

impl std::ops::IndexMut<Line> for Lines {
    fn index_mut(&mut self, line: Line) -> &mut List {
        &mut self.0[line as usize]
    }
}

impl<W: Default> Gate<W> {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, used: 0, waiters: W::default() }
    }
}

impl<W> Gate<W> {
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// How many more may enter.
    pub(super) fn room(&self) -> usize {
        self.cap.saturating_sub(self.used)
    }

    pub(super) fn has_room(&self) -> bool {
        self.used < self.cap
    }

    pub(super) fn enter(&mut self) {
        self.used += 1;
    }

    pub(super) fn leave(&mut self) {
        self.used = self.used.checked_sub(1).expect("a gate is left only after it was entered");
    }

    /// A lower cap does not stop requests that are under way.
    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    #[cfg(test)]
    pub(super) fn cap(&self) -> usize {
        self.cap
    }
}
