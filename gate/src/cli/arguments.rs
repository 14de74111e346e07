//! Arguments that several commands share.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use scale_callback_auth::Mode;
use scale_callback_serve::client::check_ca_file;
use scale_callback_serve::text::duration;

use super::error::{ArgumentError, CommandError};
use crate::keys::KeySource;
use crate::receiver_at::ReceiverAt;

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Where the keys are.
#[derive(Debug, Clone, Args)]
pub(super) struct KeyArgs {
    /// A file with a line NAME=value for each variable below. Without it, they are read from the environment.
    #[arg(long, value_name = "FILE")]
    pub(super) keys_file: Option<PathBuf>,
}

impl KeyArgs {
    pub(super) fn source(&self) -> KeySource {
        KeySource { file: self.keys_file.clone(), static_key: false }
    }
}

/// Live or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    Live,
    Test,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Live => Self::Live,
            ModeArg::Test => Self::Test,
        }
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, ArgumentError> {
    text.parse().map_err(|_| ArgumentError::Address)
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, ArgumentError> {
    duration(text).ok_or(ArgumentError::Duration)
}

/// Reads a number from `LEAST` to `MOST`.
pub(super) fn number<N: TryFrom<u64>, const LEAST: u64, const MOST: u64>(text: &str) -> Result<N, ArgumentError> {
    let number = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    let wrong = if MOST == u64::MAX { ArgumentError::AtLeast(LEAST) } else { ArgumentError::Between(LEAST, MOST) };
    number.and_then(|number| N::try_from(number).ok()).ok_or(wrong)
}

/// A receiver to call. Certificate authorities that cannot be used are reported before anything is sent.
pub(super) fn receiver_at(url: &str, ca_file: Option<&PathBuf>) -> Result<ReceiverAt, CommandError> {
    check_ca_file(ca_file.map(PathBuf::as_path)).map_err(|why| CommandError::refused(format!("--ca-file {why}")))?;
    ReceiverAt::parse(url, ca_file.cloned()).map_err(CommandError::refused)
}

/// The bytes of a file that an option names.
pub(super) fn read(option: &str, path: &Path) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| CommandError::refused(format!("{option} {}: {error}", path.display())))?;
    Ok(bytes)
}
