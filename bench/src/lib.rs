//! The test kit of the other crates: a real Kafka broker, a real PostgreSQL server, receivers that record, receivers that misbehave, and a small
//! name server. It is not published.

pub mod broker;
pub mod dns;
pub mod http2;
pub mod load;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod tls;
pub mod wire;
