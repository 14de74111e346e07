//! A team as delivery sees it: where its callbacks go and how they are authenticated.

use std::sync::Arc;
use std::time::Duration;

pub use scale_callback_auth::Mode;

use super::endpoint::Origin;
use super::retry::RetryPolicy;

/// The form of `scale-callback-auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthForm {
    Key,
    Hmac,
}

impl AuthForm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Hmac => "hmac",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Key, Self::Hmac].into_iter().find(|form| form.name() == name)
    }
}

/// What to do with `http://` URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpPolicy {
    Allow,
    /// Only where the key does not travel.
    HmacOnly,
    Refuse,
}

impl HttpPolicy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::HmacOnly => "hmac-only",
            Self::Refuse => "refuse",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Allow, Self::HmacOnly, Self::Refuse].into_iter().find(|policy| policy.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    pub id: Arc<str>,
    pub name: String,
    pub default_url: Option<String>,
    /// The default for test tasks, where it is another one.
    pub default_url_test: Option<String>,
    /// When not empty: the only origins that this team's callbacks, and so its keys, may go to.
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

/// What a team changes of the retry policy.
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

/// The three kinds of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    CallbackAuth,
    Hmac,
    Signing,
}

impl KeyKind {
    pub const ALL: [Self; 3] = [Self::CallbackAuth, Self::Hmac, Self::Signing];

    pub fn name(self) -> &'static str {
        match self {
            Self::CallbackAuth => "callback-auth",
            Self::Hmac => "hmac",
            Self::Signing => "signing",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A key's life: created (not used yet), active (sent from now on), revoked (used no more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    Created,
    Active,
    Revoked,
}

impl KeyState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Created, Self::Active, Self::Revoked].into_iter().find(|state| state.name() == name)
    }
}

/// `live` or `test`, read.
pub fn parse_mode(name: &str) -> Option<Mode> {
    [Mode::Live, Mode::Test].into_iter().find(|mode| mode.name() == name)
}
