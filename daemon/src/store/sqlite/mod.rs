//! The SQLite store: one writer thread that owns the writing connection, a few reading connections bounded in time,
//! and a file lock that keeps other processes out.
//!
//! WAL with `synchronous=FULL`: a commit that was answered is on the disk. Files are 0600 in a 0700 directory.

mod connection;
mod engine;
mod error;
mod id_cache;
mod migrations;
mod no_room;
mod reads;
mod sql;
pub(super) mod tools;

pub(super) use connection::SqliteStore;
