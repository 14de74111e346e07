//! Errors as RFC 9457 problems, with the members that the platform's clients expect beside them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::ops::OpsError;
use crate::store::StoreError;

#[derive(Debug, Serialize)]
pub(super) struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    request_id: String,
    /// As the platform's clients expect.
    error: String,
    status_code: u16,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).expect("the system gives random bytes");
        let request_id = format!("req_{}", crate::base::text::hex(&id));
        Self {
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            error: detail.clone(),
            detail,
            code,
            request_id,
            status_code: status.as_u16(),
        }
    }
}

impl From<OpsError> for Problem {
    fn from(error: OpsError) -> Self {
        let status = match &error {
            OpsError::InvalidRequest(_) | OpsError::UrlRefused(_) => StatusCode::BAD_REQUEST,
            OpsError::NotFound(_) => StatusCode::NOT_FOUND,
            OpsError::Conflict(_) | OpsError::KeyState(_) => StatusCode::CONFLICT,
            OpsError::Store(StoreError::Refused(_)) => StatusCode::BAD_REQUEST,
            OpsError::NotReady(_) | OpsError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status >= 500 {
            tracing::warn!(request_id = self.request_id, code = self.code, "a request failed");
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}
