//! The steps of a start that no room owns.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use crate::base::metrics::{Labels, Metrics};
use crate::config::Config;
use crate::deliver;
use crate::keyring::{Keyring, Place, Sealed};
use crate::model::attempt::Outcome;
use crate::model::dead_letter::Unreadable;
use crate::model::retry::Reason;
use crate::ops::Ops;
use crate::store::admin::KeyRow;
use crate::store::{Begun, EngineStore};

/// The keyring, once the settings that a start can't do without are there.
pub(super) fn keyring(config: &Config) -> anyhow::Result<Arc<Keyring>> {
    anyhow::ensure!(!config.intake.brokers.is_empty(), "kafka.brokers: say where the brokers are, \"host:port\"");
    anyhow::ensure!(
        !config.keyring_file.as_os_str().is_empty(),
        "keyring.file: name the keyring; make one with: callbackd keyring create FILE"
    );
    Ok(Arc::new(Keyring::from_file(&config.keyring_file)?))
}

/// All metrics, with every label that they can have.
pub(super) fn metrics() -> Metrics {
    Metrics::new(&Labels {
        outcomes: Outcome::ALL.iter().map(|outcome| outcome.name()).collect(),
        reasons: Reason::ALL.iter().map(|reason| reason.name()).collect(),
        unreadable: Unreadable::ALL.iter().map(|reason| reason.name()).collect(),
    })
}

/// A keyring that does not open the store's keys is found at the start and not at the first callback.
pub(super) fn check_keyring(keys: &[KeyRow], keyring: &Keyring) -> anyhow::Result<()> {
    for key in keys {
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team: &key.team, kind: key.kind, mode: key.mode, key_id: &key.id };
        keyring
            .open(&sealed, &place)
            .map_err(|error| anyhow!("keyring.file: key {} of team {} can't be opened: {error}", key.id, key.team))?;
    }
    Ok(())
}

/// Registers this instance with the store.
pub(super) async fn register(store: &dyn EngineStore, metrics: &Metrics) -> anyhow::Result<Begun> {
    let begun = store.begin().await.context("register with the store")?;
    if begun.unclean {
        tracing::warn!("the instance before did not end cleanly: what was in flight then may be repeated");
        metrics.repeats_possible_total.with_label_values(&["unclean_stop"]).inc();
    }
    Ok(begun)
}

pub(super) fn delivery_config(config: &Config) -> anyhow::Result<deliver::Config> {
    Ok(deliver::Config {
        exchange: config.exchange.clone(),
        caps: config.caps,
        retry: config.retry,
        lease: config.lease,
        park_after: config.park_after,
        user_agent: config.user_agent.parse().map_err(|_| anyhow!("deliver.contact: it can't be sent in a header"))?,
    })
}

/// Logs that the daemon runs, and where.
pub(super) fn tell(config: &Config, ops: &Ops, ops_address: Option<SocketAddr>, api_address: Option<SocketAddr>) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = ops.store_id(),
        path = %config.store,
        brokers = config.intake.brokers,
        topics = config.intake.topics.join(","),
        api = api_address.map(tracing::field::display),
        ops = ops_address.map(tracing::field::display),
        socket = %config.api.socket.display(),
        "callbackd runs"
    );
}
