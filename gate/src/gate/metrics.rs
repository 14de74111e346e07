//! What a gate counts. Every series is there from the start, with the value 0, so that a rate can be computed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use prometheus::{Encoder as _, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use scale_callback_auth::VerifyError;

use super::admission::Refusal;
use super::upstream::UpstreamError;

/// The reasons for which the verifier refuses a request.
const NOT_VERIFIED: [VerifyError; 18] = [
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
/// The classes of statuses.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];

pub(super) struct Metrics {
    registry: Registry,
    pub(super) connections: IntCounter,
    /// Connections that were closed because places were short. The server counts them.
    pub(super) closed: Arc<AtomicU64>,
    shown_closed: IntCounter,
    pub(super) repeats: IntCounter,
    /// In the order of [`CLASSES`].
    forwarded: [IntCounter; 5],
    failed: IntCounterVec,
    refused: IntCounterVec,
    reloads: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let one = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("scale_callback_gate_{name}"), help).expect("the name is valid");
            registry.register(Box::new(counter.clone())).expect("the name is registered once");
            counter
        };
        let many = |name: &str, help: &str, label: &str, values: &mut dyn Iterator<Item = &'static str>| {
            let options = Opts::new(format!("scale_callback_gate_{name}"), help);
            let counters = IntCounterVec::new(options, &[label]).expect("the name is valid");
            registry.register(Box::new(counters.clone())).expect("the name is registered once");
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
        let own = Refusal::OWN.into_iter().map(Refusal::reason);
        let mut reasons = own.chain(NOT_VERIFIED.into_iter().map(VerifyError::code));
        Self {
            connections: one("connections_total", "Accepted connections."),
            closed: Arc::default(),
            shown_closed: one("connections_closed_total", "Connections that were closed because places were short."),
            repeats: one(
                "repeats_total",
                "Callbacks that were handled before, and were answered 200 without the upstream.",
            ),
            forwarded: CLASSES.map(|class| forwarded.with_label_values(&[class])),
            failed: many(
                "upstream_failures_total",
                "Verified callbacks that the upstream did not answer: 502, or 504 for timeout.",
                "failure",
                &mut UpstreamError::ALL.into_iter().map(UpstreamError::name),
            ),
            refused: many("refused_total", "Refused requests, by reason.", "reason", &mut reasons),
            reloads: many(
                "reloads_total",
                "Changes of keys or certificate: ok, or refused while the old ones stay in force.",
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
        let closed = self.closed.load(Ordering::Relaxed);
        self.shown_closed.inc_by(closed.saturating_sub(self.shown_closed.get()));
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page).expect("writing to a vector cannot fail");
        page
    }
}
