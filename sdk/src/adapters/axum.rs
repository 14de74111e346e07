//! For `axum` 0.8: an extractor that verifies, and the layer with axum's body type.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, http::StatusCode, routing::post};
//! use scale_callback_auth::{VerifiedCallback, Verifier};
//!
//! async fn done(verified: VerifiedCallback) -> StatusCode {
//!     match verified.callback() {
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
//! A request that does not verify never reaches the handler. The answer is 401, or 413 for a body above 12 MiB, or 400
//! if the body ended early, and it has no body.

use std::sync::Arc;

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequest, Request};
use axum_core::response::{IntoResponse, Response};

use super::{BODY_LIMIT, Rejection, VerifiedCallback};
use crate::Verifier;

/// The layer of [`tower`](super::tower) with axum's body type: `Router::layer(VerifyLayer::new(verifier))`.
pub type VerifyLayer = super::tower::VerifyLayer<Body>;

impl<S> FromRequest<S> for VerifiedCallback
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let (head, body) = request.into_parts();
        // The layer, if there is one, has verified the request already.
        let verifier = Arc::<Verifier>::from_ref(state);
        if let Some(callback) = head.extensions.get::<Self>() {
            let admitted = verifier.admits(callback.verified().mode());
            return if admitted { Ok(callback.clone()) } else { Err(Rejection::Unauthenticated) };
        }
        Self::read(&head.headers, body, &verifier, BODY_LIMIT).await
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}
