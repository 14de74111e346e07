//! Which values may be secret, and how settings with such values are shown.

use toml::Value;

use super::settings::SQLITE;
use crate::store::PostgresUrl;

/// Shows a store's URL as far as it can be read.
pub(super) fn without_password(value: &Value) -> String {
    match value.as_str() {
        Some(url) if url.is_empty() || url.starts_with(SQLITE) => value.to_string(),
        Some(url) => match url.parse::<PostgresUrl>() {
            Ok(url) => format!("{:?}", url.to_string()),
            Err(_) => "(not shown)".to_owned(),
        },
        None => "(not shown)".to_owned(),
    }
}

/// Whether a store's URL has a password.
pub(super) fn has_password(value: &Value) -> bool {
    value.as_str().and_then(|url| url.parse::<PostgresUrl>().ok()).is_some_and(|url| url.has_password())
}

/// Shows property names, but no value that may be a secret.
pub(super) fn redacted(value: &Value) -> String {
    let Value::Table(table) = value else { return "{}".to_owned() };
    let shown = |(name, value): (&String, &Value)| {
        if may_be_secret(name) { format!("{name:?} = (not shown)") } else { format!("{name:?} = {value}") }
    };
    let entries: Vec<_> = table.iter().map(shown).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// Whether the value of a property of the Kafka client may be a secret.
fn may_be_secret(name: &str) -> bool {
    ["password", "secret", "key", "token", "config"].iter().any(|part| name.contains(part))
}

/// Whether the value of a property is a secret, and no path of a file with one.
pub(super) fn is_secret_property(name: &str) -> bool {
    may_be_secret(name) && !name.ends_with(".location") && !name.ends_with(".keytab")
}
