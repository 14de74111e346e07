//! From files and variables to a checked configuration. The commented `config/callbackd.toml` is compiled in. It is the
//! list of what there is: a key that is not in it is refused, with file and line.

mod explain;
mod hints;
mod layers;
mod raw;
mod rules;
mod secrets;
mod sections;
mod settings;
mod size;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use explain::explain;
pub use layers::{ConfigError, Layers, ValueSource};
pub use settings::is_reloadable;

use crate::base::telemetry;
use crate::deliver::space_watch::SpaceLimits;
use crate::intake;
use crate::keyring;
use crate::model::retry::RetryPolicy;
use crate::model::team::HttpPolicy;
use crate::net::egress::{AllowRule, Net};
use crate::net::exchange;
use crate::publish::Topics;
use crate::schedule::Caps;
use crate::store;
use raw::Raw;

/// The complete, commented configuration that is compiled in.
pub const DEFAULTS: &str = include_str!("../../../config/callbackd.toml");

/// Makes a sentence about a key, with where its value came from.
type Wrong<'w> = dyn Fn(&str, &str) -> ConfigError + 'w;

#[derive(Debug, Clone)]
pub struct Config {
    pub intake: intake::Config,
    pub store: store::Config,
    pub store_options: store::Options,
    pub space: SpaceLimits,
    /// Where outcomes and dead letters are published.
    pub topics: Topics,
    /// Bytes of bodies in memory.
    pub body_budget: usize,
    pub caps: Caps,
    pub park_after: Duration,
    pub lease: Duration,
    pub user_agent: String,
    pub exchange: exchange::Config,
    pub retry: RetryPolicy,
    pub egress: Egress,
    pub keyring: keyring::Source,
    /// Files that hold a secret, with the settings that name them. The keyring is not among them: it checks its own file.
    pub secret_files: Vec<(String, PathBuf)>,
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

    /// Checks what only a running daemon needs: a keyring, and brokers.
    ///
    /// # Errors
    /// One sentence that names the key.
    pub fn check_runnable(&self) -> Result<(), ConfigError> {
        if self.intake.brokers.is_empty() {
            return Err(ConfigError::new("kafka.brokers: say where the brokers are, \"host:port\""));
        }
        if !self.keyring.is_set() {
            return Err(ConfigError::new(&keyring::KeyringError::Unset.to_string()));
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
        let mut config = sections::build(&raw, &wrong)?;
        if let Some(text) = layers.keyring() {
            if config.keyring.is_set() {
                let why = format!("the variable {} is set as well: set only one of them", keyring::VARIABLE);
                return Err(wrong("keyring.file", &why));
            }
            config.keyring = keyring::Source::Text(text.clone());
        }
        config.secret_files.extend(layers.secrets_in_files());
        rules::check(&config, &wrong)?;
        Ok(config)
    }
}
