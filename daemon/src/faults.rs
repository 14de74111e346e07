//! Fault switches, for tests that check that other tests fail when they should. Without the feature `faults`, all of
//! them are always off. With it, `CALLBACKD_FAULT` names the ones that are on.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The watermark is written in a transaction of its own, ahead of the rows.
    WatermarkFirst,
    /// A callback's id is random instead of a function of its event.
    RandomIds,
    /// Records below `seen_upto` are not looked up.
    NoLookUp,
    /// A lease that ran out is never freed.
    LeaseNeverExpires,
    /// A partition is given up without rows for what is in flight.
    NoParkAtRevoke,
    /// What waits in memory is parked when its partition is given up, and the store takes such a park even if the partition
    /// was lost meanwhile.
    QueuedParkedAfterLoss,
    /// Every batch is applied twice: the store does not look at its number.
    BatchTwice,
    /// A write whose epoch is over, or whose partition has another owner, writes all the same.
    FencedWriteWrites,
    /// The attempt of a task whose id holds `panic` panics.
    Panic,
    /// The attempt of a task whose id holds `hang` never ends, not even at its deadline.
    Hang,
    /// The exchange of a task whose id holds `task-abort` aborts its process.
    Abort,
    /// The consumer's thread panics at its first record.
    ConsumerPanic,
    /// Admission panics at its first batch.
    AdmissionPanic,
    /// The program pretends to be the next version: it knows one more migration, which is additive, and one more builder.
    NextSchema,
    /// The same, with a migration after which older programs must not write.
    NextSchemaAlone,
}

/// Panics if a fault switch `end:PART` names this part.
pub(crate) fn end_if_named(part: &str) {
    assert!(!names(&format!("end:{part}")), "a fault switch");
}

#[cfg(feature = "faults")]
fn names(switch: &str) -> bool {
    use std::sync::OnceLock;
    static ON: OnceLock<String> = OnceLock::new();
    ON.get_or_init(|| std::env::var("CALLBACKD_FAULT").unwrap_or_default()).split(',').any(|on| on == switch)
}

#[cfg(not(feature = "faults"))]
const fn names(_switch: &str) -> bool {
    false
}

#[cfg(feature = "faults")]
pub(crate) fn is_on(fault: Fault) -> bool {
    let name = match fault {
        Fault::WatermarkFirst => "watermark-first",
        Fault::RandomIds => "random-ids",
        Fault::NoLookUp => "no-look-up",
        Fault::LeaseNeverExpires => "lease-never-expires",
        Fault::NoParkAtRevoke => "no-park-at-revoke",
        Fault::QueuedParkedAfterLoss => "queued-parked-after-loss",
        Fault::BatchTwice => "batch-twice",
        Fault::FencedWriteWrites => "fenced-write-writes",
        Fault::Panic => "panic",
        Fault::Hang => "hang",
        Fault::Abort => "abort",
        Fault::ConsumerPanic => "consumer-panic",
        Fault::AdmissionPanic => "admission-panic",
        Fault::NextSchema => "next-schema",
        Fault::NextSchemaAlone => "next-schema-alone",
    };
    names(name)
}

#[cfg(not(feature = "faults"))]
pub(crate) const fn is_on(_fault: Fault) -> bool {
    false
}
