//! The exported metrics, checked with Prometheus itself: names and help by its linter, counters against the demo's
//! ledger, and rules and the dashboard against the exported names.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use callbackd::demo::{self, Options};
use http::{HeaderMap, Method};
use regex::Regex;
use scale_callback_serve::client::{Remote, call};
use serde_json::Value;

use crate::harness::{Harness, PAUSE};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");

/// A Prometheus that scrapes one target every half second. It ends when it is dropped.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // The rules of the installation are beside the configuration, as in a deployment.
        for name in ["rules.yml", "alerts.yml"] {
            std::fs::copy(format!("{CONFIG}/prometheus/{name}"), folder.path().join(name)).unwrap();
        }
        let config = std::fs::read_to_string(format!("{CONFIG}/prometheus/prometheus.yml")).unwrap();
        assert!(config.contains("127.0.0.1:9464") && config.contains("15s"));
        let config = config.replace("127.0.0.1:9464", &target.to_string()).replace("15s", "500ms");
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed; say: make test");
        Self { address, child, _folder: folder }
    }

    /// The results of an instant query. The test fails if Prometheus reports an error.
    async fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let path = format!("/api/v1/query?query={query}");
        let remote = Remote::Tcp(self.address);
        let answer = call(&remote, Method::GET, &path, HeaderMap::new(), Bytes::new(), Duration::from_secs(10));
        let answer: Value = serde_json::from_slice(&answer.await.ok()?.body).ok()?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }

    async fn value(&self, expression: &str) -> Option<f64> {
        let results = self.query(expression).await?;
        results.first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn promtool(arguments: &[&str], input: Option<&str>) -> (bool, String) {
    use std::io::Write as _;
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed; say: make test");
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Names of metrics, as an expression may name them.
fn exported(page: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            parts.iter().map(move |part| format!("{name}{part}"))
        })
        .collect();
    // Absent while nothing is due.
    names.insert("callbackd_oldest_due_timestamp_seconds".to_owned());
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_clean_and_every_series_begins_at_nothing() {
    let harness = Harness::start().await;
    let page = harness.app().ops.metrics_page().await;
    let (clean, said) = promtool(&["check", "metrics"], Some(&page));
    assert!(clean && said.trim().is_empty(), "{said}");
    let named = |name: &str| page.lines().filter(|line| line.starts_with(&format!("callbackd_{name}{{"))).count();
    assert_eq!(named("attempts_total"), callbackd::model::attempt::Outcome::ALL.len());
    assert_eq!(named("dead_letters_total"), callbackd::model::dead_letter::Unreadable::ALL.len());
    assert_eq!(named("abandoned_total"), callbackd::model::retry::Reason::ALL.len());
    for (name, count) in
        [("callbacks_total", 3), ("repeats_possible_total", 5), ("endpoints", 4), ("kafka_lag_records", 1)]
    {
        assert_eq!(named(name), count, "{name}");
    }
    // Nothing was sent, and nothing is due.
    for line in page.lines().filter(|line| line.starts_with("callbackd_attempts_total{")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    assert!(!page.contains("oldest_due"), "absent when nothing is due");
    // No ids and no URLs in labels.
    assert!(!page.contains("team_acme") && !page.contains("http://"), "closed label sets");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_alerts_and_dashboard_name_only_what_is_exported() {
    let at = |name: &str| format!("{CONFIG}/prometheus/{name}");
    for arguments in [
        ["check", "rules", &at("rules.yml")],
        ["check", "rules", &at("alerts.yml")],
        ["check", "config", &at("prometheus.yml")],
    ] {
        let (good, said) = promtool(&arguments, None);
        assert!(good, "{arguments:?}: {said}");
    }
    let (tests_pass, said) = promtool(&["test", "rules", &at("alerts_test.yml")], None);
    assert!(tests_pass, "{said}");
    let harness = Harness::start().await;
    let mut known = exported(&harness.app().ops.metrics_page().await);
    // It has a series only while an endpoint fails.
    known.insert("callbackd_endpoint_failing_seconds".to_owned());
    let rules = std::fs::read_to_string(at("rules.yml")).unwrap() + &std::fs::read_to_string(at("alerts.yml")).unwrap();
    let recorded = Regex::new(r"record: (\S+)").unwrap();
    known.extend(recorded.captures_iter(&rules).map(|found| found[1].to_owned()));
    let dashboard = std::fs::read_to_string(format!("{CONFIG}/grafana/callbackd.json")).unwrap();
    let name = Regex::new(r"\b(?:[a-z_]+:)?callbackd_[a-z0-9_]+(?::[a-z0-9_]+)?").unwrap();
    let mut used = 0;
    for text in [
        rules,
        expressions(&dashboard).join("\n"),
        std::fs::read_to_string(format!("{CONFIG}/../docs/operating.md")).unwrap(),
    ] {
        for found in name.find_iter(&text) {
            used += 1;
            assert!(
                known.contains(found.as_str()) || known.contains(&format!("{}_bucket", found.as_str())),
                "{} is not exported",
                found.as_str()
            );
        }
    }
    assert!(used > 100, "{used}");
    // The operator's guide describes every metric.
    let guide = std::fs::read_to_string(format!("{CONFIG}/../docs/operating.md")).unwrap();
    for metric in known.iter().filter(|metric| metric.starts_with("callbackd_")) {
        let plain = metric.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(guide.contains(plain), "docs/operating.md does not describe {plain}");
    }
}

/// Every expression of the dashboard, its variables filled in.
fn expressions(dashboard: &str) -> Vec<String> {
    fn visit(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| visit(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    visit(&serde_json::from_str(dashboard).unwrap(), &mut found);
    found
        .into_iter()
        .map(|expression| {
            let expression =
                expression.replace("$__rate_interval", "1m").replace("$__interval", "15s").replace("$__range", "1h");
            Regex::new(r"\$\{?\w+\}?").unwrap().replace_all(&expression, ".*").into_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_counts_what_the_demos_ledger_counts() {
    let prometheus: Arc<Mutex<Option<Arc<Prometheus>>>> = Arc::default();
    let slot = Arc::clone(&prometheus);
    let finish = demo::run_watched(
        Options { events: Some(400), stay: false, quiet: true },
        move |app| *slot.lock().unwrap() = Some(Arc::new(Prometheus::start(app.ops_address.unwrap()))),
        async |_, ends| {
            let prometheus = prometheus.lock().unwrap().clone().unwrap();
            let total: u64 = ends.values().sum();
            // The last scrape comes after the last count.
            let counted = "sum(callbackd_callbacks_total) + sum(callbackd_dead_letters_total)";
            let end = Instant::now() + Duration::from_secs(30);
            while prometheus.value(counted).await != Some(total as f64) {
                assert!(Instant::now() < end, "Prometheus counts {:?} of {total}", prometheus.value(counted).await);
                tokio::time::sleep(PAUSE).await;
            }
            for (what, stored) in &ends {
                let expression = match what.split_once(": ") {
                    None => format!("callbackd_callbacks_total{{state=\"{what}\"}}"),
                    Some(("dead letter", reason)) => format!("callbackd_dead_letters_total{{reason=\"{reason}\"}}"),
                    Some((_, reason)) => format!("callbackd_abandoned_total{{reason=\"{reason}\"}}"),
                };
                assert_eq!(prometheus.value(&expression).await, Some(*stored as f64), "{what}");
            }
            assert!(ends.len() >= 6 && total >= 400, "{ends:?}");
            let attempts = prometheus.value("sum(callbackd_attempts_total)").await.unwrap();
            let durations = prometheus.value("callbackd_attempt_duration_seconds_count").await.unwrap();
            assert!(attempts > total as f64 / 2.0 && attempts == durations, "{attempts} {durations}");
            // The backlog is read once a second.
            while prometheus.value("callbackd_pending").await != Some(0.0) {
                assert!(Instant::now() < end, "something is pending");
                tokio::time::sleep(PAUSE).await;
            }
            assert_eq!(prometheus.value("callbackd_in_flight").await, Some(0.0));
            assert_eq!(prometheus.value("callbackd_ready").await, Some(1.0));
            // Every expression of the dashboard is one that Prometheus evaluates, and most have something to show.
            let dashboard = std::fs::read_to_string(Path::new(CONFIG).join("grafana/callbackd.json")).unwrap();
            let all = expressions(&dashboard);
            let mut shown = 0;
            for expression in &all {
                shown += usize::from(!prometheus.query(expression).await.unwrap().is_empty());
            }
            assert!(all.len() > 30 && shown * 2 > all.len(), "{shown} of {}", all.len());
            Ok(())
        },
    )
    .await
    .unwrap();
    assert_eq!(finish, demo::Finish::Balanced);
}
