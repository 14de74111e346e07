//! Rows that keep their number while they are there, and sets of such numbers.

use std::ops::{Index, IndexMut};

const NONE: usize = usize::MAX;

/// Rows by number. The number of a row that was removed is given to a later one.
#[derive(Debug)]
pub(super) struct Table<R> {
    rows: Vec<Option<R>>,
    free: Vec<usize>,
    /// Rows that were looked at, for tests of cost.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

impl<R> Table<R> {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        }
    }

    pub(super) fn insert(&mut self, row: R) -> usize {
        let id = self.free.pop().unwrap_or(self.rows.len());
        if id == self.rows.len() {
            self.rows.push(Some(row));
        } else {
            self.rows[id] = Some(row);
        }
        id
    }

    pub(super) fn remove(&mut self, id: usize) -> R {
        self.free.push(id);
        self.rows[id].take().expect("only a row that is there is removed")
    }

    /// The numbers of all rows. It looks at each of them, so it is not for the hot path.
    pub(super) fn ids(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|id| self.rows[*id].is_some()).collect()
    }

    /// All rows. It looks at each of them, so it is not for the hot path.
    pub(super) fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.iter().flatten().inspect(|_| self.count_look())
    }

    fn count_look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }
}

impl<R> Index<usize> for Table<R> {
    type Output = R;

    fn index(&self, id: usize) -> &R {
        self.count_look();
        self.rows[id].as_ref().expect("a number is kept only while its row is there")
    }
}

impl<R> IndexMut<usize> for Table<R> {
    fn index_mut(&mut self, id: usize) -> &mut R {
        self.count_look();
        self.rows[id].as_mut().expect("a number is kept only while its row is there")
    }
}

/// A set of numbers without an order. A change takes constant time, and a walk takes time proportional to its size.
#[derive(Debug, Default)]
pub(super) struct Members {
    ids: Vec<usize>,
    /// The place of each number in `ids`.
    places: Vec<usize>,
}

impl Members {
    /// Puts the number in, or takes it out.
    pub(super) fn set(&mut self, id: usize, is_member: bool) {
        if id >= self.places.len() {
            self.places.resize(id + 1, NONE);
        }
        let place = self.places[id];
        match (place, is_member) {
            (NONE, true) => {
                self.places[id] = self.ids.len();
                self.ids.push(id);
            }
            (NONE, false) => {}
            (_, true) => {}
            (place, false) => {
                self.ids.swap_remove(place);
                if let Some(moved) = self.ids.get(place) {
                    self.places[*moved] = place;
                }
                self.places[id] = NONE;
            }
        }
    }

    /// The numbers. Taking out the one at a place moves the last one there.
    pub(super) fn ids(&self) -> &[usize] {
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_only_once_its_row_is_gone() {
        let mut table = Table::new();
        let (a, b) = (table.insert('a'), table.insert('b'));
        assert_eq!(table.remove(a), 'a');
        let c = table.insert('c');
        assert_eq!((c, table[b], table[c]), (a, 'b', 'c'));
        assert_eq!(table.ids(), [a, b]);
        assert_eq!(table.iter().collect::<String>(), "cb");
    }

    #[test]
    fn members_come_and_go() {
        let mut members = Members::default();
        for id in [4, 1, 7, 4] {
            members.set(id, true);
        }
        assert_eq!(members.ids(), [4, 1, 7]);
        members.set(4, false);
        members.set(4, false);
        assert_eq!(members.ids(), [7, 1]);
        members.set(7, false);
        members.set(1, false);
        assert!(members.ids().is_empty());
    }
}
