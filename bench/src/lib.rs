//! The test kit: a real Kafka broker, receivers that record and receivers that misbehave, a small name server. Not
//! published.

pub mod broker;
pub mod dns;
pub mod http2;
pub mod load;
pub mod raw;
pub mod recorder;
pub mod tls;
