//! Applies a changed configuration to a running daemon: all of it, or nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use scale_callback_serve::tls::ServerTls;
use tokio::sync::watch;

use super::egress;
use super::listeners::Listeners;
use crate::base::telemetry::{LogLevel, check_level};
use crate::config::Config;
use crate::deliver::Delivery;
use crate::ops::Settings;
use crate::ops::retention::Retention;

/// The parts that can be changed while they run.
pub(super) struct Live {
    delivery: Delivery,
    settings: watch::Sender<Settings>,
    log_level: LogLevel,
    /// The level that the configuration named last.
    level: Mutex<String>,
    tls: Option<Arc<ServerTls>>,
    /// Our own listeners.
    ours: Vec<SocketAddr>,
}

impl Live {
    pub(super) fn new(
        config: &Config,
        delivery: Delivery,
        settings: watch::Sender<Settings>,
        log_level: LogLevel,
        listeners: &Listeners,
    ) -> Self {
        let (level, tls, ours) = (config.log.level.clone(), listeners.tls.clone(), listeners.ours.clone());
        Self { delivery, settings, log_level, level: Mutex::new(level), tls, ours }
    }

    pub(super) async fn take(&self, config: &Config) -> Result<(), String> {
        // The steps that can fail come first, so that a mistake changes nothing.
        check_level(&config.log.level)?;
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|why| format!("api.tls_cert: {why}"))?;
        }
        // The brokers in use stay refused, even if the file names others now.
        let mut policy = egress::policy(config, &self.ours).await;
        policy.never.extend_from_slice(&self.delivery.engine.client.policy().never);
        policy.never.sort_unstable();
        policy.never.dedup();
        self.warn_of_ends(config);
        self.delivery.engine.client.set_policy(policy);
        self.delivery.directory.set_retry(config.retry);
        self.delivery.lanes.set_caps(config.caps);
        self.settings.send_replace(settings(config));
        // A level that was set by hand stays, unless the file now names another level than before.
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if *level != config.log.level {
            self.log_level.set(&config.log.level)?;
            level.clone_from(&config.log.level);
        }
        Ok(())
    }
}

impl Live {
    /// A reload asks nobody, so it says in the log that it may end callbacks.
    fn warn_of_ends(&self, config: &Config) {
        if config.retry.retries < self.delivery.directory.retry().retries {
            tracing::warn!("retry.retries is lower now: callbacks without a retry left end at their next failure");
        }
        if self.delivery.engine.client.policy().http.is_looser_than(config.egress.http) {
            tracing::warn!(
                "egress.http is stricter now: callbacks to http URLs that it refuses end at their next attempt"
            );
        }
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    let kept = &config.retention;
    Settings {
        keep: Retention { settled: kept.settled, dead_letters: kept.dead_letters, event_ids: kept.event_ids },
        hosts: config.api.hosts.clone(),
    }
}
