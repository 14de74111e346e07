//! Every metric, in one struct. Closed label sets, base units, no ids or URLs; every series starts at 0.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::labels::{AsideCause, BodyRead, CredentialFault, KafkaTrouble, ParkCause, RepeatCause, Timeliness};
use super::named::Named;

/// Label values that the domain's rooms define. They are parameters, so that this room does not depend on those rooms.
#[derive(Default)]
pub struct Labels<'l> {
    pub outcomes: Vec<&'l str>,
    pub reasons: Vec<&'l str>,
    pub unreadable: Vec<&'l str>,
    /// The states in which a callback ends.
    pub ends: Vec<&'l str>,
    pub endpoint_states: Vec<&'l str>,
}

/// Buckets of times, in seconds.
const LATENCY: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const DAY: [f64; 16] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];
const COMMIT: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Buckets of numbers of changes.
const SIZES: [f64; 7] = [0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// Makes the struct and its constructor from one entry for each metric: its name, its type, and how it is registered.
macro_rules! metrics {
    ($labels:ident: $($(#[$about:meta])* $name:ident: $type:ty = $make:ident($($argument:expr),+);)+) => {
        pub struct Metrics {
            registry: Registry,
            $($(#[$about])* pub $name: $type,)+
        }

        impl Metrics {
            pub fn new($labels: &Labels<'_>) -> Self {
                let registry = Registry::new();
                let metrics = Self { $($name: $make(&registry, stringify!($name), $($argument),+),)+ registry };
                let version = gauges(&metrics.registry, "build_info", "1, with the version.", "version", &[]);
                version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                metrics
            }
        }
    };
}

metrics! { labels:
    records_total: IntCounter = counter("Kafka records received.");
    record_bytes_total: IntCounter = counter("Bytes of the values of Kafka records received.");
    repeats_skipped_total: IntCounter = counter(
        "Records that were known already: read a second time, or with a repeated event id.");
    dead_letters_total: IntCounterVec = counters(
        "Records that can't become a callback, by reason.",
        "reason", &labels.unreadable);
    clock_distance_seconds: Gauge = real(
        "How far the wall clock is ahead of the store's clock, if they are more than 60 s apart; below 0 when it is behind.");
    dead_letters_without_value_total: IntCounter = counter(
        "Dead letters whose value was not kept, because store.dead_letter_bytes had no room for it.");
    callbacks_total: IntCounterVec = counters("Callbacks that ended, by state.", "state", &labels.ends);
    abandoned_total: IntCounterVec = counters("Callbacks that were abandoned, by reason.", "reason", &labels.reasons);
    attempts_total: IntCounterVec = counters("Attempts, by outcome.", "outcome", &labels.outcomes);
    attempt_duration_seconds: Histogram = histogram("Time from the beginning of an attempt to its end.", &LATENCY);
    first_attempt_lag_seconds: Histogram = histogram(
        "Time from a record's timestamp to the beginning of its first attempt.",
        &DAY);
    first_attempts_total: IntCounterVec = counters(
        "First attempts that began within 30 s of their record's timestamp (in_time), or later (late). Endpoints that \
         fail are not counted.",
        "result", &names::<Timeliness>());
    end_to_end_seconds: Histogram = histogram("Time from a record's timestamp to its delivery.", &DAY);
    late_settles_total: IntCounter = counter(
        "Attempts that ended after another attempt of the same callback had decided.");
    parked_total: IntCounterVec = counters(
        "Callbacks stored before their first attempt ended, by cause.",
        "cause", &names::<ParkCause>());
    stored_without_body_total: IntCounter = counter(
        "Callbacks stored without their body, because bodies had no room: it is read from Kafka again.");
    body_reads_total: IntCounterVec = counters(
        "Bodies of stored callbacks that were read from Kafka again, by result.",
        "result", &names::<BodyRead>());
    pending: IntGauge = gauge("Callbacks in the store that have not ended.");
    /// Registered by nobody: it is shown only while something is due.
    oldest_due_timestamp_seconds: Gauge = unregistered(
        "Unix time at which the callback that has been due for the longest time became due; absent while nothing is due, \
         though retries may be planned.");
    in_flight: IntGauge = gauge("Attempts under way.");
    unsettled: IntGauge = gauge("Attempts that began and whose end is not in the store yet.");
    outbox_messages: IntGauge = gauge("Messages about outcomes and dead letters that wait to be published.");
    published_total: IntCounterVec = counters(
        "Messages that Kafka took, by what they are about.", "about", &["outcome", "dead_letter"]);
    publish_failures_total: IntCounter = counter("Messages that Kafka did not take; they are sent again.");
    pauses: IntGaugeVec = gauges("What an operator has paused, by scope: all deliveries, teams, endpoints.", "scope",
        &["all", "team", "endpoint"]);
    waiting: IntGauge = gauge("Callbacks in memory that wait for a slot.");
    ready: IntGauge = gauge(
        "1 while /readyz answers 200: the store answers, intake runs, no partition waits for an \
         operator, and the daemon is not stopping.");
    partitions: IntGauge = gauge("Partitions that are assigned to this instance. With none, nothing is read.");
    endpoints: IntGaugeVec = gauges(
        "Endpoints, by state. The states overlap, so they have no sum: one that was used lately is active or limited, and \
         counts as failing as well while it fails, and as paused while it is paused by itself.",
        "state", &labels.endpoint_states);
    endpoint_failing_seconds: GaugeVec = real_vec(
        "Since how long an endpoint fails: the 20 that fail for the longest time, and none that does not fail. The teams of \
         an endpoint share its series, which has the longest time.",
        "endpoint");
    api_requests_total: IntCounterVec = counters(
        "Requests to /admin/v1: answered (ok), refused because of the request (refused), or not \
         answered because of the daemon (failed).",
        "class", &["ok", "refused", "failed"]);
    api_unauthenticated_total: IntCounterVec = counters(
        "Requests to /admin/v1 over TCP without a token (missing), or with one that is unknown, revoked or expired (wrong).",
        "token", &names::<CredentialFault>());
    config_reloads_total: IntCounterVec = counters(
        "Configurations read again on SIGHUP: taken (ok), or refused because of a mistake (refused).",
        "result", &["ok", "refused"]);
    kafka_up: IntGauge = gauge("1 while the consumer reaches its brokers.");
    kafka_errors_total: IntCounterVec = counters(
        "Errors of the Kafka client, by kind.",
        "kind", &names::<KafkaTrouble>());
    kafka_lag_records: IntGaugeVec = gauges("Records between the watermark and the end, by topic.", "topic", &[]);
    kafka_lag_seconds: Gauge = real("Age of the newest record that was read, while there are more to read.");
    open_transaction_seconds: Gauge = real(
        "Since how long a producer's open transaction keeps the rest of a partition from being read; 0 if none does.");
    watermark_age_seconds: GaugeVec = real_vec(
        "How long the oldest outstanding record of any partition has been under way, by topic.",
        "topic");
    rebalances_total: IntCounter = counter("Assignments and revocations of partitions.");
    records_lost_to_retention_total: IntCounter = counter("Records that Kafka deleted before they were read.");
    records_skipped_total: IntCounter = counter(
        "Records that were never read because an operator moved the watermark past them (offsets skip).");
    partitions_started_over_total: IntCounter = counter(
        "Partitions that were found re-created or truncated, and are read from their beginning.");
    partitions_fenced_total: IntCounter = counter(
        "Writes that were refused because another instance had taken the partition over.");
    repeats_possible_total: IntCounterVec = counters(
        "Attempts that may be repeated, by reason.",
        "reason", &names::<RepeatCause>());
    rows_set_aside_total: IntCounterVec = counters(
        "Due rows that a claim could not take, each time one was found, by reason.",
        "reason", &names::<AsideCause>());
    http_key_exposed_total: IntCounter = counter("Attempts that sent the callback auth key over http.");
    store_up: IntGauge = gauge("1 while the store answers.");
    store_commit_seconds: Histogram = histogram("Time of one store transaction.", &COMMIT);
    store_longest_commit_seconds: Gauge = real("The longest store transaction of this instance.");
    store_parked_bytes: IntGauge = gauge("Bytes of the bodies of pending callbacks in the store.");
    store_kept_bytes: IntGauge = gauge("Bytes of the kept bodies of callbacks that have ended, compressed.");
    store_free_bytes: IntGauge = gauge("Bytes that the disk of the store has left; -1 if that is not known.");
    store_batch_changes: Histogram = histogram("Changes in one store transaction.", &SIZES);
    body_bytes: IntGauge = gauge("Bytes of callback bodies in memory that wait or are sent.");
}

impl Metrics {
    /// Makes the series of each topic, so that they are 0 before the first record.
    pub fn expect_topics(&self, topics: &[String]) {
        for topic in topics {
            self.kafka_lag_records.with_label_values(&[topic]);
            self.watermark_age_seconds.with_label_values(&[topic]);
        }
    }

    /// The exposition text. `oldest_due_timestamp_seconds` is left out while nothing is due.
    pub fn encode(&self, something_due: bool) -> String {
        let mut families = self.registry.gather();
        if something_due {
            use prometheus::core::Collector as _;
            families.extend(self.oldest_due_timestamp_seconds.collect());
        }
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

/// The names of a closed set, for [`Labels`].
pub fn names<T: Named>() -> Vec<&'static str> {
    T::ALL.iter().map(|value| value.name()).collect()
}

fn name(short: &str) -> String {
    format!("callbackd_{short}")
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is used once in this file");
    collector
}

fn counter(r: &Registry, short: &str, help: &str) -> IntCounter {
    register(r, IntCounter::new(name(short), help).expect("a valid name"))
}

fn counters(r: &Registry, short: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
    let family = register(r, IntCounterVec::new(Opts::new(name(short), help), &[label]).expect("a valid name"));
    for value in values {
        family.with_label_values(&[value]);
    }
    family
}

fn gauge(r: &Registry, short: &str, help: &str) -> IntGauge {
    register(r, IntGauge::new(name(short), help).expect("a valid name"))
}

fn gauges(r: &Registry, short: &str, help: &str, label: &str, values: &[&str]) -> IntGaugeVec {
    let family = register(r, IntGaugeVec::new(Opts::new(name(short), help), &[label]).expect("a valid name"));
    for value in values {
        family.with_label_values(&[value]);
    }
    family
}

fn real(r: &Registry, short: &str, help: &str) -> Gauge {
    register(r, unregistered(r, short, help))
}

fn unregistered(_: &Registry, short: &str, help: &str) -> Gauge {
    Gauge::new(name(short), help).expect("a valid name")
}

fn real_vec(r: &Registry, short: &str, help: &str, label: &str) -> GaugeVec {
    register(r, GaugeVec::new(Opts::new(name(short), help), &[label]).expect("a valid name"))
}

fn histogram(r: &Registry, short: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name(short), help).buckets(buckets.to_vec());
    register(r, Histogram::with_opts(options).expect("rising buckets"))
}
