//! Checks everything that could keep the daemon from its work, before it runs. It joins the checks of all rooms.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use scale_callback_serve::bind::remedy;
use scale_callback_serve::tls::ServerTls;

use super::weaknesses;
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::finding::Finding;
use crate::config::{Config, Layers};
use crate::keyring::Keyring;
use crate::model::retry::{self, RetryPolicy};
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
    found.push(Finding::ok("retries", schedule(&config.retry)));
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

/// What the settings of the section retry make of a callback that always fails. Equal waits are written once, with their number.
fn schedule(policy: &RetryPolicy) -> String {
    let waits = retry::waits(policy);
    let mut written: Vec<(String, usize)> = Vec::new();
    for wait in &waits {
        let text = for_people(*wait);
        match written.last_mut() {
            Some((last, times)) if *last == text => *times += 1,
            _ => written.push((text, 1)),
        }
    }
    let written =
        written.into_iter().map(|(text, times)| if times == 1 { text } else { format!("{times} times {text}") });
    match waits.len() {
        0 => "none: a callback has one attempt".to_owned(),
        count => format!(
            "after {}: at most {} attempts, within {}; each wait is up to {:.0} % shorter, at random",
            written.collect::<Vec<_>>().join(", "),
            count + 1,
            for_people(policy.horizon),
            retry::JITTER * 100.0
        ),
    }
}

/// A time in its two largest units.
fn for_people(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 10 {
        return format!("{} s", time.as_secs_f64());
    }
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let units = if hours > 0 { [(hours, "h"), (minutes, "min")] } else { [(minutes, "min"), (rest, "s")] };
    let given = units.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number} {unit}"));
    given.collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_of_retries_is_told_in_one_line() {
        assert_eq!(
            schedule(&RetryPolicy::default()),
            "after 5 s, 10 s, 20 s, 40 s, 1 min 20 s, 2 min 40 s, 5 min 20 s, 10 min 40 s, 21 min 20 s, 42 min 40 s, 1 h 25 min, \
             9 times 2 h 21 min: at most 21 attempts, within 24 h; each wait is up to 10 % shorter, at random"
        );
        let short = RetryPolicy {
            first: Duration::from_millis(1_500),
            doublings: 4,
            retries: 4,
            horizon: Duration::from_secs(12),
            ..RetryPolicy::default()
        };
        assert_eq!(
            schedule(&short),
            "after 1.5 s, 3 s, 6 s, 1.5 s: at most 5 attempts, within 12 s; each wait is up to 10 % shorter, at random"
        );
        let none = RetryPolicy { retries: 0, ..RetryPolicy::default() };
        assert_eq!(schedule(&none), "none: a callback has one attempt");
    }
}
