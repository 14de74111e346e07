//! Recounts everything that a ring keeps, and compares.

use super::*;

impl<K: Clone + Eq + Hash> Ring<K> {
    /// Exactly the open gates take turns, each of them once, and all counts are right.
    pub(in crate::schedule) fn check(&self) {
        assert_eq!(self.by_key.len(), self.ids().len());
        for (key, id) in &self.by_key {
            assert!(self.entries[*id].key == *key, "a gate is found by its key");
        }
        for line in Line::ALL {
            let (open, links) = &self.open[line as usize];
            let mut in_turn = open.all(links);
            in_turn.sort_unstable();
            let has_waiters = |id: &usize| !self.entries[*id].gate.waiters[line].is_empty();
            let expected: Vec<_> = self.ids().into_iter().filter(|id| self.has_room(*id)).filter(has_waiters).collect();
            assert_eq!(in_turn, expected, "the gates with room and waiters take turns, and no others");
            for id in self.ids() {
                assert_eq!(self.entries[id].is_open[line as usize], expected.contains(&id));
            }
        }
        let (open, links) = &self.open[Line::Main as usize];
        assert_eq!(self.due, open.all(links).iter().map(|id| self.entries[*id].due).sum::<usize>());
    }

    pub(in crate::schedule) fn ids(&self) -> Vec<usize> {
        self.entries.ids()
    }

    /// The lanes in a line, in order.
    pub(in crate::schedule) fn line(&self, id: usize, line: Line, lanes: &Links) -> Vec<usize> {
        self.entries[id].gate.waiters[line].all(lanes)
    }

    pub(in crate::schedule) fn gate(&self, id: usize) -> &Gate<Lines> {
        &self.entries[id].gate
    }

    /// The lanes that belong to a gate, and the due rows in its main line.
    pub(in crate::schedule) fn counts(&self, id: usize) -> (usize, usize) {
        (self.entries[id].lanes, self.entries[id].due)
    }

    /// How many gates were looked at, and how many links were changed, so far.
    pub(in crate::schedule) fn steps(&self) -> usize {
        self.entries.looks.get() + self.open.iter().map(|(_, links)| links.steps).sum::<usize>()
    }
}
