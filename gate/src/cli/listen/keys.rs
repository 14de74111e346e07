//! The keys that `listen` verifies with: those that are set, or keys that are made for this run.

use std::ffi::OsString;
use std::sync::Arc;

use base64::engine::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scale_callback_auth::Verifier;
use scale_callback_serve::text::hex;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::arguments::KeyArgs;
use super::super::error::CommandError;
use super::super::output::Output;
use crate::keys::{Change, LiveKeys};

pub(super) enum Keys {
    Given(LiveKeys),
    /// Made for this run.
    Made(Arc<Verifier>),
}

impl Keys {
    pub(super) fn verifier(&self) -> Arc<Verifier> {
        match self {
            Self::Given(keys) => keys.verifier(),
            Self::Made(verifier) => Arc::clone(verifier),
        }
    }

    /// Follows the changes of given keys for as long as the process runs.
    pub(super) fn follow(&self, out: Arc<Output>) {
        let Self::Given(keys) = self else { return };
        let keys = keys.clone();
        tokio::spawn(async move {
            keys.follow(|change| match change {
                Change::Refused(why) => out.tell(
                    || format!("the keys were read again and refused: {why}"),
                    || json!({ "event": "keys_refused", "why": why.to_string() }),
                ),
                _ => out.tell(|| "other keys are in force".to_owned(), || json!({ "event": "keys_changed" })),
            })
            .await;
        });
    }
}

/// The keys that are set; without any, keys for this run, which are printed.
pub(super) fn keys(args: &KeyArgs, print_secret: bool, out: &Output) -> Result<Keys, CommandError> {
    let source = args.source();
    let variables = source.look().map_err(CommandError::refused)?;
    if args.keys_file.is_none() && variables.is_empty() {
        return made(out);
    }
    let keys = LiveKeys::load(source).map_err(CommandError::refused)?;
    if print_secret {
        for (name, value) in variables.shown().map_err(CommandError::refused)? {
            show(out, name, &value, false);
        }
    }
    Ok(Keys::Given(keys))
}

/// Prints a key, because the user asked for it or has to pass it on.
fn show(out: &Output, name: &str, value: &str, is_made: bool) {
    out.tell(
        || format!("export {name}={value}"),
        || json!({ "event": "key", "name": name, "value": value, "made_for_this_run": is_made }),
    );
}

fn made(out: &Output) -> Result<Keys, CommandError> {
    let (mut secret, mut key) = ([0; 32], [0; 16]);
    random(&mut secret)?;
    random(&mut key)?;
    let file: Zeroizing<String> = Zeroizing::new(format!(
        "SCALE_CALLBACK_SIGNING_SECRET=whsec_{}\nSCALE_CALLBACK_AUTH_KEY=live_auth_{}\n",
        STANDARD.encode(secret),
        hex(&key),
    ));
    out.remark(|| "no keys are set: these are made for this run, for `send` in another terminal".to_owned());
    for (name, value) in file.lines().filter_map(|line| line.split_once('=')) {
        show(out, name, value, true);
    }
    let value = |name: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(OsString::from)
    };
    let verifier = Verifier::from_variables(value).map_err(CommandError::failed)?;
    Ok(Keys::Made(Arc::new(verifier)))
}

fn random(bytes: &mut [u8]) -> Result<(), CommandError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(bytes).map_err(|_| CommandError::failed("the system gives no random bytes"))
}
