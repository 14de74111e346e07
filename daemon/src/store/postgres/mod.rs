//! The store on PostgreSQL, version 15 or newer. Each file says what it does; together they are the counterpart of the folder
//! `sqlite`, with the same names where the same thing is done.

mod cells;
mod connection;
mod engine;
mod error;
mod migrations;
mod numbers;
mod parked;
mod pipeline;
#[cfg(test)]
mod pipeline_tests;
mod presence;
mod reads;
mod schema;
mod server;
mod session;
mod sql;
pub(super) mod target;
mod timeline;
mod tls;
pub(super) mod tools;
mod transaction;
mod turns;
mod url;

pub(super) use connection::PostgresStore;
pub use url::{PostgresUrl, UrlError};
