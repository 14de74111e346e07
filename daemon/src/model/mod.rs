//! The nouns of the domain and their rules. Nothing here does I/O, reads a clock, or knows a JSON form.

pub mod amendment;
pub mod attempt;
pub mod callback;
pub mod dead_letter;
pub mod endpoint;
pub mod endpoint_history;
pub mod event;
pub mod hash;
pub mod keeping;
pub mod lease;
pub mod no_body;
pub mod notice;
pub mod offsets;
pub mod pause;
pub mod permission;
pub mod retry;
pub mod sent_with;
pub mod settlement;
pub mod state;
pub mod team;

#[cfg(test)]
mod names_tests;
