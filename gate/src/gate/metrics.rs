//! What a gate counts; every series is there from the start.

use http::StatusCode;
use prometheus::{Encoder as _, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use scale_callback_auth::VerifyError;

/// Reasons of refusals beside those of the verifier.
const REASONS: [&str; 13] = [
    "method",
    "target",
    "path",
    "host",
    "upgrade",
    "repeated_header",
    "expectation",
    "too_large",
    "too_slow",
    "broken_off",
    "in_flight",
    "overloaded",
    "remembers_full",
];
const UNPROVEN: [VerifyError; 18] = [
    VerifyError::IdMissing,
    VerifyError::IdDuplicate,
    VerifyError::IdInvalid,
    VerifyError::TimestampMissing,
    VerifyError::TimestampDuplicate,
    VerifyError::TimestampInvalid,
    VerifyError::TimestampTooOld,
    VerifyError::TimestampTooNew,
    VerifyError::SignatureMissing,
    VerifyError::TooManySignatures,
    VerifyError::HeaderTooLong,
    VerifyError::SignatureMismatch,
    VerifyError::AuthMissing,
    VerifyError::AuthDuplicate,
    VerifyError::AuthMalformed,
    VerifyError::AuthTimestampDiffers,
    VerifyError::AuthMismatch,
    VerifyError::TestRefused,
];
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];
const FAILURES: [&str; 4] = ["unreachable", "timeout", "broken", "unasked"];

pub(super) struct Metrics {
    registry: Registry,
    pub(super) connections: IntCounter,
    pub(super) repeats: IntCounter,
    /// In the order of the classes.
    forwarded: [IntCounter; 5],
    failed: IntCounterVec,
    refused: IntCounterVec,
    reloads: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let one = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("scale_callback_gate_{name}"), help).expect("a good name");
            registry.register(Box::new(counter.clone())).expect("a name of its own");
            counter
        };
        let many = |name: &str, help: &str, label: &str, values: &mut dyn Iterator<Item = &'static str>| {
            let options = Opts::new(format!("scale_callback_gate_{name}"), help);
            let counters = IntCounterVec::new(options, &[label]).expect("a good name");
            registry.register(Box::new(counters.clone())).expect("a name of its own");
            for value in values {
                counters.with_label_values(&[value]);
            }
            counters
        };
        let forwarded = many(
            "forwarded_total",
            "Verified callbacks that the upstream answered, by the class of its status.",
            "status",
            &mut CLASSES.into_iter(),
        );
        let reasons = REASONS.into_iter().chain(UNPROVEN.into_iter().map(VerifyError::code));
        Self {
            connections: one("connections_total", "Connections that were accepted."),
            repeats: one(
                "repeats_total",
                "Callbacks that had been handled, and were answered 200 without the upstream.",
            ),
            forwarded: CLASSES.map(|class| forwarded.with_label_values(&[class])),
            failed: many(
                "upstream_failures_total",
                "Verified callbacks that the upstream did not answer: 502, or 504 for timeout.",
                "failure",
                &mut FAILURES.into_iter(),
            ),
            refused: many("refused_total", "Requests that went no further, by reason.", "reason", &mut { reasons }),
            reloads: many(
                "reloads_total",
                "Changes of keys or certificate that were seen: ok, or refused with the old ones in force.",
                "result",
                &mut ["ok", "refused"].into_iter(),
            ),
            registry,
        }
    }

    pub(super) fn forwarded(&self, status: StatusCode) {
        let class = match status.as_u16() {
            200..=299 => 0,
            300..=399 => 1,
            400..=499 => 2,
            500..=599 => 3,
            _ => 4,
        };
        self.forwarded[class].inc();
    }

    pub(super) fn failed(&self, failure: &str) {
        self.failed.with_label_values(&[failure]).inc();
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn reload(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    pub(super) fn page(&self) -> Vec<u8> {
        let mut page = Vec::new();
        // Writing to a vector can't fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
}
