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

/// Signs the content for the attempt that begins now. The bytes that are signed are the bytes that are sent.
pub fn sign(resolved: Resolved, content: Content<'_>, user_agent: &HeaderValue) -> Outgoing {
    let signer = resolved.entry.signer(resolved.mode, resolved.form).expect("resolve found a signer");
    resolved.entry.note_use(resolved.mode, resolved.form, content.at);
    let signed = signer.sign(content.id, content.at.unix_seconds(), &content.body);
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(HOST, visible(&resolved.target.origin.authority()));
    // Firewalls take a request without it for an attack.
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, user_agent.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ID, visible(content.id));
    headers.insert(TIMESTAMP, visible(&signed.timestamp));
    // For some minutes, a signature lets anyone who has the body send it again.
    headers.insert(SIGNATURE, secret(&signed.signature));
    if let Some(auth) = &signed.auth {
        headers.insert(AUTH, secret(auth));
    }
    headers.insert(ATTEMPT, HeaderValue::from(content.attempt));
    if let Some(authorization) = &resolved.target.authorization {
        headers.insert(AUTHORIZATION, secret(authorization.expose_secret()));
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
