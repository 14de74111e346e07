//! callbackd delivers the callbacks of finished tasks. It reads task events from Kafka, finds the URL, signs the
//! callback, POSTs it, retries for a day, and records what happened to each callback.
//!
//! The way of the data:
//!
//! ```text
//! Kafka -> intake --+-- room in its lane ------> Lease (body in memory) --+
//!                   +-- no room --> park (row + body, due now)            |
//!                   +-- unreadable --> bury (dead letter)                 v
//!         store.claim (due rows: retries, parked) --> Lease --> resolve -> sign -> send -> retry::next -> settle
//!                                                                                                            |
//!                                     watermark and rows in one transaction per batch <----------------------+
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may"))]

pub mod api;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod flight;
pub mod intake;
pub mod keyring;
pub mod model;
pub mod net;
pub mod ops;
pub mod publish;
pub mod schedule;
pub mod store;

mod faults;
