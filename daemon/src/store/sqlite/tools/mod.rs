//! Tools for a store's files: the look before a start, and the look inside without changing anything.

pub(in crate::store) mod check;
pub(in crate::store) mod inspect;
