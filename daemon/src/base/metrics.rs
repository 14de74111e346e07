//! Every metric, in one struct. Closed label sets, base units, no ids or URLs; every series starts at 0.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub struct Metrics {
    registry: Registry,
    pub records_total: IntCounter,
    pub record_bytes_total: IntCounter,
    pub repeats_skipped_total: IntCounter,
    pub dead_letters_total: IntCounterVec,
    pub callbacks_total: IntCounterVec,
    pub abandoned_total: IntCounterVec,
    pub attempts_total: IntCounterVec,
    pub attempt_duration_seconds: Histogram,
    pub first_attempt_lag_seconds: Histogram,
    pub end_to_end_seconds: Histogram,
    pub late_settles_total: IntCounter,
    pub parked_total: IntCounterVec,
    pub pending: IntGauge,
    pub oldest_due: Gauge,
    pub in_flight: IntGauge,
    pub unsettled: IntGauge,
    pub waiting: IntGauge,
    pub ready: IntGauge,
    pub partitions: IntGauge,
    pub endpoints: IntGaugeVec,
    pub api_requests_total: IntCounterVec,
    pub config_reloads_total: IntCounterVec,
    pub kafka_up: IntGauge,
    pub kafka_errors_total: IntCounterVec,
    pub kafka_lag_records: IntGaugeVec,
    pub kafka_lag_seconds: Gauge,
    pub watermark_age_seconds: GaugeVec,
    pub rebalances_total: IntCounter,
    pub records_lost_total: IntCounter,
    pub partitions_started_anew_total: IntCounter,
    pub partitions_fenced_total: IntCounter,
    pub repeats_possible_total: IntCounterVec,
    pub http_key_exposed_total: IntCounter,
    pub store_up: IntGauge,
    pub store_commit_seconds: Histogram,
    pub store_longest_commit_seconds: Gauge,
    pub store_batch_changes: Histogram,
    pub body_bytes: IntGauge,
}

/// Label values that the domain's rooms define. They are parameters, so that this room does not depend on those rooms.
pub struct Labels<'l> {
    pub outcomes: Vec<&'l str>,
    pub reasons: Vec<&'l str>,
    pub unreadable: Vec<&'l str>,
}

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "a list of metrics")]
    pub fn new(labels: &Labels<'_>) -> Self {
        let r = Registry::new();
        let latency = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
        let day =
            [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];
        let commit = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
        let sizes = [0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];
        let states = gauges(&r, "endpoints", "Endpoints in use lately, by state.", "state");
        for state in ["active", "limited"] {
            states.with_label_values(&[state]);
        }
        let metrics = Self {
            records_total: counter(&r, "records_total", "Kafka records received."),
            record_bytes_total: counter(&r, "record_bytes_total", "Bytes of the values of Kafka records received."),
            repeats_skipped_total: counter(
                &r,
                "repeats_skipped_total",
                "Records that were known already: read a second time, or with a repeated event id.",
            ),
            dead_letters_total: counters(
                &r,
                "dead_letters_total",
                "Records that can't become a callback, by reason.",
                "reason",
                &labels.unreadable,
            ),
            callbacks_total: counters(
                &r,
                "callbacks_total",
                "Callbacks that ended, by state.",
                "state",
                &["delivered", "exhausted", "abandoned"],
            ),
            abandoned_total: counters(
                &r,
                "abandoned_total",
                "Callbacks that were abandoned, by reason.",
                "reason",
                &labels.reasons,
            ),
            attempts_total: counters(&r, "attempts_total", "Attempts, by outcome.", "outcome", &labels.outcomes),
            attempt_duration_seconds: histogram(
                &r,
                "attempt_duration_seconds",
                "Time from the beginning of an attempt to its end.",
                &latency,
            ),
            first_attempt_lag_seconds: histogram(
                &r,
                "first_attempt_lag_seconds",
                "Time from a record's timestamp to the beginning of its first attempt.",
                &day,
            ),
            end_to_end_seconds: histogram(
                &r,
                "end_to_end_seconds",
                "Time from a record's timestamp to its delivery.",
                &day,
            ),
            late_settles_total: counter(
                &r,
                "late_settles_total",
                "Attempts that ended after another attempt of the same callback had decided.",
            ),
            parked_total: counters(
                &r,
                "parked_total",
                "Callbacks stored before their first attempt ended, by cause.",
                "cause",
                &["no_room", "slow", "revoked"],
            ),
            pending: gauge(&r, "pending", "Callbacks in the store that have not ended."),
            oldest_due: real_unregistered(
                "oldest_due_timestamp_seconds",
                "Unix time at which the oldest due callback became due; absent when nothing is due.",
            ),
            in_flight: gauge(&r, "in_flight", "Attempts under way."),
            unsettled: gauge(&r, "unsettled", "Attempts that began and whose end is not in the store yet."),
            waiting: gauge(&r, "waiting", "Callbacks in memory that wait for a slot."),
            ready: gauge(
                &r,
                "ready",
                "1 while /readyz answers 200: the store answers, and no partition waits for an operator.",
            ),
            partitions: gauge(
                &r,
                "partitions",
                "Partitions that are assigned to this instance. With none, nothing is read.",
            ),
            endpoints: states,
            api_requests_total: counters(
                &r,
                "api_requests_total",
                "Requests to /admin/v1: answered (ok), refused because of the request (refused), or not answered because of the daemon (failed).",
                "class",
                &["ok", "refused", "failed"],
            ),
            config_reloads_total: counters(
                &r,
                "config_reloads_total",
                "Configurations read again on SIGHUP: taken (ok), or refused because of a mistake (refused).",
                "result",
                &["ok", "refused"],
            ),
            kafka_up: gauge(&r, "kafka_up", "1 while the consumer reaches its brokers."),
            kafka_errors_total: counters(
                &r,
                "kafka_errors_total",
                "Errors of the Kafka client, by kind.",
                "kind",
                &["unreachable", "topic_missing", "not_authorised", "out_of_range", "fatal", "other"],
            ),
            kafka_lag_records: gauges(
                &r,
                "kafka_lag_records",
                "Records between the watermark and the end, by topic.",
                "topic",
            ),
            kafka_lag_seconds: real(
                &r,
                "kafka_lag_seconds",
                "Age of the newest record that was read, while there are more to read.",
            ),
            watermark_age_seconds: real_vec(
                &r,
                "watermark_age_seconds",
                "How long the oldest outstanding record of any partition has been under way, by topic.",
                "topic",
            ),
            rebalances_total: counter(&r, "rebalances_total", "Assignments and revocations of partitions."),
            records_lost_total: counter(
                &r,
                "records_lost_to_retention_total",
                "Records that Kafka deleted before they were read.",
            ),
            partitions_started_anew_total: counter(
                &r,
                "partitions_started_anew_total",
                "Partitions that were found re-created or truncated, and are read from their beginning.",
            ),
            partitions_fenced_total: counter(
                &r,
                "partitions_fenced_total",
                "Writes that were refused because another instance had taken the partition over.",
            ),
            repeats_possible_total: counters(
                &r,
                "repeats_possible_total",
                "Attempts that may be repeated, by reason.",
                "reason",
                &["unclean_stop", "revoke_timeout", "lease_expired", "store_lost"],
            ),
            http_key_exposed_total: counter(
                &r,
                "http_key_exposed_total",
                "Attempts that sent the callback auth key over http.",
            ),
            store_up: gauge(&r, "store_up", "1 while the store answers."),
            store_commit_seconds: histogram(&r, "store_commit_seconds", "Time of one store transaction.", &commit),
            store_longest_commit_seconds: real(
                &r,
                "store_longest_commit_seconds",
                "The longest store transaction of this instance.",
            ),
            store_batch_changes: histogram(&r, "store_batch_changes", "Changes in one store transaction.", &sizes),
            body_bytes: gauge(&r, "body_bytes", "Bytes of callback bodies in memory that wait or are sent."),
            registry: r,
        };
        let version = gauges(&metrics.registry, "build_info", "1, with the version.", "version");
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics
    }

    /// Makes the series of each topic, so that they are 0 before the first record.
    pub fn expect_topics(&self, topics: &[String]) {
        for topic in topics {
            self.kafka_lag_records.with_label_values(&[topic]);
            self.watermark_age_seconds.with_label_values(&[topic]);
        }
    }

    /// The exposition text. `oldest_due` is left out while nothing is due.
    pub fn encode(&self, something_due: bool) -> String {
        let mut families = self.registry.gather();
        if something_due {
            use prometheus::core::Collector as _;
            families.extend(self.oldest_due.collect());
        }
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
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

fn gauges(r: &Registry, short: &str, help: &str, label: &str) -> IntGaugeVec {
    register(r, IntGaugeVec::new(Opts::new(name(short), help), &[label]).expect("a valid name"))
}

fn real(r: &Registry, short: &str, help: &str) -> Gauge {
    register(r, real_unregistered(short, help))
}

fn real_unregistered(short: &str, help: &str) -> Gauge {
    Gauge::new(name(short), help).expect("a valid name")
}

fn real_vec(r: &Registry, short: &str, help: &str, label: &str) -> GaugeVec {
    register(r, GaugeVec::new(Opts::new(name(short), help), &[label]).expect("a valid name"))
}

fn histogram(r: &Registry, short: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name(short), help).buckets(buckets.to_vec());
    register(r, Histogram::with_opts(options).expect("rising buckets"))
}
