//! Why keys cannot be used. Each error names the file, the line or the variable, and never a value.

use std::fmt;
use std::path::PathBuf;

use scale_callback_auth::{EnvError, KeyError};

use super::names::NAMES;

/// Keys that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file of keys cannot be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The file of keys is not UTF-8.
    #[error("{}: it is not UTF-8", .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A line of the file sets none of the variables.
    #[error("{}, line {line}: it is not a line NAME=value with one of {}", .path.display(), NAMES.join(", "))]
    NotAVariable {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The file sets a variable twice.
    #[error("{}, line {line}: {name} is set a second time", .path.display())]
    SetAgain {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The variable.
        name: String,
    },
    /// The verifier refuses a variable.
    #[error("{cause}{hint}")]
    Variable {
        /// What the verifier says.
        cause: EnvError,
        /// The likely mistake.
        hint: Hint,
    },
    /// A key has the wrong form.
    #[error("{name}: {cause}")]
    Key {
        /// The variable.
        name: &'static str,
        /// What is wrong with the key.
        cause: KeyError,
    },
    /// A live key stands in a variable for test keys, or a test key in one for live keys.
    #[error("{name} holds a key of the other mode")]
    OtherMode {
        /// The variable.
        name: &'static str,
    },
    /// A variable is set by itself and as a file.
    #[error("{name} is set, and {name}_FILE as well: set one of them")]
    SetBothWays {
        /// The variable.
        name: String,
    },
    /// The file that a variable names cannot be read.
    #[error("the file that {name}_FILE names can't be read")]
    UnreadableFile {
        /// The variable, without `_FILE`.
        name: String,
    },
    /// A variable holds nothing but white space.
    #[error("{name} is blank")]
    Blank {
        /// The variable.
        name: String,
    },
    /// The callback auth key is needed and not set.
    #[error("SCALE_CALLBACK_AUTH_KEY is not set (nor SCALE_CALLBACK_AUTH_KEY_FILE)")]
    NoAuthKey,
}

/// The mistake that people make most often with a variable that the verifier refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// None of the usual ones.
    None,
    /// The value holds a quotation mark.
    Quote,
    /// The value holds a comma.
    Comma,
    /// Only keys for test callbacks are set.
    TestKeysOnly,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "",
            Self::Quote => " (it holds a quotation mark)",
            Self::Comma => " (it holds a comma; separate keys with white space)",
            Self::TestKeysOnly => " (only keys for test callbacks are set)",
        })
    }
}
