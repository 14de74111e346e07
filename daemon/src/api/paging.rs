//! Pages of a list. Where a page ends, its answer has an opaque token; the token belongs to the query that it came from.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use base64::engine::{Engine as _, general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::shapes::Page;
use crate::model::callback::CallbackId;

/// Documents of a page, unless the request says otherwise, and at most.
const USUAL: usize = 50;
const MOST: usize = 1_000;
/// Bytes of the query's hash that a token begins with.
const FINGERPRINT: usize = 8;

/// The place in a list where the next page begins.
pub(super) trait Position: Sized {
    fn bytes(&self) -> Vec<u8>;
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Position for CallbackId {
    fn bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

impl Position for i64 {
    fn bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Position for String {
    fn bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// The page that a request asks for.
pub(super) struct Paging {
    pub(super) limit: usize,
    at: Option<Vec<u8>>,
    fingerprint: [u8; FINGERPRINT],
}

impl Paging {
    pub(super) fn position<P: Position>(&self) -> Result<Option<P>, Problem> {
        self.at.as_deref().map(|bytes| P::read(bytes).ok_or_else(foreign)).transpose()
    }

    pub(super) fn page<T, P: Position>(&self, docs: Vec<T>, next: Option<&P>) -> Page<T> {
        let token = next.map(|next| URL_SAFE_NO_PAD.encode([&self.fingerprint[..], &next.bytes()].concat()));
        Page { docs, has_more: token.is_some(), next_token: token, limit: self.limit }
    }

    /// A page of rows. One row more than the limit was asked for, which tells whether another page follows.
    pub(super) fn page_of<R, T, P: Position>(
        &self,
        mut rows: Vec<R>,
        position: impl Fn(&R) -> P,
        shape: impl FnMut(&R) -> T,
    ) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(position);
        self.page(rows.iter().map(shape).collect(), next.as_ref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
        let (mut limit, mut token, mut filters) = (USUAL, None, Vec::new());
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit)).ok_or_else(limits)?,
                "next_token" => token = Some(value.into_owned()),
                _ => filters.push((name.into_owned(), value.into_owned())),
            }
        }
        filters.sort();
        let hash = Sha256::digest(format!("{} {filters:?}", uri.path()));
        let mut fingerprint = [0; FINGERPRINT];
        fingerprint.copy_from_slice(&hash[..FINGERPRINT]);
        let at = match token {
            None => None,
            Some(token) => {
                let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
                let position = bytes.strip_prefix(&fingerprint).ok_or_else(foreign)?;
                Some(position.to_vec())
            }
        };
        Ok(Self { limit, at, fingerprint })
    }
}

fn foreign() -> Problem {
    Problem::invalid("this next_token belongs to another query; use the token of the last page of this same query")
}

fn limits() -> Problem {
    Problem::invalid(format!("limit is a number from 1 to {MOST}"))
}
