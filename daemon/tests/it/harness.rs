//! The whole app in this process, with the mock cluster as broker and real receivers that verify with the SDK.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callbackd::app::{App, Hooks};
use callbackd::base::clock::{Clock as _, SystemClock};
use callbackd::base::telemetry::LogLevel;
use callbackd::config::{Config, Layers};
use callbackd::demo::broker::Broker;
use callbackd::keyring::Keyring;
use callbackd::model::callback::CallbackId;
use callbackd::model::permission::Rights;
use callbackd::model::settlement::{NumberedAttempt, Rows};
use callbackd::model::team::{KeyKind, Mode};
use callbackd::net::egress::{AllowRule, Allowed, Net};
use callbackd::ops::teams::TeamChange;
use callbackd::ops::tokens::NewToken;
use callbackd::ops::{Caller, Session};
use callbackd::store::EngineStore;
use callbackd::store::reads::{BuriedLetter, CallbackFilter, DeadLetterFilter, Page};
use callbackd_bench::recorder::{Recorder, Rule};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::postgres;

pub const TOPIC: &str = "tasks.events";
pub const TEAM: &str = "team_acme";
pub const HMAC_TEAM: &str = "team_globex";
/// How long a test waits for a condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two checks of a condition.
pub const PAUSE: Duration = Duration::from_millis(20);

type Wrap = Box<dyn FnOnce(Arc<dyn EngineStore>) -> Arc<dyn EngineStore> + Send>;

pub struct Harness {
    pub topic: String,
    _folder: tempfile::TempDir,
    /// The mock broker, if the test uses one.
    pub broker: Option<Broker>,
    pub settings: Vec<(String, String)>,
    pub producer: ThreadedProducer<DefaultProducerContext>,
    app: Option<App>,
}

/// One record to produce.
#[derive(Clone, Default)]
pub struct Event {
    pub team: Option<String>,
    pub task: String,
    pub event_id: Option<String>,
    pub url: Option<String>,
    pub is_test: bool,
    pub response: Option<String>,
    pub event_type: Option<String>,
}

impl Event {
    pub fn new(task: &str) -> Self {
        Self { team: Some(TEAM.to_owned()), task: task.to_owned(), ..Self::default() }
    }

    pub fn to(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    pub fn of(mut self, team: &str) -> Self {
        self.team = Some(team.to_owned());
        self
    }

    pub fn id(mut self, id: &str) -> Self {
        self.event_id = Some(id.to_owned());
        self
    }

    pub fn response(mut self, json: &str) -> Self {
        self.response = Some(json.to_owned());
        self
    }

    pub fn test(mut self) -> Self {
        self.is_test = true;
        self
    }

    pub fn json(&self) -> String {
        let mut json = String::from("{");
        if let Some(id) = &self.event_id {
            json += &format!("\"event_id\":{},", serde_json::to_string(id).unwrap());
        }
        if let Some(kind) = &self.event_type {
            json += &format!("\"event_type\":{},", serde_json::to_string(kind).unwrap());
        }
        if let Some(team) = &self.team {
            json += &format!("\"team_id\":{},", serde_json::to_string(team).unwrap());
        }
        json += &format!("\"task\":{{\"task_id\":{}", serde_json::to_string(&self.task).unwrap());
        if let Some(url) = &self.url {
            json += &format!(",\"callback_url\":{}", serde_json::to_string(url).unwrap());
        }
        json += &format!(",\"is_test\":{}}}", self.is_test);
        if let Some(response) = &self.response {
            json += &format!(",\"response\":{response}");
        }
        json + "}"
    }
}

/// Settings over the defaults, for tests: short retries, everything on loopback.
pub fn settings(folder: &Path, brokers: &str) -> Vec<(String, String)> {
    let keyring = folder.join("keyring");
    if !keyring.exists() {
        Keyring::create(&keyring).unwrap();
    }
    [
        ("KAFKA__BROKERS", brokers.to_owned()),
        ("KAFKA__TOPICS", TOPIC.to_owned()),
        // The mock broker holds a member that joins until the session timeout of the one before has passed.
        ("KAFKA__PROPERTIES", r#"{"session.timeout.ms":"6000","heartbeat.interval.ms":"1000"}"#.to_owned()),
        ("STORE__PATH", folder.join("store").display().to_string()),
        ("STORE__URL", postgres::store_url().unwrap_or_default()),
        ("KEYRING__FILE", keyring.display().to_string()),
        ("OPS__LISTEN", "127.0.0.1:0".to_owned()),
        // Every wait comes from a doubling, so that the horizon cuts nothing short on a slow machine.
        ("RETRY__FIRST", "50ms".to_owned()),
        ("RETRY__DOUBLINGS", "3".to_owned()),
        ("RETRY__RETRIES", "3".to_owned()),
        ("RETRY__HORIZON", "1h".to_owned()),
        ("DELIVER__HEAD_TIMEOUT", "1s".to_owned()),
        ("DELIVER__TOTAL_TIMEOUT", "2s".to_owned()),
        ("DELIVER__PARK_AFTER", "300ms".to_owned()),
        ("SHUTDOWN__GRACE", "5s".to_owned()),
        ("API__LISTEN", String::new()),
        ("LOG__LEVEL", "off".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (format!("CALLBACKD_{key}"), value))
    .collect()
}

/// The configuration of these settings, with loopback allowed.
pub fn config(settings: &[(String, String)]) -> Config {
    let mut config = Config::from_layers(
        &Layers::read(None, settings.iter().map(|(name, value)| (name.into(), value.into()))).unwrap(),
    )
    .unwrap();
    // Nobody listens at the second one: a connection fails at once, and nothing is sent.
    for net in ["127.0.0.0/8", "fe80::1"] {
        let what = Allowed::Net(Net::parse(net).unwrap());
        config.egress.allow.push(AllowRule { what, ports: Vec::new(), teams: Vec::new() });
    }
    config
}

impl Harness {
    /// A broker and an app with two teams.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same, with settings over the tests' own.
    pub async fn with(over: &[(&str, &str)]) -> Self {
        Self::wrapped(over, None).await
    }

    pub async fn wrapped(over: &[(&str, &str)], wrap: Option<Wrap>) -> Self {
        let broker = Broker::start(TOPIC, 2).unwrap();
        let servers = broker.servers.clone();
        Self::on(&servers, Some(broker), TOPIC, over, wrap).await
    }

    /// The same, with a broker that runs already.
    pub async fn on(
        servers: &str,
        broker: Option<Broker>,
        topic: &str,
        over: &[(&str, &str)],
        wrap: Option<Wrap>,
    ) -> Self {
        if let Ok(level) = std::env::var("CALLBACKD_TEST_LOG") {
            let format = callbackd::base::telemetry::Format::Human;
            callbackd::base::telemetry::start(&callbackd::base::telemetry::Config { format, level }).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path(), servers);
        set(&mut settings, &[("KAFKA__TOPICS", topic), ("KAFKA__GROUP", topic)]);
        set(&mut settings, over);
        let producer =
            ClientConfig::new().set("bootstrap.servers", servers).set("message.max.bytes", "8000000").create().unwrap();
        let mut harness = Self { topic: topic.to_owned(), _folder: folder, broker, settings, producer, app: None };
        harness.run(wrap).await;
        harness.teams().await;
        harness
    }

    pub async fn run(&mut self, wrap: Option<Wrap>) {
        let hooks = Hooks { wrap_store: wrap, ..Hooks::default() };
        self.app = Some(App::start_with(config(&self.settings), LogLevel::none(), hooks).await.unwrap());
    }

    /// The store's folder.
    pub fn store(&self) -> std::path::PathBuf {
        self._folder.path().join("store")
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().expect("it runs")
    }

    /// Stops the app cleanly. Returns how many attempts were cut off.
    pub async fn stop(&mut self) -> usize {
        let cut_off = self.app.take().expect("it runs").stop().await.unwrap();
        // The last connection that closes removes the write-ahead log. The end of a process does so, too, but this
        // process goes on.
        let log = self.store().join("callbackd.db-wal");
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while log.exists() && tokio::time::Instant::now() < end {
            tokio::time::sleep(PAUSE).await;
        }
        cut_off
    }

    /// The operations, for a caller with every right.
    pub fn session(&self) -> Session {
        self.app().ops.as_caller(&caller())
    }

    async fn teams(&self) {
        let ops = self.session();
        ops.create_team(TEAM, TeamChange::default(), None).await.unwrap();
        let hmac = TeamChange { auth_form: Some("hmac".to_owned()), ..TeamChange::default() };
        ops.create_team(HMAC_TEAM, hmac, None).await.unwrap();
    }

    /// A new live key of the first team, not used yet.
    pub async fn new_key(&self, kind: KeyKind) -> (callbackd::store::admin::KeyRow, String) {
        let new = callbackd::ops::keys::NewKey { kind, mode: Mode::Live, given: None };
        let made = self.session().create_key(TEAM, new, None).await.unwrap();
        let (row, value) = made.into_inner();
        (row, value.unwrap().to_string())
    }

    /// A token of the API.
    pub async fn token(&self, scope: Rights) -> String {
        self.limited_token(scope, &[]).await
    }

    /// A token that is limited to these teams.
    pub async fn limited_token(&self, scope: Rights, teams: &[&str]) -> String {
        let new = NewToken {
            name: scope.name(),
            scope,
            valid_for: Some(Duration::from_secs(3_600)),
            teams: teams.iter().map(|team| (*team).to_owned()).collect(),
        };
        let made = self.session().create_token(new, None).await.unwrap();
        made.into_inner().1.unwrap().to_string()
    }

    /// A key's value.
    pub async fn key(&self, team: &str, kind: KeyKind, mode: Mode) -> String {
        let ops = self.session();
        let rows = ops.keys(team).await.unwrap();
        let row = rows.iter().rev().find(|row| row.kind == kind && row.mode == mode).unwrap();
        ops.reveal_key(team, &row.id).await.unwrap().to_string()
    }

    /// A verifier with the keys of both teams.
    pub async fn verifier(&self) -> Verifier {
        let mut credentials = Vec::new();
        for mode in [Mode::Live, Mode::Test] {
            let secret = self.key(TEAM, KeyKind::Signing, mode).await;
            let auth = self.key(TEAM, KeyKind::CallbackAuth, mode).await;
            credentials.push(Credential::signed_and_keyed("acme", &secret, &auth).unwrap());
            let hmac = self.key(HMAC_TEAM, KeyKind::Hmac, mode).await;
            credentials.push(Credential::hmac_header("globex", &hmac).unwrap());
        }
        let first = credentials.remove(0);
        credentials.into_iter().fold(Verifier::new(first), Verifier::or_credential)
    }

    /// A recording receiver that answers by `rule`.
    pub async fn recorder(&self, rule: Rule) -> Recorder {
        Recorder::start(self.verifier().await, rule).await.unwrap()
    }

    /// A recording receiver that accepts everything for new teams, which are created with it.
    pub async fn recorder_of(&self, teams: &[&str]) -> Recorder {
        let mut verifier = self.verifier().await;
        for team in teams {
            self.session().create_team(team, TeamChange::default(), None).await.unwrap();
            let secret = self.key(team, KeyKind::Signing, Mode::Live).await;
            let auth = self.key(team, KeyKind::CallbackAuth, Mode::Live).await;
            verifier = verifier.or_credential(Credential::signed_and_keyed(team, &secret, &auth).unwrap());
        }
        Recorder::start(verifier, Arc::new(|_, _| Reply::status(204))).await.unwrap()
    }

    /// A recording receiver that accepts everything.
    pub async fn accepting(&self) -> Recorder {
        self.recorder(Arc::new(|_, _| Reply::status(204))).await
    }

    pub fn produce(&self, event: &Event) {
        self.produce_raw(event.json().as_bytes(), &[]);
    }

    /// Produces to partition 0, so that the order is known.
    pub fn produce_raw(&self, value: &[u8], headers: &[(&str, &str)]) {
        self.produce_to(0, Some(value), headers);
    }

    pub fn produce_to(&self, partition: i32, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header { key, value: Some(*value) });
        }
        let mut record: BaseRecord<'_, str, [u8]> =
            BaseRecord::to(&self.topic).partition(partition).key("k").headers(all);
        record.payload = value;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// The one callback of a task, when it has ended.
    pub async fn ended(&self, task: &str) -> (CallbackId, Rows, Vec<NumberedAttempt>) {
        let found = self
            .until(&format!("task {task} ends"), async || {
                self.callbacks(task).await.into_iter().find(|(_, rows)| rows.settled.is_some())
            })
            .await;
        let attempts = self.app().reads().attempts(found.0).await.unwrap();
        (found.0, found.1, attempts)
    }

    pub async fn callbacks(&self, task: &str) -> Vec<(CallbackId, Rows)> {
        let filter = CallbackFilter { task: Some(task.to_owned()), ..CallbackFilter::default() };
        let page = Page { before: None, limit: 100 };
        self.app().reads().callbacks(filter, page).await.map(|found| found.docs).unwrap_or_default()
    }

    /// Every dead letter, as soon as there are at least `count`.
    pub async fn dead_letters(&self, count: usize) -> Vec<BuriedLetter> {
        self.until("dead letters", async || {
            let page = Page { before: None, limit: 1000 };
            let all = DeadLetterFilter::default();
            let reads = self.app().reads();
            let mut found = reads.dead_letters(all, page).await.map(|found| found.docs).unwrap_or_default();
            // A list holds only the beginning of each value.
            for row in &mut found {
                *row = reads.dead_letter(row.letter.id).await.ok()??;
            }
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// Waits until the watermarks of all partitions add up to `records`.
    pub async fn watermark(&self, records: i64) {
        self.until("the watermark", async || {
            let partitions = self.app().reads().offsets().await.unwrap_or_default();
            let sum: i64 = partitions.iter().map(|partition| partition.watermark.upto).sum();
            (sum >= records).then_some(())
        })
        .await;
    }

    /// Calls until there is a result, for at most `PATIENCE`.
    pub async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        match until_deadline(PATIENCE, ask).await {
            Some(answer) => answer,
            None => panic!("the deadline passed before: {what}; {}", self.state().await),
        }
    }

    /// How the daemon is doing, for the message of a test that waited too long.
    async fn state(&self) -> String {
        let ops = &self.app().ops;
        let offsets = self.app().reads().offsets().await.map_err(|error| error.to_string());
        let page = ops.metrics_page().await;
        let told = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0") && !line.contains("_bucket");
        let metrics: Vec<_> = page.lines().filter(told).collect();
        format!("{:?}; {offsets:?}; {:?}; {}", ops.kafka().borrow(), ops.readiness(), metrics.join("; "))
    }

    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let metrics = self.app().ops.metrics();
        let family = match name {
            "attempts" => &metrics.attempts_total,
            "parked" => &metrics.parked_total,
            "dead_letters" => &metrics.dead_letters_total,
            other => panic!("no metric {other}"),
        };
        family.with_label_values(&[label]).get()
    }
}

/// Calls until there is a result, for at most `PATIENCE`.
pub async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask).await
}

/// The same, for at most so long.
pub async fn until_within<T>(patience: Duration, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    until_deadline(patience, ask).await.unwrap_or_else(|| panic!("the deadline passed before: {what}"))
}

async fn until_deadline<T>(patience: Duration, ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask().await;
        if answer.is_some() || Instant::now() >= end {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns in a later millisecond than it was called in.
pub fn next_millisecond() {
    let now = || SystemClock.now().millis();
    let called = now();
    while now() == called {
        std::hint::spin_loop();
    }
}

fn set(settings: &mut Vec<(String, String)>, over: &[(&str, &str)]) {
    for (key, value) in over {
        let name = format!("CALLBACKD_{key}");
        settings.retain(|(known, _)| *known != name);
        settings.push((name, (*value).to_owned()));
    }
}

/// Holds the store's lock, as another program would, until it is dropped.
pub async fn hold(file: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(file).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

pub fn caller() -> Caller {
    Caller::operator("test", "test", Rights::ALL)
}
