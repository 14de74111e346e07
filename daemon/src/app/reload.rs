//! What a running daemon takes of a changed configuration: everything of it, or nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use scale_callback::tls::ServerTls;
use tokio::sync::watch;

use super::egress;
use crate::base::telemetry::{LogLevel, check_level};
use crate::config::Config;
use crate::deliver::Engine;
use crate::deliver::directory::Directory;
use crate::ops::Settings;
use crate::ops::retention::Retention;
use crate::schedule::Lanes;

/// The parts that can be turned while they run.
pub(super) struct Live {
    pub(super) engine: Arc<Engine>,
    pub(super) directory: Arc<Directory>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) settings: watch::Sender<Settings>,
    pub(super) log_level: LogLevel,
    /// The level that the configuration named last.
    pub(super) level: Mutex<String>,
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Our own listeners.
    pub(super) ours: Vec<SocketAddr>,
}

impl Live {
    pub(super) async fn take(&self, config: &Config) -> Result<(), String> {
        // What may fail comes first, so that a mistake changes nothing.
        check_level(&config.log.level)?;
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|why| format!("api.tls_cert: {why}"))?;
        }
        // What was ours is still: the brokers that are read from stay refused, whatever the file says by now.
        let mut policy = egress::policy(config, &self.ours).await;
        policy.never.extend_from_slice(&self.engine.client.policy().never);
        policy.never.sort_unstable();
        policy.never.dedup();
        self.engine.client.set_policy(policy);
        self.directory.set_retry(config.retry);
        self.lanes.set_caps(config.caps);
        self.settings.send_replace(settings(config));
        // A level that was turned by hand stays, unless the file has another one than it had.
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if *level != config.log.level {
            self.log_level.set(&config.log.level)?;
            level.clone_from(&config.log.level);
        }
        Ok(())
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    let kept = &config.retention;
    Settings {
        keep: Retention { settled: kept.settled, dead_letters: kept.dead_letters, event_ids: kept.event_ids },
        hosts: config.api.hosts.clone(),
    }
}
