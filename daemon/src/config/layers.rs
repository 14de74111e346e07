//! The layers of a configuration, which are merged, and where each value came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::raw::Raw;
use super::settings::{ALLOW_KEYS, KAFKA_PROPERTIES, KAFKA_PROPERTY_FILES, SQLITE, STORE_URL, is_free_table, paths};
use super::{DEFAULTS, hints, secrets};
use crate::keyring;

/// One sentence about one mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(sentence: &str) -> Self {
        Self(sentence.to_owned())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    Default,
    /// File and line.
    File(String, usize),
    Variable(String),
}

impl std::fmt::Display for ValueSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, line) => write!(f, "{file}, line {line}"),
            Self::Variable(name) => write!(f, "variable {name}"),
        }
    }
}

/// All layers, merged.
pub struct Layers {
    merged: toml::Table,
    sources: BTreeMap<String, ValueSource>,
    has_file: bool,
    /// The text of the keyring, if a variable holds it.
    keyring: Option<SecretString>,
}

impl Layers {
    /// Reads the defaults, a file, and variables.
    ///
    /// # Errors
    /// One sentence.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        match file {
            None => Self::parse(None, variables),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ConfigError(format!(
                        "the configuration file {name} can't be read: {error}; see --config and the variable CALLBACKD_CONFIG"
                    ))
                })?;
                Self::parse(Some((&name, &text)), variables)
            }
        }
    }

    pub(super) fn parse(
        file: Option<(&str, &str)>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let merged = DEFAULTS.parse().map_err(|error| ConfigError(format!("the compiled-in defaults: {error}")))?;
        let mut layers = Self { merged, sources: BTreeMap::new(), has_file: file.is_some(), keyring: None };
        if let Some((name, text)) = file {
            layers.add_file(name, text)?;
        }
        let ours = |name: &OsString| name.to_str().filter(|name| name.starts_with("CALLBACKD_")).map(str::to_owned);
        let mut variables: Vec<_> =
            variables.filter_map(|(name, value)| ours(&name).map(|name| (name, value))).collect();
        variables.sort();
        for (name, value) in variables {
            let text = value.to_str().ok_or_else(|| ConfigError(format!("variable {name}: its value is not UTF-8")))?;
            layers.add_variable(&name, text)?;
        }
        Ok(layers)
    }

    fn add_file(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| text[..offset.min(text.len())].bytes().filter(|b| *b == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            ConfigError(format!("{name}, line {line}: it is not TOML: {}", error.message().replace('\n', " ")))
        })?;
        let mut found = Vec::new();
        collect_keys(table.get_ref(), "", &mut |key, offset| {
            found.push((key, ValueSource::File(name.to_owned(), line_of(offset))));
        });
        for (key, source) in &found {
            if !self.knows(key) {
                return Err(ConfigError(format!("{source}: {key}: {}", hints::no_such_key(key))));
            }
        }
        self.sources.extend(found);
        let mut values: toml::Table = text.parse().map_err(|error| ConfigError(format!("{name}: {error}")))?;
        if let Some(directory) = Path::new(name).parent() {
            paths_from(&mut values, directory);
        }
        merge(&mut self.merged, values, "");
        Ok(())
    }

    fn add_variable(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        if name == keyring::VARIABLE {
            self.keyring = Some(text.into());
            return Ok(());
        }
        // Variables without a section, such as CALLBACKD_API_URL, are no settings.
        let Some((section, key)) = name.trim_start_matches("CALLBACKD_").split_once("__") else {
            return match hints::almost_a_variable(name) {
                Some(right) => {
                    Err(ConfigError(format!("variable {name}: write {right}, with two underscores after the section")))
                }
                None => Ok(()),
            };
        };
        let (section, key) = (section.to_lowercase(), key.to_lowercase());
        let path = format!("{section}.{key}");
        let source = ValueSource::Variable(name.to_owned());
        let Some(default) = self.merged.get(&section).and_then(|table| table.get(&key)).cloned() else {
            return Err(ConfigError(format!("{source}: {path}: {}", hints::no_such_variable(&path))));
        };
        let value = variable_value(&default, text)
            .ok_or_else(|| ConfigError(format!("{source}: {path}: {}", hints::wrong_text(&default, text))))?;
        if let Some(Value::Table(table)) = self.merged.get_mut(&section) {
            table.insert(key, value);
        }
        self.sources.insert(path, source);
        Ok(())
    }

    fn knows(&self, key: &str) -> bool {
        let free = [KAFKA_PROPERTIES, KAFKA_PROPERTY_FILES];
        if free.iter().any(|free| key.strip_prefix(free).is_some_and(|rest| rest.starts_with('.'))) {
            return true;
        }
        if let Some(inner) = key.strip_prefix("egress.allow.") {
            return ALLOW_KEYS.contains(&inner);
        }
        let mut at: Option<&Value> = None;
        for part in key.split('.') {
            at = match at {
                None => self.merged.get(part),
                Some(value) => value.get(part),
            };
            if at.is_none() {
                return false;
            }
        }
        true
    }

    pub(super) fn decode(&self) -> Result<Raw, ConfigError> {
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(self.merged.clone(), &mut track);
        Raw::deserialize(tracked).map_err(|error| {
            let key: String = track.path().to_string();
            let key = key.split('[').next().unwrap_or_default().to_owned();
            // Its value may be a password.
            if key.starts_with(KAFKA_PROPERTIES) && key != KAFKA_PROPERTIES {
                return self.error_at(&key, "every property is a text; write its value in quotes");
            }
            match self.wrong_type(&key) {
                Some(why) => self.error_at(&key, &why),
                None => self.error_at(&key, error.message().trim()),
            }
        })
    }

    /// A sentence about a value of another type than its default.
    fn wrong_type(&self, key: &str) -> Option<String> {
        if let Some(given) = self.merged.get("egress").and_then(|egress| egress.get("allow"))
            && key == "egress.allow"
        {
            return hints::wrong_rule(given);
        }
        let defaults: toml::Table = DEFAULTS.parse().ok()?;
        let (section, name) = key.split_once('.')?;
        let value = |table: &toml::Table| table.get(section)?.get(name).cloned();
        hints::wrong_type(&value(&defaults)?, &value(&self.merged)?)
    }

    /// A sentence about a key, with where its value came from.
    pub fn error_at(&self, key: &str, why: &str) -> ConfigError {
        match self.source(key) {
            ValueSource::Default => ConfigError(format!("{key}: {why}")),
            source => ConfigError(format!("{source}: {key}: {why}")),
        }
    }

    /// Says so if there are the defaults alone: neither a file nor a variable was given.
    pub fn nothing_given(&self) -> Option<&'static str> {
        let is_given = self.has_file || self.keyring.is_some() || !self.sources.is_empty();
        (!is_given).then_some("no configuration file is named, so only the defaults hold")
    }

    /// The text of the keyring, if a variable holds it.
    pub(super) fn keyring(&self) -> Option<&SecretString> {
        self.keyring.as_ref()
    }

    pub fn source(&self, key: &str) -> ValueSource {
        self.sources.get(key).cloned().unwrap_or(ValueSource::Default)
    }

    /// Keys whose values differ in `other`.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        for (section, table) in &other.merged {
            let Value::Table(table) = table else { continue };
            for (key, value) in table {
                if self.merged.get(section).and_then(|table| table.get(key)) != Some(value) {
                    changed.push(format!("{section}.{key}"));
                }
            }
        }
        changed
    }

    /// Takes `keys` over from `other`.
    pub fn take(&mut self, other: &Self, keys: &[String]) {
        for path in keys {
            let Some((section, key)) = path.split_once('.') else { continue };
            let value = other.merged.get(section).and_then(|table| table.get(key));
            if let (Some(Value::Table(table)), Some(value)) = (self.merged.get_mut(section), value) {
                table.insert(key.to_owned(), value.clone());
            }
        }
    }

    /// The settings with a password whose value stands in a file, with the file.
    pub(super) fn secrets_in_files(&self) -> Vec<(String, PathBuf)> {
        let in_file = |path: &str| match self.source(path) {
            ValueSource::File(file, _) => Some((path.to_owned(), PathBuf::from(file))),
            _ => None,
        };
        let value = |section: &str, key: &str| self.merged.get(section).and_then(|table| table.get(key));
        let url = value("store", "url").filter(|value| secrets::has_password(value)).and(in_file(STORE_URL));
        let properties = value("kafka", "properties").and_then(Value::as_table).into_iter().flatten();
        let secret = properties.filter(|(name, _)| secrets::is_secret_property(name));
        url.into_iter().chain(secret.filter_map(|(name, _)| in_file(&format!("{KAFKA_PROPERTIES}.{name}")))).collect()
    }

    /// Every key with its value as TOML, and where that came from. A value that may be secret is not shown.
    pub fn values(&self) -> Vec<(String, String, ValueSource)> {
        let mut values = Vec::new();
        for (section, table) in &self.merged {
            let Value::Table(table) = table else { continue };
            for (key, value) in table {
                let path = format!("{section}.{key}");
                let source = self.source(&path);
                let shown = match path.as_str() {
                    KAFKA_PROPERTIES => secrets::redacted(value),
                    STORE_URL => secrets::without_password(value),
                    _ => value.to_string(),
                };
                values.push((path, shown, source));
            }
        }
        values
    }
}

fn variable_value(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Table(_) => {
            let object: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
            Some(Value::Table(object.into_iter().map(|(key, value)| (key, Value::String(value))).collect()))
        }
        Value::Array(_) if hints::bracketed(text).is_some() => None,
        Value::Array(_) => {
            let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            Some(Value::Array(items.into_iter().map(|item| Value::String(item.to_owned())).collect()))
        }
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Float(_) | Value::Datetime(_) => None,
    }
}

/// Makes relative paths start at `directory`, wherever the program was started.
fn paths_from(values: &mut toml::Table, directory: &Path) {
    let absolute = |value: &mut Value| {
        if let Value::String(text) = value
            && !text.is_empty()
        {
            *text = directory.join(&*text).display().to_string();
        }
    };
    if let Some(Value::String(url)) = values.get_mut("store").and_then(|table| table.get_mut("url"))
        && let Some(path) = url.strip_prefix(SQLITE).filter(|path| !path.is_empty())
    {
        *url = format!("{SQLITE}{}", directory.join(path).display());
    }
    for (section, key) in paths().filter_map(|path| path.split_once('.')) {
        if let Some(value) = values.get_mut(section).and_then(|table| table.get_mut(key)) {
            absolute(value);
        }
    }
    let files = values.get_mut("kafka").and_then(|kafka| kafka.get_mut("property_files"));
    if let Some(Value::Table(files)) = files {
        files.iter_mut().for_each(|(_, value)| absolute(value));
    }
}

fn collect_keys(table: &DeTable<'_>, prefix: &str, note: &mut impl FnMut(String, usize)) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        note(path.clone(), key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => collect_keys(inner, &path, note),
            DeValue::Array(items) => {
                for item in items {
                    if let DeValue::Table(inner) = item.get_ref() {
                        collect_keys(inner, &path, note);
                    }
                }
            }
            _ => {}
        }
    }
}

fn merge(into: &mut toml::Table, from: toml::Table, prefix: &str) {
    for (key, value) in from {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if !is_free_table(&path) => merge(old, new, &path),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
