//! The customer's keys, from the environment or from one file of the same variables, followed while the process runs.
//! No error and no log line ever quotes a value.

mod error;
mod live;
mod names;
mod source;

pub use error::{Hint, KeysError};
pub use live::{Change, LiveKeys};
pub use source::{KeySource, ModeKeys, Variables};
