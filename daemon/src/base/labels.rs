//! Values of metrics' labels that belong to no other room. Each is written once, for its metric and for the code that
//! counts.

use super::named::named;

named! {
    /// Why a callback got its row before its first attempt ended.
    pub enum ParkCause {
        /// Its lane was full, or it waited there too long.
        NoRoom = "no_room",
        /// Its first attempt took long.
        Slow = "slow",
        /// Its partition was given up.
        Revoked = "revoked",
        /// Its team or its endpoint is paused.
        Paused = "paused",
    }
}

named! {
    /// What became of a body that was read from Kafka again.
    pub enum BodyRead {
        Ok = "ok",
        /// Kafka no longer has its record, or the partition of it.
        Gone = "gone",
        /// Kafka has another record in its place.
        Changed = "changed",
        /// Its record can't be read.
        Unreadable = "unreadable",
        /// Kafka says that its topic or its partition does not exist, but has not said so for long enough. It is asked for again.
        Absent = "absent",
        /// Kafka did not give it in time. It is asked for again.
        Silent = "silent",
    }
}

named! {
    /// Whether a first attempt began soon enough after its event.
    pub enum Timeliness {
        InTime = "in_time",
        Late = "late",
    }
}

named! {
    /// Why attempts may be repeated.
    pub enum RepeatCause {
        /// An earlier instance did not end cleanly.
        UncleanStop = "unclean_stop",
        /// A partition was given up before what was in flight could be recorded.
        RevokeTimeout = "revoke_timeout",
        /// A lease ended before its attempt was settled.
        LeaseExpired = "lease_expired",
        /// The store was lost, or another one is in its place.
        StoreLost = "store_lost",
        /// The store went back to an earlier state: what was recorded since then is read again.
        StoreWentBack = "store_went_back",
    }
}

named! {
    /// Why a claim left a due row where it was.
    pub enum AsideCause {
        /// It can't be read, or its queue can't.
        Unreadable = "unreadable",
        /// Its body was joined by code that only a newer program knows.
        UnknownBuilder = "unknown_builder",
    }
}

named! {
    /// Why a request to the API could not be authenticated.
    pub enum CredentialFault {
        Missing = "missing",
        /// It is unknown, revoked or expired.
        Wrong = "wrong",
    }
}

named! {
    /// Kinds of errors of the Kafka client.
    pub enum KafkaTrouble {
        Unreachable = "unreachable",
        TopicMissing = "topic_missing",
        NotAuthorised = "not_authorised",
        OutOfRange = "out_of_range",
        BadMessage = "bad_message",
        Fatal = "fatal",
        LogChanged = "log_changed",
        Silent = "silent",
        Other = "other",
    }
}
