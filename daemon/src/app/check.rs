//! Checks everything that could keep the daemon from its work, before it runs. It joins the checks of all rooms.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use scale_callback_serve::bind::remedy;
use scale_callback_serve::tls::ServerTls;

use super::weaknesses;
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::finding::Finding;
use crate::config::{Config, Layers};
use crate::keyring::Keyring;
use crate::store::admin::KeyRow;
use crate::store::tools;
use crate::{intake, net, publish};

/// Checks everything. It takes seconds and changes nothing.
pub async fn check(layers: &Layers, config: &Config) -> Vec<Finding> {
    let now = SystemClock.now();
    let mut found = vec![match layers.nothing_given() {
        None => Finding::ok("configuration", "it can be read"),
        Some(why) => Finding::warning("configuration", why, "use --config FILE or the variable CALLBACKD_CONFIG"),
    }];
    found.extend(weaknesses::exposed_files(config));
    found.extend(kafka(config).await);
    let looked = tools::check(&config.store, now).await;
    found.extend(looked.findings);
    found.push(keyring(config, &looked.keys));
    found.extend(net::check::check(&config.exchange, config.egress.http, &config.egress.allow).await);
    if looked.in_use {
        found.push(Finding::ok("listeners", "used by the callbackd that runs on this store"));
    } else {
        found.extend(listeners(config));
    }
    found
}

async fn kafka(config: &Config) -> Vec<Finding> {
    if config.intake.brokers.is_empty() {
        let fix = "name the brokers: kafka.brokers = \"host:port\"";
        return vec![Finding::failed("kafka", "kafka.brokers is empty", fix)];
    }
    let mut found = intake::security::check(&config.intake);
    let (intake, horizon, now) = (config.intake.clone(), config.retry.horizon, SystemClock.now());
    let topics = config.topics.clone();
    let look = move || {
        let mut found = intake::check::check(&intake, horizon, now);
        found.extend(publish::check::check(&intake, &topics));
        found
    };
    let looked = tokio::task::spawn_blocking(look).await;
    found.extend(looked.unwrap_or_else(|_| {
        vec![Finding::failed("kafka", "the check panicked", "run the check again, and report the defect")]
    }));
    found
}

fn keyring(config: &Config, keys: &[KeyRow]) -> Finding {
    let what = "keyring";
    let ring = match Keyring::load(&config.keyring) {
        Ok(ring) => ring,
        Err(error) => return Finding::failed(what, error.what(), error.fix()),
    };
    let detail = match ring.ids().len() {
        1 => format!("a sealing key in {}", config.keyring),
        count => format!("{count} sealing keys in {}", config.keyring),
    };
    match super::start::check_keyring(keys, &ring) {
        Ok(()) if keys.is_empty() => Finding::ok(what, detail),
        Ok(()) => Finding::ok(what, format!("{detail}; it opens the store's keys")),
        Err(error) => {
            Finding::failed(what, error.to_string(), "name the keyring that the store's keys were sealed with")
        }
    }
}

fn listeners(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    // Each address is held until all are tried, so that two listeners with the same address are found.
    let mut held = Vec::new();
    for (what, address) in [("ops.listen", config.ops_listen), ("api.listen", config.api.listen)] {
        found.extend(address.map(|address| port(what, address, &mut held)));
    }
    if let Some((cert, key)) = &config.api.tls {
        found.push(match ServerTls::load(cert, key) {
            Ok(_) => Finding::ok("api.tls_cert", format!("{} and its key fit", cert.display())),
            Err(why) => {
                Finding::failed("api.tls_cert", why.to_string(), "name a PEM chain and the key that belongs to it")
            }
        });
    }
    found.push(socket(&config.api.socket));
    found
}

fn port(what: &str, address: SocketAddr, held: &mut Vec<TcpListener>) -> Finding {
    match TcpListener::bind(address) {
        Ok(listener) => {
            held.push(listener);
            Finding::ok(what, format!("{address} is free"))
        }
        Err(error) => Finding::failed(what, format!("{address}: {error}"), remedy(&error)),
    }
}

fn socket(path: &Path) -> Finding {
    let what = "api.socket";
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Finding::failed(what, format!("{} exists and is not a socket", path.display()), "name another path")
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            let fix = "stop that one, or name another path";
            Finding::failed(what, format!("a program listens at {}", path.display()), fix)
        }
        _ => Finding::ok(what, format!("{} is free", path.display())),
    }
}
