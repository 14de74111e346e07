//! The headers of one attempt: identity, time, signatures, auth.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use secrecy::ExposeSecret as _;

use super::resolve::Resolved;
use crate::base::clock::Timestamp;
use crate::net::exchange::Outgoing;

const ID: HeaderName = HeaderName::from_static(scale_callback_auth::header::ID);
const TIMESTAMP: HeaderName = HeaderName::from_static(scale_callback_auth::header::TIMESTAMP);
const SIGNATURE: HeaderName = HeaderName::from_static(scale_callback_auth::header::SIGNATURE);
const AUTH: HeaderName = HeaderName::from_static(scale_callback_auth::header::AUTH);
const ATTEMPT: HeaderName = HeaderName::from_static(scale_callback_auth::header::ATTEMPT);

/// What is signed and sent.
pub struct Content<'c> {
    pub id: &'c str,
    pub at: Timestamp,
    /// From 1.
    pub attempt: u32,
    pub body: Bytes,
}

/// The values of a request's headers: as they are sent, or as they are shown afterwards. Both are made by [`Headers::named`], so a header that
/// is sent is shown as well.
pub struct Headers<V> {
    /// It is always sent. It can't be shown if the URL is not known any more.
    pub host: Option<V>,
    pub user_agent: V,
    pub id: V,
    pub timestamp: V,
    pub signature: V,
    pub auth: Option<V>,
    pub attempt: V,
    pub authorization: Option<V>,
}

impl<V> Headers<V> {
    /// The headers with their names, in the order in which they are sent. `fixed` makes the values that are the same in each request. Behind
    /// these headers, the connection writes the length of the body.
    pub fn named(self, fixed: fn(&'static str) -> V) -> impl Iterator<Item = (HeaderName, V)> {
        let headers = [
            (HOST, self.host),
            // Firewalls take a request without it for an attack.
            (ACCEPT, Some(fixed("*/*"))),
            (USER_AGENT, Some(self.user_agent)),
            (CONTENT_TYPE, Some(fixed("application/json"))),
            (ID, Some(self.id)),
            (TIMESTAMP, Some(self.timestamp)),
            (SIGNATURE, Some(self.signature)),
            (AUTH, self.auth),
            (ATTEMPT, Some(self.attempt)),
            (AUTHORIZATION, self.authorization),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Signs the content for the attempt that begins now. The bytes that are signed are the bytes that are sent.
pub fn sign(resolved: Resolved, content: Content<'_>, user_agent: &HeaderValue) -> Outgoing {
    let signer = resolved.entry.signer(resolved.mode, resolved.form).expect("resolve found a signer");
    resolved.entry.note_use(resolved.mode, resolved.form, content.at);
    let signed = signer.sign(content.id, content.at.unix_seconds(), &content.body);
    let authorization = resolved.target.authorization.as_ref();
    let values = Headers {
        host: Some(visible(&resolved.target.origin.authority())),
        user_agent: user_agent.clone(),
        id: visible(content.id),
        timestamp: visible(&signed.timestamp),
        // For some minutes, a signature lets anyone who has the body send it again.
        signature: secret(&signed.signature),
        auth: signed.auth.as_deref().map(secret),
        attempt: HeaderValue::from(content.attempt),
        authorization: authorization.map(|value| secret(value.expose_secret())),
    };
    let mut headers = HeaderMap::with_capacity(12);
    for (name, value) in values.named(HeaderValue::from_static) {
        headers.insert(name, value);
    }
    Outgoing { team: Arc::clone(&resolved.entry.team.id), target: resolved.target, headers, body: content.body }
}

fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids, numbers, base64 and normalised hosts are visible ASCII")
}

fn secret(text: &str) -> HeaderValue {
    let mut value = visible(text);
    value.set_sensitive(true);
    value
}
