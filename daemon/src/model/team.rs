//! A team as delivery sees it: where its callbacks go and how they are authenticated.

use std::sync::Arc;
use std::time::Duration;

pub use scale_callback_auth::Mode;

use super::endpoint::Origin;
use super::retry::RetryPolicy;
use crate::base::clock::Timestamp;
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

impl HttpPolicy {
    /// The stricter of two policies.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        if self.is_looser_than(other) { other } else { self }
    }

    /// Whether it allows something that `other` refuses. [`Self::ALL`] goes from the loosest to the strictest.
    pub fn is_looser_than(self, other: Self) -> bool {
        (self as u8) < other as u8
    }

    /// Whether a callback in this form of the auth header may be sent to an `http://` URL.
    pub fn allows(self, form: AuthForm) -> bool {
        match self {
            Self::Allow => true,
            Self::HmacOnly => form == AuthForm::Hmac,
            Self::Refuse => false,
        }
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
    /// Its id is never used again. Nothing is sent for it any more, and its history stays for its time.
    pub deleted_at: Option<Timestamp>,
}

impl Team {
    pub fn default_url(&self, mode: Mode) -> Option<&str> {
        let test = (mode == Mode::Test).then_some(self.default_url_test.as_deref()).flatten();
        test.or(self.default_url.as_deref()).filter(|url| !url.is_empty())
    }

    pub fn form_for(&self, origin: &Origin) -> AuthForm {
        self.origin_forms.iter().find(|(own, _)| own == origin).map_or(self.auth_form, |(_, form)| *form)
    }

    /// What holds for `http://` URLs: the stricter of the installation's policy and the team's own. The installation's may
    /// have become stricter after the team's was set.
    pub fn http_policy(&self, installation: HttpPolicy) -> HttpPolicy {
        self.http.map_or(installation, |own| own.stricter(installation))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> impl Strategy<Value = HttpPolicy> {
        prop::sample::select(HttpPolicy::ALL)
    }

    proptest! {
        #[test]
        fn a_team_is_never_looser_than_the_installation(installation in policy(), own in prop::option::of(policy())) {
            let team = Team { http: own, ..team() };
            let holds = team.http_policy(installation);
            for form in [AuthForm::Key, AuthForm::Hmac] {
                let both = installation.allows(form) && own.is_none_or(|own| own.allows(form));
                prop_assert_eq!(holds.allows(form), both, "{:?} {:?} {:?}", installation, own, form);
            }
        }

        #[test]
        fn looser_means_that_something_more_is_allowed(a in policy(), b in policy()) {
            let more = [AuthForm::Key, AuthForm::Hmac].into_iter().any(|form| a.allows(form) && !b.allows(form));
            prop_assert_eq!(a.is_looser_than(b), more);
            prop_assert_eq!(a.stricter(b), b.stricter(a));
        }
    }

    fn team() -> Team {
        Team {
            id: "team_a".into(),
            name: "A".to_owned(),
            default_url: None,
            default_url_test: None,
            allowed_origins: Vec::new(),
            auth_form: AuthForm::Key,
            origin_forms: Vec::new(),
            http: None,
            retry: RetryOverride::default(),
            deleted_at: None,
        }
    }
}
