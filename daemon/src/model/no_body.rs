//! Why the body of a callback can't be had from Kafka.

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    #[error("Kafka no longer has its record")]
    Gone,
    #[error("Kafka has another record in its place")]
    Changed,
    #[error("its record can't be read")]
    Unreadable,
    #[error("Kafka did not give its record in time")]
    Silent,
    #[error("only a newer callbackd knows how its body was joined")]
    Newer,
}
