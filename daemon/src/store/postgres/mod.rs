//! The store on PostgreSQL, version 15 or newer. Each file says what it does; together they are the counterpart of the folder
//! `sqlite`, with the same names where the same thing is done.

mod cells;
mod connection;
mod engine;
mod error;
mod lock;
mod migrations;
mod numbers;
mod reads;
mod server;
mod session;
mod sql;
mod tls;
pub(super) mod tools;
mod transaction;
mod url;

pub(super) use connection::PostgresStore;
pub use url::{PostgresUrl, UrlError};
