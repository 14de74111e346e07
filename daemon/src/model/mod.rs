//! The nouns and their rules: no I/O, no clock, no serde.

pub mod attempt;
pub mod callback;
pub mod dead_letter;
pub mod endpoint;
pub mod event;
pub mod lease;
pub mod offsets;
pub mod retry;
pub mod settlement;
pub mod team;
