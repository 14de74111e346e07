//! Every setting, with what is special about it. The values and their comments are in `config/callbackd.toml`; a test
//! holds that both name the same keys, and that the comments say of each key whether a reload takes it.

/// When a change of a setting is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// At a reload, by the running daemon.
    AtReload,
    AtStart,
}

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Value,
    /// A path. In a file, a relative one starts at that file's directory.
    Path,
    /// A table whose keys are the operator's.
    FreeTable,
}

struct Setting {
    key: &'static str,
    taken: Taken,
    holds: Holds,
}

const fn at_start(key: &'static str) -> Setting {
    Setting { key, taken: Taken::AtStart, holds: Holds::Value }
}

const fn at_reload(key: &'static str) -> Setting {
    Setting { key, taken: Taken::AtReload, holds: Holds::Value }
}

const fn path(key: &'static str) -> Setting {
    Setting { key, taken: Taken::AtStart, holds: Holds::Path }
}

const fn free_table(key: &'static str) -> Setting {
    Setting { key, taken: Taken::AtStart, holds: Holds::FreeTable }
}

/// Property names and their values; some values are passwords.
pub(super) const KAFKA_PROPERTIES: &str = "kafka.properties";
/// Property names and the files of their values.
pub(super) const KAFKA_PROPERTY_FILES: &str = "kafka.property_files";

/// What a URL of a SQLite store begins with. A directory follows.
pub(super) const SQLITE: &str = "sqlite:";

/// It may contain a password.
pub(super) const STORE_URL: &str = "store.url";

const SETTINGS: &[Setting] = &[
    at_start("kafka.brokers"),
    at_start("kafka.group"),
    at_start("kafka.topics"),
    free_table(KAFKA_PROPERTIES),
    free_table(KAFKA_PROPERTY_FILES),
    at_start("intake.max_event"),
    at_start("intake.body_budget"),
    at_start("intake.window"),
    at_start("intake.tombstones"),
    at_start("intake.rebalance_grace"),
    at_start("instance.name"),
    at_start(STORE_URL),
    path("store.path"),
    at_start("store.migrate"),
    at_start("store.parked_bytes"),
    at_start("store.parked_bytes_of_queue"),
    at_start("store.pending_rows"),
    at_start("store.free_bytes"),
    at_start("store.dead_letter_bytes"),
    at_start("store.dead_letter_bytes_of_topic"),
    at_start("store.bodies"),
    at_start("store.kept_bytes"),
    at_start("outcomes.topic"),
    at_start("outcomes.dead_letters_topic"),
    at_start("outcomes.backlog"),
    at_reload("deliver.fast"),
    at_reload("deliver.slow"),
    at_reload("deliver.settling"),
    at_reload("deliver.per_endpoint"),
    at_reload("deliver.per_origin"),
    at_reload("deliver.per_team_percent"),
    at_start("deliver.park_after"),
    at_start("deliver.dns_timeout"),
    at_start("deliver.connect_timeout"),
    at_start("deliver.tls_timeout"),
    at_start("deliver.head_timeout"),
    at_start("deliver.total_timeout"),
    at_start("deliver.lease"),
    at_start("deliver.contact"),
    at_start("deliver.http2"),
    at_reload("retry.first"),
    at_reload("retry.doublings"),
    at_reload("retry.retries"),
    at_reload("retry.horizon"),
    at_reload("retry.end_on_gone"),
    at_reload("egress.http"),
    path("egress.ca_file"),
    at_reload("egress.nat64"),
    at_reload("egress.allow"),
    at_start("dns.servers"),
    at_start("dns.cache_entries"),
    path("keyring.file"),
    path("api.socket"),
    at_start("api.listen"),
    path("api.tls_cert"),
    path("api.tls_key"),
    at_start("api.behind_tls_proxy"),
    at_reload("api.hosts"),
    at_start("ops.listen"),
    at_start("log.format"),
    at_reload("log.level"),
    at_start("shutdown.grace"),
    at_reload("retention.settled"),
    at_reload("retention.dead_letters"),
    at_reload("retention.event_ids"),
];

/// The keys of an `[[egress.allow]]` table, which the defaults show only in a comment.
pub(super) const ALLOW_KEYS: [&str; 4] = ["net", "host", "ports", "teams"];

/// Whether a running daemon takes a change of this key when it reads its configuration again.
pub fn is_reloadable(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key && setting.taken == Taken::AtReload)
}

/// Every key, as `section.key`.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

/// The keys that hold paths.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter(|setting| setting.holds == Holds::Path).map(|setting| setting.key)
}

/// Whether this key is a table whose keys are the operator's.
pub(super) fn is_free_table(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key && setting.holds == Holds::FreeTable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::DEFAULTS;
    use super::super::explain::comment;
    use super::*;

    #[test]
    fn the_table_names_every_key_of_the_defaults_and_no_other() {
        let defaults: toml::Table = DEFAULTS.parse().expect("the defaults are TOML");
        let mut keys = BTreeSet::new();
        for (section, table) in &defaults {
            let table = table.as_table().expect("a section is a table");
            keys.extend(table.keys().map(|key| format!("{section}.{key}")));
        }
        let settings: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(settings, keys);
        assert_eq!(settings.len(), SETTINGS.len(), "a key occurs twice");
    }

    #[test]
    fn the_comments_say_what_a_reload_takes() {
        let marked = |name: &str| comment(name).is_some_and(|text| text.contains("(SIGHUP)"));
        for setting in SETTINGS {
            let section = setting.key.split_once('.').expect("section and key").0;
            // The section's comment names its one exception.
            let said = marked(setting.key) || (marked(section) && setting.key != "egress.ca_file");
            assert_eq!(said, is_reloadable(setting.key), "{}", setting.key);
        }
        assert!(!is_reloadable("nonsense.key"));
    }
}
