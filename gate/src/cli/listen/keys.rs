//! The keys that `listen` verifies with: those that are set, or keys that are made for this run.

use std::ffi::OsString;
use std::sync::Arc;

use base64::engine::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scale_callback_auth::Verifier;
use scale_callback_serve::text::hex;
use zeroize::Zeroizing;

use super::super::arguments::KeyArgs;
use super::super::error::CommandError;
use super::super::output::say;
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
    pub(super) fn follow(&self) {
        let Self::Given(keys) = self else { return };
        let keys = keys.clone();
        tokio::spawn(async move {
            keys.follow(|change| match change {
                Change::Refused(why) => say(&format!("the keys were read again and refused: {why}")),
                _ => say("other keys are in force"),
            })
            .await;
        });
    }
}

/// The keys that are set; without any, keys for this run, which are printed.
pub(super) fn keys(args: &KeyArgs, print_secret: bool) -> Result<Keys, CommandError> {
    let source = args.source();
    let variables = source.look().map_err(CommandError::refused)?;
    if args.keys_file.is_none() && variables.is_empty() {
        return made();
    }
    let keys = LiveKeys::load(source).map_err(CommandError::refused)?;
    if print_secret {
        for (name, value) in variables.shown().map_err(CommandError::refused)? {
            say(&format!("export {name}={}", value.as_str()));
        }
    }
    Ok(Keys::Given(keys))
}

fn made() -> Result<Keys, CommandError> {
    let (mut secret, mut key) = ([0; 32], [0; 16]);
    random(&mut secret)?;
    random(&mut key)?;
    let file: Zeroizing<String> = Zeroizing::new(format!(
        "SCALE_CALLBACK_SIGNING_SECRET=whsec_{}\nSCALE_CALLBACK_AUTH_KEY=live_auth_{}\n",
        STANDARD.encode(secret),
        hex(&key),
    ));
    say("no keys are set: these are made for this run, for `send` in another terminal");
    for line in file.lines() {
        say(&format!("export {line}"));
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
