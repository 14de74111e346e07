//! Ordered lists of numbered things. A thing is put at the end, and taken from the front or from the middle, each in
//! constant time and without allocating.
//!
//! The links are in a table, one pair for each thing. So a thing is in at most one list of a table at a time.

/// The end of a list.
const NONE: usize = usize::MAX;
/// The links of a thing that is in no list.
const UNLINKED: Link = Link { before: usize::MAX - 1, after: usize::MAX - 1 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    before: usize,
    after: usize,
}

/// The links of things numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Links {
    of: Vec<Link>,
    /// Links that were followed or changed, for tests of cost.
    #[cfg(test)]
    pub(super) steps: usize,
}

/// One list. Its links are in the [`Links`] that each call gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: usize,
    last: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl Links {
    /// Makes room for the links of thing number `id`.
    pub(super) fn reach(&mut self, id: usize) {
        if id >= self.of.len() {
            self.of.resize(id + 1, UNLINKED);
        }
    }

    fn set_after(&mut self, list: &mut List, id: usize, after: usize) {
        match id {
            NONE => list.first = after,
            id => self.of[id].after = after,
        }
    }

    fn set_before(&mut self, list: &mut List, id: usize, before: usize) {
        match id {
            NONE => list.last = before,
            id => self.of[id].before = before,
        }
    }

    fn count_step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }
}

impl List {
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// The thing must be in no list.
    pub(super) fn push_back(&mut self, links: &mut Links, id: usize) {
        links.count_step();
        debug_assert_eq!(links.of[id], UNLINKED, "a thing is in one list at a time");
        links.of[id] = Link { before: self.last, after: NONE };
        links.set_after(self, self.last, id);
        self.last = id;
    }

    pub(super) fn pop_front(&mut self, links: &mut Links) -> Option<usize> {
        let id = self.first;
        if id == NONE {
            return None;
        }
        self.remove(links, id);
        Some(id)
    }

    /// The thing must be in this list.
    pub(super) fn remove(&mut self, links: &mut Links, id: usize) {
        links.count_step();
        debug_assert_ne!(links.of[id], UNLINKED, "only a thing that is in a list is taken out");
        let Link { before, after } = std::mem::replace(&mut links.of[id], UNLINKED);
        links.set_after(self, before, after);
        links.set_before(self, after, before);
    }

    /// All things in the list, in order.
    #[cfg(test)]
    pub(super) fn all(&self, links: &Links) -> Vec<usize> {
        let mut all = Vec::new();
        let (mut before, mut id) = (NONE, self.first);
        while id != NONE {
            assert_eq!(links.of[id].before, before, "the links of a list agree");
            assert!(all.len() < links.of.len(), "a list has an end");
            all.push(id);
            (before, id) = (id, links.of[id].after);
        }
        assert_eq!(self.last, before, "a list knows its last one");
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order_and_gives_up_its_middle() {
        let mut links = Links::default();
        links.reach(5);
        let mut list = List::default();
        for id in [3, 0, 5, 1] {
            list.push_back(&mut links, id);
        }
        list.remove(&mut links, 5);
        assert_eq!(list.all(&links), [3, 0, 1]);
        list.remove(&mut links, 1);
        list.remove(&mut links, 3);
        list.push_back(&mut links, 5);
        assert_eq!(list.all(&links), [0, 5]);
        assert_eq!(list.pop_front(&mut links), Some(0));
        assert_eq!(list.pop_front(&mut links), Some(5));
        assert_eq!(list.pop_front(&mut links), None);
        assert!(list.is_empty());
    }
}
