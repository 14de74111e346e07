//! Tools for a store's files: a check before a start, an inspection that changes nothing, a backup, and the reading side of a copy to
//! another database.

pub(in crate::store) mod backup;
pub(in crate::store) mod check;
pub(in crate::store) mod inspect;
pub(in crate::store) mod source;
