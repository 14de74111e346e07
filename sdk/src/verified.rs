//! The result of a successful verification. Only this crate can make one.

use crate::{Callback, Mode, ParseError};

/// A body that is known to come from the platform. Only a [`Verifier`](crate::Verifier) can make one.
///
/// ```compile_fail
/// let forged = scale_callback_auth::Verified { id: "cb_1", body: b"{}" };
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Verified<'b> {
    body: &'b [u8],
    facts: VerifiedFacts,
}

/// What a verification found out, without the body: adapters keep it beside a body that they own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifiedFacts {
    pub(crate) id: [u8; 64],
    pub(crate) id_len: usize,
    pub(crate) timestamp: u64,
    pub(crate) mode: Mode,
    /// The index of the credential that accepted the request.
    pub(crate) credential: usize,
}

impl<'b> Verified<'b> {
    pub(crate) fn new(body: &'b [u8], facts: VerifiedFacts) -> Self {
        Self { body, facts }
    }

    pub(crate) fn facts(&self) -> &VerifiedFacts {
        &self.facts
    }

    /// The bytes that were verified.
    #[must_use]
    pub fn body(&self) -> &'b [u8] {
        self.body
    }

    /// `webhook-id`, which is the same for every attempt of one callback.
    #[must_use]
    pub fn id(&self) -> &str {
        core::str::from_utf8(&self.facts.id[..self.facts.id_len]).expect("an id is ASCII")
    }

    /// `webhook-timestamp`: when this attempt was made, in unix seconds.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.facts.timestamp
    }

    /// The mode, live or test, of the credential that accepted the request.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.facts.mode
    }

    /// Reads the body as a callback. The task and its response stay raw JSON.
    ///
    /// # Errors
    /// [`ParseError`]: answer 400.
    pub fn callback(&self) -> Result<Callback<'b>, ParseError> {
        Callback::read(self.body)
    }
}
