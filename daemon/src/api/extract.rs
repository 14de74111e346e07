//! The parts of a request. An error in one is a problem. A request may name only the fields of its documented shape.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use scale_callback_serve::text::printable;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};
use crate::base::clock::Timestamp;
use crate::store::admin::IdempotencyKey;

/// The header by which a repeated request is recognised, so that it creates nothing twice.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A JSON body. An empty body stands for `{}`.
pub(super) struct Body<T> {
    pub(super) value: T,
    /// The request's `Idempotency-Key`, with a fingerprint of the request.
    pub(super) once: Option<IdempotencyKey>,
}

impl<S: Send + Sync, T: DeserializeOwned + ToSchema> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let key = idempotency_key(request.headers())?;
        let path = request.extensions().get::<OriginalUri>().map_or_else(|| request.uri(), |uri| &uri.0).path();
        let mut fingerprint = Sha256::new();
        for part in [request.method().as_str(), path] {
            fingerprint.update(part.as_bytes());
            fingerprint.update([0]);
        }
        let json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        if !bytes.is_empty() && !json {
            let detail = "a body needs the header content-type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, detail));
        }
        fingerprint.update(&bytes);
        let once = key.map(|key| IdempotencyKey { key, fingerprint: fingerprint.finalize().into() });
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text).map_err(not_json)?;
        only_known(&value, &members::<T>())?;
        let value = serde_json::from_value(value).map_err(not_json)?;
        Ok(Self { value, once })
    }
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::invalid(printable(error.to_string().as_bytes(), 300))
}

fn unread(rejection: &BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let detail = format!("a body has at most {} bytes", super::access::BODY_LIMIT);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidRequest, detail)
        }
        _ => Problem::invalid("the body could not be read to its end"),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let good = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && keys.next().is_none());
    let good =
        good.ok_or_else(|| Problem::invalid("Idempotency-Key must be one header of 1 to 255 visible characters"))?;
    Ok(Some(good.to_owned()))
}

/// The members that a shape documents.
fn members<T: ToSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn only_known(value: &serde_json::Value, known: &[String]) -> Result<(), Problem> {
    let Some(members) = value.as_object() else { return Err(Problem::invalid("the body must be a JSON object")) };
    match members.keys().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(unknown(name, known)),
    }
}

fn unknown(name: &str, known: &[String]) -> Problem {
    let shown = printable(name.as_bytes(), 64);
    let known = if known.is_empty() {
        "there are no fields".to_owned()
    } else {
        format!("the fields are: {}", known.join(", "))
    };
    Problem::new(StatusCode::BAD_REQUEST, Code::UnknownField, format!("there is no field {shown:?} here; {known}"))
}

/// A query string.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known: Vec<String> = T::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        if let Some((name, _)) = pairs.into_iter().find(|(name, _)| !known.iter().any(|known| known == name)) {
            return Err(unknown(&name, &known));
        }
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::invalid(printable(rejection.body_text().as_bytes(), 300))),
        }
    }
}

/// No query: every field in one is unknown.
#[derive(serde::Deserialize)]
pub(super) struct Nothing {}

impl IntoParams for Nothing {
    fn into_params(
        _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        Vec::new()
    }
}

/// The variable parts of a path.
pub(super) struct Place<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Place<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<axum::extract::Path<T>, _> = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value)).map_err(|_| Problem::invalid("the path can't be read"))
    }
}

/// Reads a time, RFC 3339. A date alone, as in `2026-11-24`, is its midnight in UTC.
pub(super) fn time(text: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(text).ok_or_else(|| {
        let shown = printable(text.as_bytes(), 64);
        let sentence =
            "is not a time; write for example \"2026-11-24T12:00:00Z\", or \"2026-11-24\" for midnight in UTC";
        Problem::invalid(format!("{shown:?} {sentence}"))
    })
}

/// Reads a time that may be left out.
pub(super) fn time_if_given(text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    text.map(time).transpose()
}

/// An answer with a JSON body.
pub(super) type Answer<T> = Result<Json<T>, Problem>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        let at = |text: &str| time(text).ok().map(|at| at.to_string());
        assert_eq!(at("2026-11-29").as_deref(), Some("2026-11-29T00:00:00.000Z"));
        assert_eq!(at("2026-11-29T01:30:00+02:00").as_deref(), Some("2026-11-28T23:30:00.000Z"));
        for wrong in ["2026-11-31", "2026-11-2", "20261129", "tomorrow", "", "2026-11-29T"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
