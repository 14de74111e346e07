//! Errors as problems of RFC 9457, with two more members that the platform's clients expect.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use scale_callback_serve::text::hex;
use serde::Serialize;
use utoipa::ToSchema;

use crate::ops::OpsError;
use crate::store::StoreError;

/// The name of a request, in its answer and in our log.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    pub(super) fn new() -> Self {
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).expect("the system gives random bytes");
        Self(format!("req_{}", hex(&id)))
    }
}

/// The kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    InvalidRequest,
    UnknownField,
    NotFound,
    Conflict,
    IdempotencyMismatch,
    Unauthenticated,
    Forbidden,
    NotReady,
    StoreUnavailable,
    UrlRefused,
    KeyState,
    Pruned,
    ConfirmationNeeded,
    TooManyRows,
}

/// What went wrong (RFC 9457). Programs look at `code`, people read `detail`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    code: Code,
    /// The name of the request. It is also in the header x-request-id and, if the daemon is at fault, in its log.
    request_id: String,
    /// The same as `detail`, as the platform's clients expect it.
    error: String,
    /// The same as `status`.
    status_code: u16,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            error: detail.clone(),
            detail,
            code,
            request_id: RequestId::new().0,
            status_code: status.as_u16(),
        }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, detail)
    }
}

impl From<OpsError> for Problem {
    fn from(error: OpsError) -> Self {
        let (status, code) = match &error {
            OpsError::InvalidRequest(_) => (StatusCode::BAD_REQUEST, Code::InvalidRequest),
            OpsError::UrlRefused(_) => (StatusCode::BAD_REQUEST, Code::UrlRefused),
            OpsError::NotFound(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            OpsError::Pruned(_) => (StatusCode::GONE, Code::Pruned),
            OpsError::Conflict(_) => (StatusCode::CONFLICT, Code::Conflict),
            OpsError::KeyState(_) => (StatusCode::CONFLICT, Code::KeyState),
            OpsError::ConfirmationNeeded(_) => (StatusCode::CONFLICT, Code::ConfirmationNeeded),
            OpsError::TooManyRows(_) => (StatusCode::CONFLICT, Code::TooManyRows),
            OpsError::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, Code::IdempotencyMismatch),
            OpsError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            OpsError::Forbidden(_) => (StatusCode::FORBIDDEN, Code::Forbidden),
            OpsError::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::NotReady),
            OpsError::Store(StoreError::Refused(_)) => (StatusCode::BAD_REQUEST, Code::InvalidRequest),
            OpsError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::StoreUnavailable),
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status >= 500 {
            tracing::warn!(request_id = self.request_id, code = ?self.code, detail = self.detail, "a request failed");
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let id = RequestId(self.request_id.clone());
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(id);
        response
    }
}
