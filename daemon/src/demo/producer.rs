//! The demo's producer. It makes task events of every kind, along every path, and remembers what each must come to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use scale_callback::samples::{self, Kind, Seed, Wanted};

use super::{ACME, GLOBEX, TOPIC, now_millis};
use crate::flight::settle::Notice;
use crate::model::settlement::{Ended, Verdict};

/// The most events that may be under way at once. With more, the mock broker could drop one.
const OPEN_AT_MOST: u64 = 300;

/// What an event must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fate {
    Delivered,
    Exhausted,
    Abandoned(&'static str),
    Dead(&'static str),
}

/// A path that an event takes.
struct Path {
    name: &'static str,
    fate: Fate,
    weight: u64,
}

const fn path(name: &'static str, fate: Fate, weight: u64) -> Path {
    Path { name, fate, weight }
}

/// The path of events that are no JSON, so that nobody can read the id of their task.
const MALFORMED: &str = "malformed";

const PATHS: [Path; 13] = [
    path("ok", Fate::Delivered, 40),
    path("flaky", Fate::Delivered, 8),
    path("busy", Fate::Delivered, 6),
    path("hang", Fate::Delivered, 3),
    path("default", Fate::Delivered, 10),
    path("test", Fate::Delivered, 6),
    path("hmac", Fate::Delivered, 12),
    path("no-url", Fate::Abandoned("no_url"), 3),
    path("denied", Fate::Abandoned("address_denied"), 3),
    path("bad-url", Fate::Abandoned("url_invalid"), 2),
    path("down", Fate::Exhausted, 3),
    path("unknown-team", Fate::Dead("unknown_team"), 2),
    path(MALFORMED, Fate::Dead("not_json"), 2),
];

/// One event that was produced and has not ended.
struct Open {
    kind: &'static str,
    fate: Fate,
    /// Its callback, once an attempt has told it.
    callback: Option<String>,
}

pub(super) struct Producer {
    kafka: ThreadedProducer<DefaultProducerContext>,
    receiver: SocketAddr,
    seed: Seed,
    produced: u64,
    fates: HashMap<Fate, u64>,
    open: HashMap<String, Open>,
    /// Events whose task id nobody can read.
    open_malformed: u64,
    pub(super) last_exhausted: Option<String>,
}

impl Producer {
    pub(super) fn new(brokers: &str, receiver: SocketAddr) -> anyhow::Result<Self> {
        let kafka = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "2")
            .create()
            .context("create the demo's producer")?;
        Ok(Self {
            kafka,
            receiver,
            seed: Seed::new(now_millis()),
            produced: 0,
            fates: HashMap::new(),
            open: HashMap::new(),
            open_malformed: 0,
            last_exhausted: None,
        })
    }

    pub(super) fn produced(&self) -> u64 {
        self.produced
    }

    pub(super) fn open(&self) -> u64 {
        self.open.len() as u64 + self.open_malformed
    }

    pub(super) fn room(&self) -> u64 {
        OPEN_AT_MOST.saturating_sub(self.open())
    }

    /// How many events of each fate have ended.
    pub(super) fn ended_by_fate(&self) -> HashMap<Fate, u64> {
        let mut ended = self.fates.clone();
        let malformed = PATHS.iter().find(|path| path.name == MALFORMED).map(|path| (path.fate, self.open_malformed));
        let open = self.open.values().map(|open| (open.fate, 1)).chain(malformed);
        for (fate, count) in open {
            ended.entry(fate).and_modify(|all| *all = all.saturating_sub(count));
        }
        ended
    }

    /// The callbacks that have been tried and have not ended.
    pub(super) fn open_callbacks(&self) -> impl Iterator<Item = &str> {
        self.open.values().filter_map(|open| open.callback.as_deref())
    }

    /// The task type of an event under way.
    pub(super) fn kind_of(&self, task_id: &str) -> &'static str {
        self.open.get(task_id).map_or("", |open| open.kind)
    }

    /// Produces the next event. The first events take each path once; the others take paths by their weight.
    pub(super) fn produce(&mut self) -> anyhow::Result<()> {
        let path = self.next_path();
        let kind = Kind::ALL[self.seed.below(Kind::ALL.len() as u64) as usize];
        let task_id = samples::task_id(now_millis() / 1000, &mut self.seed);
        let at = |place: &str| format!("http://{}/{place}", self.receiver);
        let (team, url) = match path.name {
            "default" => (ACME, None),
            "test" => (ACME, Some(at("ok"))),
            "hmac" => (GLOBEX, Some(at("ok"))),
            "no-url" => (GLOBEX, None),
            "denied" => (ACME, Some("http://169.254.169.254/latest/meta-data".to_owned())),
            "bad-url" => (ACME, Some("ftp://files.acme.example/inbox".to_owned())),
            "unknown-team" => ("team_nobody", Some(at("ok"))),
            place => (ACME, Some(at(place))),
        };
        let items = 2 + self.seed.below(12);
        let wanted =
            Wanted { kind, task_id: &task_id, callback_url: url.as_deref(), is_test: path.name == "test", items };
        let task = samples::task(&wanted, &mut self.seed);
        // Most producers give UUIDv7s to their events. Some use ids without a time, and some use none.
        let event_id = match self.seed.below(10) {
            0 => None,
            1 => Some(format!("evt-{:016x}", self.seed.next_u64())),
            _ => Some(samples::uuid_v7(now_millis(), &mut self.seed)),
        };
        let value = if path.name == MALFORMED {
            format!("{{\"team_id\":\"{ACME}\",\"task\":{{\"task_id\":\"{task_id}\"")
        } else {
            samples::envelope(team, event_id.as_deref(), &task)
        };
        self.send(&task_id, team, &value)?;
        self.produced += 1;
        *self.fates.entry(path.fate).or_default() += 1;
        if path.name == MALFORMED {
            self.open_malformed += 1;
        } else {
            self.open.insert(task_id, Open { kind: kind.task_type(), fate: path.fate, callback: None });
        }
        Ok(())
    }

    fn next_path(&mut self) -> &'static Path {
        if let Some(path) = usize::try_from(self.produced).ok().and_then(|index| PATHS.get(index)) {
            return path;
        }
        let mut dice = self.seed.below(PATHS.iter().map(|path| path.weight).sum());
        for path in &PATHS {
            if dice < path.weight {
                return path;
            }
            dice -= path.weight;
        }
        &PATHS[0]
    }

    fn send(&self, key: &str, team: &str, value: &str) -> anyhow::Result<()> {
        let headers = OwnedHeaders::new().insert(Header { key: "team-id", value: Some(team) });
        let record = BaseRecord::to(TOPIC).key(key).payload(value).headers(headers);
        self.kafka.send(record).map_err(|(error, _)| error).context("produce an event")
    }

    /// Forgets an event that has come to its end.
    pub(super) fn ended(&mut self, notice: &Notice) {
        match notice {
            Notice::Attempt { settle, verdict: Verdict::Ended(ended) } => {
                self.open.remove(&*settle.facts.task_id);
                if *ended == Ended::Exhausted {
                    self.last_exhausted = Some(settle.facts.id.to_string());
                }
            }
            Notice::Attempt { settle, .. } => {
                if let Some(open) = self.open.get_mut(&*settle.facts.task_id) {
                    open.callback = Some(settle.facts.id.to_string());
                }
            }
            Notice::Buried(letter) => {
                let known = letter.task_id.as_deref().and_then(|task| self.open.remove(task));
                if known.is_none() {
                    self.open_malformed = self.open_malformed.saturating_sub(1);
                }
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // The demo is over: what could not be sent by now is not missed.
        self.kafka.flush(Duration::from_secs(1)).ok();
    }
}
