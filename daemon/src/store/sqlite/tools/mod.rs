//! Tools for a store's files: a check before a start, and an inspection that changes nothing.

pub(in crate::store) mod backup;
pub(in crate::store) mod check;
pub(in crate::store) mod inspect;
