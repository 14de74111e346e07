//! The gates of one kind, by key, and whose turn it is. It is pure.
//!
//! A gate that has room and waiters is *open*. Open gates take turns, and so do the lanes that wait at one gate. The
//! ring of teams is the scheduler's main ring: turns go around the teams, then around a team's lanes. The ring of
//! origins decides which lanes are called back into the main ring.

use std::collections::HashMap;
use std::hash::Hash;

use super::gate::{Gate, Line, Lines};
use super::list::{Links, List};
use super::table::Table;

/// Gates by key. A gate exists as long as a lane belongs to it.
pub(super) struct Ring<K> {
    entries: Table<Entry<K>>,
    by_key: HashMap<K, usize>,
    /// The open gates of each line in turn, with their links.
    open: [(List, Links); 2],
    /// The due rows in all main lines of open gates.
    due: usize,
    cap: usize,
}

struct Entry<K> {
    key: K,
    gate: Gate<Lines>,
    is_open: [bool; 2],
    /// The due rows of the lanes in the main line.
    due: usize,
    /// Lanes that belong to the gate.
    lanes: usize,
}

impl<K: Clone + Eq + Hash> Ring<K> {
    /// Each gate has this cap.
    pub(super) fn new(cap: usize) -> Self {
        Self { entries: Table::new(), by_key: HashMap::new(), open: Default::default(), due: 0, cap }
    }

    /// The number of the key's gate. A lane belongs to it from here on.
    pub(super) fn join(&mut self, key: &K) -> usize {
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => {
                let gate = Gate::new(self.cap);
                let id = self.entries.insert(Entry { key: key.clone(), gate, is_open: [false; 2], due: 0, lanes: 0 });
                self.by_key.insert(key.clone(), id);
                self.open.iter_mut().for_each(|(_, links)| links.reach(id));
                id
            }
        };
        self.entries[id].lanes += 1;
        id
    }

    /// A lane that belonged to the gate is dropped. With its last lane, the gate is dropped, too.
    pub(super) fn part(&mut self, id: usize) {
        self.entries[id].lanes -= 1;
        if self.entries[id].lanes == 0 {
            let entry = self.entries.remove(id);
            self.by_key.remove(&entry.key);
        }
    }

    pub(super) fn has_room(&self, id: usize) -> bool {
        self.entries[id].gate.has_room()
    }

    pub(super) fn enter(&mut self, id: usize) {
        self.entries[id].gate.enter();
        self.arrange(id);
    }

    pub(super) fn leave(&mut self, id: usize) {
        self.entries[id].gate.leave();
        self.arrange(id);
    }

    /// Puts a lane at the end of one of the gate's lines. `lanes` are the lanes' links.
    pub(super) fn push(&mut self, id: usize, line: Line, lane: usize, lanes: &mut Links) {
        self.entries[id].gate.waiters[line].push_back(lanes, lane);
        self.arrange(id);
    }

    /// Takes a lane out of its line.
    pub(super) fn remove(&mut self, id: usize, line: Line, lane: usize, lanes: &mut Links) {
        self.entries[id].gate.waiters[line].remove(lanes, lane);
        self.arrange(id);
    }

    /// Takes the first lane out of one of the gate's lines.
    pub(super) fn pop(&mut self, id: usize, line: Line, lanes: &mut Links) -> Option<usize> {
        let lane = self.entries[id].gate.waiters[line].pop_front(lanes);
        self.arrange(id);
        lane
    }

    /// The gate whose turn it is, and the first lane of its line, which is taken out. A gate that stays open has its
    /// next turn after all others.
    pub(super) fn take_turn(&mut self, line: Line, lanes: &mut Links) -> Option<(usize, usize)> {
        let (open, links) = &mut self.open[line as usize];
        let id = open.pop_front(links)?;
        self.note_open(id, line, false);
        let lane = self.pop(id, line, lanes).expect("an open gate has waiters");
        Some((id, lane))
    }

    /// The due rows in all main lines of open gates.
    pub(super) fn due(&self) -> usize {
        self.due
    }

    /// A lane in the main line has this many more due rows.
    pub(super) fn add_due(&mut self, id: usize, rows: usize) {
        let entry = &mut self.entries[id];
        entry.due += rows;
        if entry.is_open[Line::Main as usize] {
            self.due += rows;
        }
    }

    /// A lane in the main line has this many fewer due rows, or has left the line.
    pub(super) fn take_due(&mut self, id: usize, rows: usize) {
        let entry = &mut self.entries[id];
        entry.due -= rows;
        if entry.is_open[Line::Main as usize] {
            self.due -= rows;
        }
    }

    /// Changes the cap of each gate.
    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
        for id in self.entries.ids() {
            self.entries[id].gate.set_cap(cap);
            self.arrange(id);
        }
    }

    /// Makes the gate take turns in exactly those lines that have waiters, while it has room. Each change of a gate
    /// ends here, so that no wake-up can be forgotten.
    fn arrange(&mut self, id: usize) {
        for line in Line::ALL {
            let entry = &self.entries[id];
            let is_open = entry.gate.has_room() && !entry.gate.waiters[line].is_empty();
            if is_open == entry.is_open[line as usize] {
                continue;
            }
            let (open, links) = &mut self.open[line as usize];
            if is_open {
                open.push_back(links, id);
            } else {
                open.remove(links, id);
            }
            self.note_open(id, line, is_open);
        }
    }

    fn note_open(&mut self, id: usize, line: Line, is_open: bool) {
        let entry = &mut self.entries[id];
        entry.is_open[line as usize] = is_open;
        if line == Line::Main {
            if is_open {
                self.due += entry.due;
            } else {
                self.due -= entry.due;
            }
        }
    }
}

#[cfg(test)]
mod check;
