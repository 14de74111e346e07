//! The request of an attempt, rebuilt from the settings that it was sent with. No secret is in it: signatures and keys are
//! masked.

use std::collections::HashMap;

use http::header::CONTENT_LENGTH;

use super::delivering::{Rounds, Sent};
use super::{OpsError, Session, policy};
use crate::deliver::sign::Headers;
use crate::model::attempt::SentWithId;
use crate::model::callback::CallbackId;
use crate::model::sent_with::SentWith;
use crate::model::settlement::Rows;
use crate::model::team::AuthForm;
use crate::net::target::{Target, without_userinfo};
use crate::store::admin::KeyRow;

/// In the place of what is not shown.
const MASKED: &str = "[masked]";
/// In the place of a time that the store does not keep.
const NOT_RECORDED: &str = "[not recorded]";

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
    /// As HTTP/1.1 sends them.
    pub headers: Vec<(String, String)>,
}

/// What the requests of one callback are rebuilt from.
pub(super) struct Requests<'r> {
    id: CallbackId,
    rows: &'r Rows,
    settings: HashMap<SentWithId, SentWith>,
    /// The ends of the team's keys, by the keys' ids.
    ends: HashMap<String, String>,
    user_agent: String,
    /// The length of the body; `None` if the store does not have it.
    length: Option<usize>,
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
        let (keys, body) = match settings.first() {
            Some(any) => (admin.keys(&any.team).await?, self.parts().reads.body(id).await?),
            None => (Vec::new(), None),
        };
        Ok(Requests {
            id,
            rows,
            settings: settings.into_iter().map(|settings| (settings.id(), settings)).collect(),
            ends: keys.into_iter().map(|KeyRow { id, last4, .. }| (id, last4)).collect(),
            user_agent: self.parts().engine.user_agent.to_str().unwrap_or_default().to_owned(),
            length: body.map(|body| body.len()),
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

    fn headers(&self, settings: &SentWith, sent: Sent, url: Option<&str>) -> Vec<(String, String)> {
        let seconds = sent.begun_at.map_or_else(|| NOT_RECORDED.to_owned(), |at| at.unix_seconds().to_string());
        let target = url.and_then(|url| Target::parse(url).ok());
        let signatures = settings.signing_keys.iter().map(|_| format!("v1,{MASKED}")).collect::<Vec<_>>();
        let values = Headers {
            host: target.as_ref().map(|target| target.origin.authority()),
            user_agent: self.user_agent.clone(),
            id: self.webhook_id(sent.rounds),
            signature: signatures.join(" "),
            auth: Some(self.auth(settings, &seconds)),
            timestamp: seconds,
            attempt: sent.number.to_string(),
            authorization: target.and_then(|target| target.authorization).map(|_| MASKED.to_owned()),
        };
        let length = self.length.map(|length| (CONTENT_LENGTH, length.to_string()));
        let headers = values.named(str::to_owned).chain(length);
        headers.map(|(name, value)| (name.as_str().to_owned(), value)).collect()
    }

    /// An open round says whether it has an id of its own. Of one that is over it is not known.
    fn webhook_id(&self, rounds: Rounds) -> String {
        let (id, Rounds { first, last }) = (self.id, rounds);
        let open = self.rows.pending.as_ref().filter(|pending| rounds == Rounds::one(pending.round));
        match open.map(|pending| pending.new_id) {
            _ if last == 0 => id.to_string(),
            Some(true) => format!("{id}_r{last}"),
            Some(false) => id.to_string(),
            None if first == last => format!("{id}, or {id}_r{last} if this round had an id of its own"),
            None => format!("{id}, or {id}_rN with N from {first} to {last} if its round had an id of its own"),
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
