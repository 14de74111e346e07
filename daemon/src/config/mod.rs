//! From files and variables to a checked configuration. The commented `config/callbackd.toml` is compiled in and is the
//! list of what exists: a key that is not in it is refused, with file and line.

mod layers;
mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layers::{ConfigError, Layers, Origin as ValueOrigin};

use crate::base::telemetry;
use crate::intake;
use crate::model::retry::RetryPolicy;
use crate::model::team::HttpPolicy;
use crate::net::dial::Deadlines;
use crate::net::egress::{AllowRule, Allowed, Net};
use crate::net::target::{Target, TargetHost};
use crate::net::{dns, exchange};
use crate::schedule::Caps;
use crate::store::sqlite;
use raw::Raw;

/// The complete, commented configuration that is compiled in.
pub const DEFAULTS: &str = include_str!("../../../config/callbackd.toml");

/// The comment above a section or key (as `section.key`) in the defaults, with the line itself. Keys that follow one
/// another share a comment.
pub fn explain(wanted: &str) -> Option<String> {
    let mut section = "";
    let mut comment: Vec<&str> = Vec::new();
    let mut used = false;
    for line in DEFAULTS.lines() {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let key = line.split_once(" = ").map(|(key, _)| key).filter(|_| !line.starts_with('#'));
        let found = match (name, key) {
            (Some(name), _) => {
                section = name;
                wanted == name
            }
            (None, Some(key)) => wanted.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(key),
            (None, None) => false,
        };
        if found {
            return Some(comment.into_iter().chain([line]).collect::<Vec<_>>().join("\n"));
        }
        if (line.starts_with('#') && used) || name.is_some() || line.is_empty() {
            comment.clear();
            used = false;
        }
        if line.starts_with('#') {
            comment.push(line);
        }
        used |= key.is_some();
    }
    None
}

/// Whether SIGHUP takes a key: its comment, or its section's, says so.
pub fn is_reloadable(key: &str) -> bool {
    let says = |name: &str| explain(name).is_some_and(|text| text.contains("SIGHUP"));
    let section = key.split_once('.').map_or(key, |(section, _)| section);
    says(key) || (says(section) && key != "egress.ca_file")
}

#[derive(Debug, Clone)]
pub struct Config {
    pub intake: intake::Config,
    pub store: sqlite::Config,
    pub caps: Caps,
    pub park_after: Duration,
    pub lease: Duration,
    pub user_agent: String,
    pub exchange: exchange::Config,
    pub retry: RetryPolicy,
    pub egress: Egress,
    pub keyring_file: PathBuf,
    pub api: Api,
    pub ops_listen: Option<SocketAddr>,
    pub log: telemetry::Config,
    pub grace: Duration,
    pub retention: Retention,
}

#[derive(Debug, Clone)]
pub struct Api {
    pub socket: PathBuf,
    pub listen: Option<SocketAddr>,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Egress {
    pub http: HttpPolicy,
    pub allow: Vec<AllowRule>,
    pub nat64: Vec<Net>,
}

#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub settled: Duration,
    pub dead_letters: Duration,
    pub event_ids: Duration,
}

impl Config {
    /// Reads the defaults, `file` over them, and the variables `CALLBACKD_SECTION__KEY` over both.
    ///
    /// # Errors
    /// One sentence that names the key, and the file and line where there is one.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_layers(&Layers::read(file, std::env::vars_os())?)
    }

    /// Checks what only a daemon needs: a keyring, brokers.
    ///
    /// # Errors
    /// One sentence that names the key.
    pub fn check_runnable(&self) -> Result<(), ConfigError> {
        if self.intake.brokers.is_empty() {
            return Err(ConfigError::new("kafka.brokers: say where the brokers are, \"host:port\""));
        }
        if self.keyring_file.as_os_str().is_empty() {
            let sentence = "keyring.file: name the keyring; make one with: callbackd keyring create FILE";
            return Err(ConfigError::new(sentence));
        }
        Ok(())
    }

    /// Checks what was read.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let raw: Raw = layers.decode()?;
        let wrong = |key: &str, why: &str| layers.error_at(key, why);
        let config = build(&raw, &wrong)?;
        check(&config, &wrong)?;
        Ok(config)
    }
}

type Wrong<'w> = dyn Fn(&str, &str) -> ConfigError + 'w;

fn build(raw: &Raw, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let d = &raw.deliver;
    let deadlines = Deadlines {
        dns: d.dns_timeout.0,
        connect: d.connect_timeout.0,
        tls: d.tls_timeout.0,
        head: d.head_timeout.0,
        total: d.total_timeout.0,
    };
    let http = HttpPolicy::parse(&raw.egress.http)
        .ok_or_else(|| wrong("egress.http", "say \"allow\", \"hmac-only\" or \"refuse\""))?;
    let format = match raw.log.format.as_str() {
        "json" => telemetry::Format::Json,
        "human" => telemetry::Format::Human,
        _ => return Err(wrong("log.format", "say \"json\" or \"human\"")),
    };
    telemetry::check_level(&raw.log.level).map_err(|why| wrong("log.level", &why))?;
    let nat64 = raw.egress.nat64.iter().map(|text| Net::parse(text).filter(Net::is_nat64)).collect::<Option<Vec<_>>>();
    let allow = raw.egress.allow.iter().map(allow_rule).collect::<Result<Vec<_>, _>>();
    let store = PathBuf::from(&raw.store.path);
    if !(1..=100).contains(&d.per_team_percent) {
        return Err(wrong("deliver.per_team_percent", "between 1 and 100"));
    }
    Ok(Config {
        intake: intake_config(raw, wrong)?,
        caps: caps(raw),
        park_after: d.park_after.0,
        lease: d.lease.0,
        user_agent: format!("callbackd/{} {}", env!("CARGO_PKG_VERSION"), d.contact).trim_end().to_owned(),
        exchange: exchange::Config {
            deadlines,
            dns: dns::Config {
                servers: addresses(&raw.dns.servers).ok_or_else(|| wrong("dns.servers", "write \"address:port\""))?,
                cache_entries: raw.dns.cache_entries,
            },
            http2: d.http2,
            ca_file: given(&raw.egress.ca_file).map(PathBuf::from),
        },
        retry: RetryPolicy {
            first: raw.retry.first.0,
            doublings: raw.retry.doublings,
            retries: raw.retry.retries,
            horizon: raw.retry.horizon.0,
            end_on_gone: raw.retry.end_on_gone,
        },
        egress: Egress {
            http,
            allow: allow.map_err(|why| wrong("egress.allow", &why))?,
            nat64: nat64.ok_or_else(|| wrong("egress.nat64", "write prefixes of 96 bits, such as \"64:ff9b::/96\""))?,
        },
        keyring_file: PathBuf::from(&raw.keyring.file),
        api: api_config(raw, &store, wrong)?,
        ops_listen: match given(&raw.ops.listen) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| wrong("ops.listen", "write \"address:port\""))?),
        },
        log: telemetry::Config { format, level: raw.log.level.clone() },
        grace: raw.shutdown.grace.0,
        retention: Retention {
            settled: raw.retention.settled.0,
            dead_letters: raw.retention.dead_letters.0,
            event_ids: raw.retention.event_ids.0,
        },
        store: sqlite::Config { directory: store },
    })
}

fn api_config(raw: &Raw, store: &Path, wrong: &Wrong<'_>) -> Result<Api, ConfigError> {
    let api = &raw.api;
    let listen = given(&api.listen).map(str::parse).transpose();
    let listen: Option<SocketAddr> = listen.map_err(|_| wrong("api.listen", "write \"address:port\""))?;
    let tls = match (given(&api.tls_cert), given(&api.tls_key)) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        (Some(_), None) => return Err(wrong("api.tls_cert", "it needs api.tls_key beside it")),
        (None, Some(_)) => return Err(wrong("api.tls_key", "it needs api.tls_cert beside it")),
    };
    if listen.is_some_and(|address| !address.ip().is_loopback()) && tls.is_none() && !api.behind_tls_proxy {
        let why = "an address other than loopback needs api.tls_cert and api.tls_key, or behind_tls_proxy = true";
        return Err(wrong("api.listen", why));
    }
    Ok(Api {
        socket: given(&api.socket).map_or_else(|| store.join("callbackd.sock"), PathBuf::from),
        listen,
        tls,
        hosts: api.hosts.clone(),
    })
}

fn intake_config(raw: &Raw, wrong: &Wrong<'_>) -> Result<intake::Config, ConfigError> {
    let mut properties = raw.kafka.properties.clone();
    for (name, path) in &raw.kafka.property_files {
        let value = std::fs::read_to_string(path)
            .map_err(|error| wrong("kafka.property_files", &format!("{name}: {path}: {error}")))?;
        properties.insert(name.clone(), value.trim_end_matches(['\r', '\n']).to_owned());
    }
    let tombstones = match raw.intake.tombstones.as_str() {
        "skip" => intake::Tombstones::Skip,
        "dead_letter" => intake::Tombstones::DeadLetter,
        _ => return Err(wrong("intake.tombstones", "say \"skip\" or \"dead_letter\"")),
    };
    Ok(intake::Config {
        brokers: raw.kafka.brokers.clone(),
        group: raw.kafka.group.clone(),
        topics: raw.kafka.topics.clone(),
        properties,
        max_event_bytes: raw.intake.max_event.0,
        body_budget: raw.intake.body_budget.0,
        window: raw.intake.window,
        tombstones,
        rebalance_grace: raw.intake.rebalance_grace.0,
    })
}

fn caps(raw: &Raw) -> Caps {
    let d = &raw.deliver;
    let share = d.fast.saturating_add(d.slow).saturating_mul(d.per_team_percent) / 100;
    Caps {
        endpoint: d.per_endpoint,
        origin: d.per_origin,
        team: share.max(1),
        fast: d.fast,
        slow: d.slow,
        settling: d.settling,
        unproven: (d.fast / 4).max(1),
        lane_bytes: raw.intake.body_budget.0 / 8,
        waiting: 64,
    }
}

fn allow_rule(rule: &raw::Allow) -> Result<AllowRule, String> {
    let what = match (&rule.net, &rule.host) {
        (Some(net), None) => {
            let parsed = Net::parse(net);
            Allowed::Net(parsed.ok_or_else(|| format!("{net:?} is no net; write for example \"10.0.0.0/8\""))?)
        }
        // A host is named as a URL's host is read.
        (None, Some(host)) => match Target::parse(&format!("https://{host}/")).map(|target| target.host) {
            Ok(TargetHost::Name(name)) => Allowed::Host(name.to_string()),
            Ok(TargetHost::Address(_)) => return Err(format!("{host:?} is an address; name it as net")),
            Err(_) => return Err(format!("{host:?} is no host name")),
        },
        _ => return Err("each rule has either net (\"10.0.0.0/8\") or host (a name)".to_owned()),
    };
    Ok(AllowRule { what, ports: rule.ports.clone(), teams: rule.teams.clone() })
}

fn addresses(texts: &[String]) -> Option<Vec<SocketAddr>> {
    texts.iter().map(|text| text.parse().ok()).collect()
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Combinations that can't work.
fn check(config: &Config, wrong: &Wrong<'_>) -> Result<(), ConfigError> {
    let total = config.exchange.deadlines.total;
    let intake = &config.intake;
    let poll = intake::settings::max_poll_interval(intake);
    intake::settings::check(intake).map_err(|why| wrong("kafka.properties", &why))?;
    let d = config.exchange.deadlines;
    let timeouts = [d.dns, d.connect, d.tls, d.head, d.total];
    let kept = [config.retention.settled, config.retention.dead_letters, config.retention.event_ids];
    let rules: [(bool, &str, &str); 16] = [
        (timeouts.iter().all(|t| !t.is_zero()), "deliver.total_timeout", "every timeout must be more than 0"),
        (kept.iter().all(|k| *k >= Duration::from_secs(60)), "retention.settled", "everything is kept for at least 1m"),
        (
            config.user_agent.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "deliver.contact",
            "it is sent in a header: printable ASCII only",
        ),
        (intake.body_budget <= 1 << 32, "intake.body_budget", "at most 4GiB"),
        (!intake.topics.is_empty(), "kafka.topics", "name at least one topic"),
        (!intake.group.is_empty(), "kafka.group", "the consumer group needs a name"),
        (
            intake.body_budget >= intake.max_event_bytes.saturating_mul(2),
            "intake.body_budget",
            "it must hold at least twice intake.max_event",
        ),
        (intake.max_event_bytes <= 16 << 20, "intake.max_event", "at most 16MiB"),
        (intake.window >= 1, "intake.window", "at least 1"),
        (
            intake.rebalance_grace < poll / 3,
            "intake.rebalance_grace",
            "it must be less than a third of max.poll.interval.ms (300s unless set)",
        ),
        (
            config.grace >= total.saturating_add(Duration::from_secs(2)),
            "shutdown.grace",
            "it must be at least deliver.total_timeout + 2s",
        ),
        (
            config.lease > total.saturating_add(Duration::from_secs(5)),
            "deliver.lease",
            "it must be more than deliver.total_timeout + 5s",
        ),
        (
            !config.park_after.is_zero() && config.park_after < config.grace,
            "deliver.park_after",
            "it must be more than 0, and less than shutdown.grace",
        ),
        (
            config.caps.fast >= 1 && config.caps.slow >= 1 && config.caps.settling >= 1,
            "deliver.fast",
            "fast, slow and settling must each be at least 1",
        ),
        (config.caps.endpoint >= 1 && config.caps.origin >= 1, "deliver.per_endpoint", "at least 1"),
        (config.retry.retries <= 1_000, "retry.retries", "at most 1000"),
    ];
    match rules.iter().find(|(holds, _, _)| !holds) {
        Some((_, key, why)) => Err(wrong(key, why)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Layers::parse(Some(("my.toml", text)), variables)
            .and_then(|layers| Config::from_layers(&layers))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_complete_and_the_contracts() {
        let config = load("", &[]).expect("the defaults hold");
        assert_eq!(config.retry, RetryPolicy::default());
        assert_eq!(config.intake.max_event_bytes, 5 << 20);
        assert_eq!(config.exchange.deadlines.total, Duration::from_secs(15));
        assert_eq!(config.retention.settled, Duration::from_secs(30 * 86_400));
        assert_eq!(config.caps.team, 192);
    }

    #[test]
    fn a_relative_path_begins_at_its_file() {
        let text = "[store]\npath = \"store\"\n[keyring]\nfile = \"/etc/ring\"\n[api]\ntls_cert = \"a.pem\"\ntls_key = \"a.key\"";
        let layers = Layers::parse(
            Some(("/opt/cb/my.toml", text)),
            [("CALLBACKD_EGRESS__CA_FILE".into(), "ca.pem".into())].into_iter(),
        );
        let config = Config::from_layers(&layers.expect("it is read")).expect("it holds");
        assert_eq!(config.store.directory, Path::new("/opt/cb/store"));
        assert_eq!(config.api.socket, Path::new("/opt/cb/store/callbackd.sock"));
        assert_eq!(config.keyring_file, Path::new("/etc/ring"));
        assert_eq!(config.api.tls, Some(("/opt/cb/a.pem".into(), "/opt/cb/a.key".into())));
        assert_eq!(config.exchange.ca_file.as_deref(), Some(Path::new("ca.pem")), "a variable has no file");
    }

    #[test]
    fn the_comments_say_what_a_reload_takes() {
        for (key, taken) in [
            ("log.level", true),
            ("deliver.fast", true),
            ("deliver.per_origin", true),
            ("deliver.park_after", false),
            ("retry.first", true),
            ("egress.allow", true),
            ("egress.ca_file", false),
            ("api.hosts", true),
            ("api.listen", false),
            ("retention.settled", true),
            ("kafka.brokers", false),
            ("deliver.lease", false),
        ] {
            assert_eq!(is_reloadable(key), taken, "{key}");
        }
    }

    #[test]
    fn a_file_and_variables_go_over_the_defaults() {
        let config = load(
            "[kafka]\nbrokers = \"a:1\"\ngroup = \"g\"\n[[egress.allow]]\nnet = \"127.0.0.0/8\"\n",
            &[
                ("CALLBACKD_KAFKA__BROKERS", "b:2"),
                ("CALLBACKD_DELIVER__FAST", "7"),
                ("CALLBACKD_API_URL", "ignored"),
                ("CALLBACKD_KAFKA__PROPERTIES", r#"{"security.protocol":"ssl"}"#),
            ],
        )
        .expect("it holds");
        assert_eq!((config.intake.brokers.as_str(), config.intake.group.as_str()), ("b:2", "g"));
        assert_eq!(config.caps.fast, 7);
        assert_eq!(config.egress.allow.len(), 1);
        assert_eq!(config.intake.properties["security.protocol"], "ssl");
    }

    #[test]
    fn each_mistake_is_one_sentence_with_key_file_and_line() {
        for (text, sentence) in [
            ("[kafka]\nbroker = \"a\"\n", "my.toml, line 2: kafka.broker: there is no such key"),
            ("\n[nonsense]\nx = 1\n", "my.toml, line 2: nonsense: there is no such key"),
            (
                "[deliver]\nfast = \"many\"\n",
                "my.toml, line 2: deliver.fast: invalid type: string \"many\", expected usize",
            ),
            (
                "[deliver]\ntotal_timeout = \"soon\"\n",
                "my.toml, line 2: deliver.total_timeout: \"soon\" is no duration; write for example \"30s\", \"5m\" or \"24h\"",
            ),
            (
                "[intake]\nmax_event = \"5MB\"\n",
                "my.toml, line 2: intake.max_event: \"5MB\" is no size; write for example \"64KiB\" or \"5MiB\"",
            ),
            (
                "[shutdown]\ngrace = \"1s\"\n",
                "my.toml, line 2: shutdown.grace: it must be at least deliver.total_timeout + 2s",
            ),
            ("[egress]\nhttp = \"no\"\n", "my.toml, line 2: egress.http: say \"allow\", \"hmac-only\" or \"refuse\""),
            (
                "[[egress.allow]]\nnet = \"10.0.0.1/8\"\n",
                "my.toml, line 1: egress.allow: \"10.0.0.1/8\" is no net; write for example \"10.0.0.0/8\"",
            ),
            (
                "[[egress.allow]]\nports = [80]\n",
                "my.toml, line 1: egress.allow: each rule has either net (\"10.0.0.0/8\") or host (a name)",
            ),
            ("[[egress.allow]]\nnett = \"10.0.0.0/8\"\n", "my.toml, line 2: egress.allow.nett: there is no such key"),
            (
                "[kafka.properties]\n\"group.id\" = \"x\"\n",
                "my.toml, line 1: kafka.properties: group.id can't be set: it is kafka.group",
            ),
            (
                "[api]\nlisten = \"0.0.0.0:9465\"\n",
                "my.toml, line 2: api.listen: an address other than loopback needs api.tls_cert and api.tls_key",
            ),
            ("[api]\ntls_cert = \"a.pem\"\n", "my.toml, line 2: api.tls_cert: it needs api.tls_key beside it"),
            ("[kafka\n", "my.toml, line 1: it is not TOML: "),
        ] {
            let error = load(text, &[]).expect_err(text);
            assert!(error.starts_with(sentence), "{error}\nexpected: {sentence}");
            assert!(!error.trim_end().contains('\n'), "{error}");
        }
        let error = load("", &[("CALLBACKD_KAFKA__NOPE", "1")]).expect_err("unknown");
        assert_eq!(error, "variable CALLBACKD_KAFKA__NOPE: kafka.nope: there is no such key");
        let error = load("", &[("CALLBACKD_DELIVER__LEASE", "1s")]).expect_err("too short");
        assert_eq!(
            error,
            "variable CALLBACKD_DELIVER__LEASE: deliver.lease: it must be more than deliver.total_timeout + 5s"
        );
    }
}
