//! What is read from files and variables, and what is refused.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::retry::RetryPolicy;

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
    let deadlines = config.exchange.deadlines;
    assert_eq!(deadlines.total, scale_callback_auth::ANSWER_DEADLINE);
    assert!(deadlines.head >= deadlines.total, "the whole time that is left is the answer's");
    assert_eq!(config.retention.settled, Duration::from_secs(30 * 86_400));
    assert_eq!(config.caps.team, 192);
}

#[test]
fn every_document_names_the_same_deadline_for_an_answer() {
    let seconds = scale_callback_auth::ANSWER_DEADLINE.as_secs();
    // Read when the test runs: a build needs no documents.
    let file = |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let receivers = file("docs/receivers.md");
    assert!(receivers.contains(&format!("| any 2xx, within {seconds} s |")));
    assert!(receivers.contains(&format!("If an answer takes longer than {seconds} s,")));
    let defaults = file("config/callbackd.toml");
    assert!(defaults.contains(&format!("Receivers are promised {seconds} s from the begin of an attempt")));
    for path in ["gate/src/cli/listen/mod.rs", "gate/src/cli/gate.rs", "gate/src/cli/send.rs"] {
        let help = file(path);
        let waits = format!("The platform waits {seconds}s.");
        let default = format!("default_value = \"{seconds}s\"");
        assert!(help.contains(&waits) || help.contains(&default));
    }
}

#[test]
fn a_relative_path_begins_at_its_file() {
    let text =
        "[store]\npath = \"store\"\n[keyring]\nfile = \"/etc/ring\"\n[api]\ntls_cert = \"a.pem\"\ntls_key = \"a.key\"";
    let layers = Layers::parse(
        Some(("/opt/cb/my.toml", text)),
        [("CALLBACKD_EGRESS__CA_FILE".into(), "ca.pem".into())].into_iter(),
    );
    let config = Config::from_layers(&layers.expect("it is read")).expect("it holds");
    assert_eq!(config.store, store::Config::Directory("/opt/cb/store".into()));
    assert_eq!(config.api.socket, Path::new("/opt/cb/store/callbackd.sock"));
    assert!(matches!(&config.keyring, keyring::Source::File(file) if file == Path::new("/etc/ring")));
    assert_eq!(config.api.tls, Some(("/opt/cb/a.pem".into(), "/opt/cb/a.key".into())));
    assert_eq!(config.exchange.ca_file.as_deref(), Some(Path::new("ca.pem")), "a variable has no file");
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
        (
            "[kafka]\nbroker = \"a\"\n",
            "my.toml, line 2: kafka.broker: there is no such key; did you mean kafka.brokers?",
        ),
        ("\n[nonsense]\nx = 1\n", "my.toml, line 2: nonsense: there is no such key"),
        (
            "[deliver]\nfast = \"many\"\n",
            "my.toml, line 2: deliver.fast: \"many\" is not a whole number; write for example 512",
        ),
        (
            "[deliver]\ntotal_timeout = \"soon\"\n",
            "my.toml, line 2: deliver.total_timeout: \"soon\" is not a duration; write for example \"30s\", \"5m\" or \"24h\"",
        ),
        ("[intake]\nmax_event = \"5MB\"\n", "my.toml, line 2: intake.max_event: \"5MB\" is not a size; write \"5MiB\""),
        (
            "[shutdown]\ngrace = \"1s\"\n",
            "my.toml, line 2: shutdown.grace: it must be at least deliver.total_timeout + 2s",
        ),
        ("[retry]\nhorizon = \"0s\"\n", "my.toml, line 2: retry.horizon: it must be more than 0, and at most 30d"),
        ("[retry]\nhorizon = \"721h\"\n", "my.toml, line 2: retry.horizon: it must be more than 0, and at most 30d"),
        (
            "[store]\nurl = \"mysql://secret@db/x\"\n",
            "my.toml, line 2: store.url: write \"postgres://user@host/database\" or \"sqlite:/var/lib/callbackd\"",
        ),
        (
            "[store]\nurl = \"postgres://u:secret@db/x?sslmode=prefer\"\n",
            "my.toml, line 2: store.url: sslmode is \"verify-full\", or \"disable\" where nobody else can read",
        ),
        ("[egress]\nhttp = \"no\"\n", "my.toml, line 2: egress.http: say \"allow\", \"hmac-only\" or \"refuse\""),
        (
            "[[egress.allow]]\nnet = \"10.0.0.1/8\"\n",
            "my.toml, line 1: egress.allow: \"10.0.0.1/8\" is not the first address of its network; write \"10.0.0.0/8\", or \"10.0.0.1\" for it alone",
        ),
        (
            "[[egress.allow]]\nports = [80]\n",
            "my.toml, line 1: egress.allow: each rule has either net (\"10.0.0.0/8\") or host (a name)",
        ),
        (
            "[[egress.allow]]\nnett = \"10.0.0.0/8\"\n",
            "my.toml, line 2: egress.allow.nett: there is no such key; did you mean egress.allow.net?",
        ),
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
}

#[test]
fn addresses_and_rules_that_are_written_in_another_way_are_told_ours() {
    for (text, sentence) in [
        (
            "[[egress.allow]]\nnet = \"10/8\"\n",
            "my.toml, line 1: egress.allow: \"10/8\" is not a network; write for example \"10.0.0.0/8\"",
        ),
        (
            "[egress]\nallow = [\"127.0.0.0/8\"]\n",
            "my.toml, line 2: egress.allow: each rule is a table in the configuration file; write a line [[egress.allow]], and below it net = \"127.0.0.0/8\"",
        ),
        (
            "[egress]\nallow = \"hooks.corp.internal\"\n",
            "my.toml, line 2: egress.allow: each rule is a table in the configuration file; write a line [[egress.allow]], and below it host = \"hooks.corp.internal\"",
        ),
        (
            "[kafka]\nbrokers = \"a:1, http://localhost:9092\"\n",
            "my.toml, line 2: kafka.brokers: remove http://; a broker is written \"host:port\"",
        ),
        (
            "[dns]\nservers = [\"::1\"]\n",
            "my.toml, line 2: dns.servers: \"::1\" is not an IP address with a port; write for example \"[::1]:53\"",
        ),
        (
            "[ops]\nlisten = \"localhost:9464\"\n",
            "my.toml, line 2: ops.listen: \"localhost:9464\" is not an IP address with a port; write for example \"127.0.0.1:9464\"",
        ),
    ] {
        assert_eq!(load(text, &[]).expect_err(text), sentence);
    }
}

#[test]
fn a_value_of_the_wrong_type_or_in_the_wrong_section_is_told_what_to_write() {
    for (text, sentence) in [
        (
            "[deliver]\nhead_timeout = 10\n",
            "my.toml, line 2: deliver.head_timeout: 10 has no unit; write \"10s\" for seconds",
        ),
        ("[intake]\nmax_event = 5242880\n", "my.toml, line 2: intake.max_event: 5242880 has no unit; write \"5MiB\""),
        (
            "[deliver]\nhttp2 = \"yes\"\n",
            "my.toml, line 2: deliver.http2: it is true or false, without quotes; write true",
        ),
        (
            "[kafka]\ntopics = \"tasks.events\"\n",
            "my.toml, line 2: kafka.topics: it is a list; write [\"tasks.events\"]",
        ),
        (
            "[kafka]\nlease = \"60s\"\n",
            "my.toml, line 2: kafka.lease: there is no such key; did you mean deliver.lease?",
        ),
    ] {
        assert_eq!(load(text, &[]).expect_err(text).trim_end(), sentence);
    }
}

#[test]
fn a_mistake_in_a_variable_names_the_variable_and_what_to_write() {
    let error = load("", &[("CALLBACKD_KAFKA__NOPE", "1")]).expect_err("unknown");
    assert_eq!(error, "variable CALLBACKD_KAFKA__NOPE: kafka.nope: there is no such key");
    let error = load("", &[("CALLBACKD_DELIVER__LEASE", "1s")]).expect_err("too short");
    assert_eq!(
        error,
        "variable CALLBACKD_DELIVER__LEASE: deliver.lease: it must be more than deliver.total_timeout + 5s"
    );
    for (variable, value, sentence) in [
        (
            "CALLBACKD_KAFKA__BROKER",
            "a:1",
            "kafka.broker: there is no such key; did you mean CALLBACKD_KAFKA__BROKERS?",
        ),
        ("CALLBACKD_KAFKA_BROKERS", "a:1", "write CALLBACKD_KAFKA__BROKERS, with two underscores after the section"),
        ("CALLBACKD_DELIVER__FAST", "many", "deliver.fast: \"many\" is not a whole number; write for example 512"),
        ("CALLBACKD_DELIVER__HTTP2", "yes", "deliver.http2: it is true or false, without quotes; write true"),
        ("CALLBACKD_DELIVER__LEASE", "60", "deliver.lease: \"60\" is not a duration; write \"60s\""),
        (
            "CALLBACKD_DNS__SERVERS",
            r#"["127.0.0.1:5399", "[::1]:53"]"#,
            "dns.servers: in a variable, a list is written without brackets and quotes; write 127.0.0.1:5399,[::1]:53",
        ),
        (
            "CALLBACKD_EGRESS__ALLOW",
            "127.0.0.0/8",
            "egress.allow: each rule is a table in the configuration file; write a line [[egress.allow]], and below it net = \"127.0.0.0/8\"",
        ),
    ] {
        let error = load("", &[(variable, value)]).expect_err(variable);
        assert_eq!(error, format!("variable {variable}: {sentence}"));
    }
    let error = load("", &[("CALLBACKD_KAFKA__PROPERTIES", "sasl.password=hidden-word")]).expect_err("no JSON");
    assert!(error.contains("it is a JSON object of texts") && !error.contains("hidden-word"), "{error}");
}

#[test]
fn a_file_with_a_password_is_checked_like_a_file_of_secrets() {
    let files = |text: &str, variables: &[(&str, &str)]| load(text, variables).expect("it holds").secret_files;
    let url = "[store]\nurl = \"postgres://u:secret@127.0.0.1/d\"\n";
    assert_eq!(files(url, &[]), [("store.url".to_owned(), PathBuf::from("my.toml"))]);
    assert!(files("[store]\nurl = \"postgres://u@127.0.0.1/d\"\n", &[]).is_empty(), "it has no password");
    assert!(files("", &[("CALLBACKD_STORE__URL", "postgres://u:secret@127.0.0.1/d")]).is_empty(), "it is in no file");
    let kafka = "[kafka.properties]\n\"sasl.password\" = \"x\"\n\"sasl.username\" = \"y\"\n";
    assert_eq!(files(kafka, &[]), [("kafka.properties.sasl.password".to_owned(), PathBuf::from("my.toml"))]);
}

#[test]
fn a_sqlite_store_may_be_named_by_its_url() {
    let store = |url: &str| load("", &[("CALLBACKD_STORE__URL", url)]).map(|config| (config.store, config.api.socket));
    let (place, socket) = store("sqlite:/data/cb").expect("it holds");
    assert_eq!(place, store::Config::Directory(PathBuf::from("/data/cb")));
    assert_eq!(socket, PathBuf::from("/data/cb/callbackd.sock"), "as with store.path");
    assert!(store("sqlite:").unwrap_err().contains("name a directory"));
}

#[test]
fn lists_in_variables_have_commas_and_brokers_may_name_their_protocol() {
    let variables =
        [("CALLBACKD_DNS__SERVERS", "[::1]:53, 127.0.0.1:53"), ("CALLBACKD_KAFKA__BROKERS", "SSL://a:1,b:2")];
    let config = load("", &variables).expect("it holds");
    assert_eq!(config.exchange.dns.servers.len(), 2);
    assert_eq!(config.intake.brokers, "SSL://a:1,b:2");
}

#[test]
fn the_defaults_alone_are_no_configuration() {
    let given = |file, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Layers::parse(file, variables).expect("it is read").nothing_given().is_none()
    };
    assert!(!given(None, &[]));
    assert!(!given(None, &[("CALLBACKD_API_URL", "http://a")]), "it is no setting");
    assert!(given(Some(("my.toml", "")), &[]));
    assert!(given(None, &[("CALLBACKD_KAFKA__BROKERS", "a:1")]));
}
