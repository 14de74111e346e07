//! The request of an attempt, rebuilt from the settings that it was sent with. No secret is in it: signatures and keys are
//! masked.

use std::collections::{HashMap, HashSet};

use scale_callback_auth::header;

use super::{OpsError, Session, policy};
use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::callback::CallbackId;
use crate::model::sent_with::SentWith;
use crate::model::settlement::{Ended, NumberedAttempt, Rows, Settled};
use crate::model::team::AuthForm;
use crate::net::target::{Target, without_userinfo};
use crate::store::admin::KeyRow;

/// In the place of what is not shown.
const MASKED: &str = "[masked]";

/// What was sent, as far as it is known and its caller may see it.
#[derive(Debug)]
pub struct SentRequest {
    /// `None` for a task's own URL of which no row has the text any more: it stands in the body.
    pub url: Option<String>,
    /// It went to the team's default URL, not to one of the task's own.
    pub follows_default: bool,
    pub form: AuthForm,
    pub signing_keys: Vec<String>,
    pub auth_keys: Vec<String>,
    pub headers: Vec<(&'static str, String)>,
}

/// An attempt of which the request is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) with: Option<SentWithId>,
    pub(super) number: u32,
    pub(super) round: u32,
    pub(super) begun_at: Option<Timestamp>,
}

impl Sent {
    pub(super) fn of(row: &NumberedAttempt) -> Self {
        let begun_at = Some(row.attempt.begun_at);
        Self { with: row.attempt.sent_with, number: row.n, round: row.round, begun_at }
    }

    /// The attempt that delivered the callback, which has no row. When it began is known if it was the only one.
    pub(super) fn delivery(settled: &Settled, rows: &[NumberedAttempt]) -> Option<Self> {
        if settled.ended != Ended::Delivered {
            return None;
        }
        let numbers: HashSet<_> = rows.iter().map(|row| row.n).collect();
        let number = (1..=settled.attempts).rev().find(|number| !numbers.contains(number))?;
        let begun_at = (settled.attempts == 1).then_some(settled.first_at);
        Some(Self { with: settled.sent_with, number, round: settled.round, begun_at })
    }
}

/// What the requests of one callback are rebuilt from.
pub(super) struct Requests<'r> {
    id: CallbackId,
    rows: &'r Rows,
    settings: HashMap<SentWithId, SentWith>,
    /// The ends of the team's keys, by the keys' ids.
    ends: HashMap<String, String>,
    sees_urls: bool,
}

impl Session {
    /// Reads what the requests of these attempts of a callback are rebuilt from.
    pub(super) async fn requests<'r>(
        &self,
        id: CallbackId,
        rows: &'r Rows,
        sent: &[Sent],
    ) -> Result<Requests<'r>, OpsError> {
        let mut ids: Vec<_> = sent.iter().filter_map(|sent| sent.with).collect();
        ids.sort_unstable();
        ids.dedup();
        let admin = &self.parts().admin;
        let settings = if ids.is_empty() { Vec::new() } else { admin.sent_with(ids).await? };
        let keys = match settings.first() {
            Some(any) => admin.keys(&any.team).await?,
            None => Vec::new(),
        };
        Ok(Requests {
            id,
            rows,
            settings: settings.into_iter().map(|settings| (settings.id(), settings)).collect(),
            ends: keys.into_iter().map(|KeyRow { id, last4, .. }| (id, last4)).collect(),
            sees_urls: policy::sees_urls(&self.caller),
        })
    }
}

impl Requests<'_> {
    /// The request of one attempt; `None` if the settings that it was sent with are not known.
    pub(super) fn of(&self, sent: Sent) -> Option<SentRequest> {
        let settings = self.settings.get(&sent.with?)?;
        let url = self.url(settings);
        Some(SentRequest {
            headers: self.headers(settings, sent, url.as_deref()),
            url,
            follows_default: settings.url.is_some(),
            form: settings.form,
            signing_keys: settings.signing_keys.clone(),
            auth_keys: settings.auth_keys.clone(),
        })
    }

    /// Who may not see URLs sees the origin.
    fn url(&self, settings: &SentWith) -> Option<String> {
        let own = || self.rows.pending.as_ref().and_then(|pending| pending.url.as_deref());
        let url = settings.url.as_deref().or_else(own)?;
        if self.sees_urls {
            return Some(without_userinfo(url));
        }
        Target::parse(url).ok().map(|target| target.origin.to_string())
    }

    fn headers(&self, settings: &SentWith, sent: Sent, url: Option<&str>) -> Vec<(&'static str, String)> {
        let seconds = sent.begun_at.map_or_else(|| MASKED.to_owned(), |at| at.unix_seconds().to_string());
        let mut headers = Vec::with_capacity(8);
        let target = url.and_then(|url| Target::parse(url).ok());
        headers.extend(target.as_ref().map(|target| ("host", target.origin.authority())));
        headers.push(("content-type", "application/json".to_owned()));
        headers.push((header::ID, self.webhook_id(sent.round)));
        headers.push((header::TIMESTAMP, seconds.clone()));
        let signatures = settings.signing_keys.iter().map(|_| format!("v1,{MASKED}")).collect::<Vec<_>>();
        headers.push((header::SIGNATURE, signatures.join(" ")));
        headers.push((header::AUTH, self.auth(settings, &seconds)));
        headers.push((header::ATTEMPT, sent.number.to_string()));
        if target.is_some_and(|target| target.authorization.is_some()) {
            headers.push(("authorization", MASKED.to_owned()));
        }
        headers
    }

    /// An open round says whether it has an id of its own. Of one that is over it is not known.
    fn webhook_id(&self, round: u32) -> String {
        let id = self.id;
        let open = self.rows.pending.as_ref().filter(|pending| pending.round == round);
        match open.map(|pending| pending.new_id) {
            _ if round == 0 => id.to_string(),
            Some(true) => format!("{id}_r{round}"),
            Some(false) => id.to_string(),
            None => format!("{id}, or {id}_r{round} if it was sent again under a new id"),
        }
    }

    fn auth(&self, settings: &SentWith, seconds: &str) -> String {
        match settings.form {
            AuthForm::Key => {
                let end = settings.auth_keys.first().and_then(|id| self.ends.get(id));
                end.map_or_else(|| MASKED.to_owned(), |end| format!("{MASKED}{end}"))
            }
            AuthForm::Hmac => {
                let digests = settings.auth_keys.iter().map(|_| format!(",v1={MASKED}")).collect::<String>();
                format!("t={seconds}{digests}")
            }
        }
    }
}
