//! For `axum` 0.8: an extractor that verifies, and the layer with axum's body.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, http::StatusCode, routing::post};
//! use scale_callback_auth::{ProvenCallback, Verifier};
//!
//! async fn done(callback: ProvenCallback) -> StatusCode {
//!     match callback.callback() {
//!         Ok(callback) => { println!("task {} is done", callback.task_id()); StatusCode::NO_CONTENT }
//!         Err(_) => StatusCode::BAD_REQUEST,
//!     }
//! }
//!
//! # fn app(verifier: Verifier) -> Router {
//! Router::new().route("/callbacks", post(done)).with_state(Arc::new(verifier))
//! # }
//! ```
//!
//! Whatever does not verify never reaches the handler: 401, 413 above 12 MiB, 400 where the body broke off, each
//! without a body.

use std::sync::Arc;

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequest, Request};
use axum_core::response::{IntoResponse, Response};

use super::{BODY_LIMIT, ProvenCallback, Rejection};
use crate::Verifier;

/// The layer of [`tower`](super::tower) with axum's body: `Router::layer(VerifyLayer::new(verifier))`.
pub type VerifyLayer = super::tower::VerifyLayer<Body>;

impl<S> FromRequest<S> for ProvenCallback
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let (head, body) = request.into_parts();
        // Behind the layer it was verified already.
        let verifier = Arc::<Verifier>::from_ref(state);
        if let Some(proven) = head.extensions.get::<Self>() {
            let admitted = verifier.admits(proven.verified().mode());
            return if admitted { Ok(proven.clone()) } else { Err(Rejection::Unauthenticated) };
        }
        Self::read(&head.headers, body, &verifier, BODY_LIMIT).await
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}
