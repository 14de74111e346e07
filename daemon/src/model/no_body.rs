//! Why the body of a callback can't be had from Kafka.

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    #[error("Kafka no longer has its record")]
    Gone,
    #[error("Kafka no longer has its topic, or the partition of its record")]
    TopicGone,
    #[error("Kafka has another record in its place")]
    Changed,
    #[error("its record can't be read")]
    Unreadable,
    #[error(
        "Kafka says that its topic, or the partition of its record, does not exist (it counts as deleted once Kafka has said so for a minute)"
    )]
    Absent,
    #[error("Kafka did not give its record in time")]
    Silent,
    #[error("only a newer callbackd knows how its body was joined")]
    Newer,
}

impl NoBody {
    /// Whether it is in vain to ask again.
    pub fn is_final(self) -> bool {
        match self {
            Self::Gone | Self::TopicGone | Self::Changed | Self::Unreadable => true,
            Self::Absent | Self::Silent | Self::Newer => false,
        }
    }
}
