//! A team as delivery sees it: where its callbacks go and how they are authenticated.

use std::sync::Arc;
use std::time::Duration;

pub use scale_callback_auth::Mode;

use super::endpoint::Origin;
use super::retry::RetryPolicy;
use crate::base::named::{Named, named};

named! {
    /// The form of the header `scale-callback-auth`.
    pub enum AuthForm {
        Key = "key",
        Hmac = "hmac",
    }
}

named! {
    /// What to do with `http://` URLs.
    pub enum HttpPolicy {
        Allow = "allow",
        /// Only if the key is not sent.
        HmacOnly = "hmac-only",
        Refuse = "refuse",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    pub id: Arc<str>,
    pub name: String,
    pub default_url: Option<String>,
    /// The default for test tasks, if it differs.
    pub default_url_test: Option<String>,
    /// If not empty, the only origins to which this team's callbacks, and so its keys, may be sent.
    pub allowed_origins: Vec<Origin>,
    pub auth_form: AuthForm,
    /// Origins with a form of their own.
    pub origin_forms: Vec<(Origin, AuthForm)>,
    pub http: Option<HttpPolicy>,
    pub retry: RetryOverride,
}

impl Team {
    pub fn default_url(&self, mode: Mode) -> Option<&str> {
        let test = (mode == Mode::Test).then_some(self.default_url_test.as_deref()).flatten();
        test.or(self.default_url.as_deref()).filter(|url| !url.is_empty())
    }

    pub fn form_for(&self, origin: &Origin) -> AuthForm {
        self.origin_forms.iter().find(|(own, _)| own == origin).map_or(self.auth_form, |(_, form)| *form)
    }

    pub fn allows(&self, origin: &Origin) -> bool {
        self.allowed_origins.is_empty() || self.allowed_origins.contains(origin)
    }
}

/// A team's changes to the retry policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOverride {
    pub retries: Option<u32>,
    pub horizon: Option<Duration>,
    pub end_on_gone: Option<bool>,
}

impl RetryOverride {
    pub fn over(&self, base: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            retries: self.retries.unwrap_or(base.retries),
            horizon: self.horizon.unwrap_or(base.horizon),
            end_on_gone: self.end_on_gone.unwrap_or(base.end_on_gone),
            ..*base
        }
    }
}

named! {
    /// The three kinds of key.
    pub enum KeyKind {
        CallbackAuth = "callback-auth",
        Hmac = "hmac",
        Signing = "signing",
    }
}

named! {
    /// A key's life.
    pub enum KeyState {
        /// Not used yet.
        Created = "created",
        /// Used from now on.
        Active = "active",
        /// Not used any more.
        Revoked = "revoked",
    }
}

impl Named for Mode {
    const ALL: &'static [Self] = &[Self::Live, Self::Test];

    fn name(self) -> &'static str {
        Mode::name(self)
    }
}

/// Reads `live` or `test`.
pub fn parse_mode(name: &str) -> Option<Mode> {
    Named::parse(name)
}
