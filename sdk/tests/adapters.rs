//! The adapters, called as a framework calls them.

#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a test may")]

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use scale_callback_auth::testing::{FakeClock, Platform, TestRequest};
use scale_callback_auth::{Headers, VerifiedCallback};
use tower_service::Service as _;

const BODY: &[u8] = br#"{"task":{"task_id":"t1","type":"imageannotation"},"response":{},"task_id":"t1"}"#;

/// A clock that shows the machine's time, which is the time that the adapters read.
fn clock() -> FakeClock {
    let clock = FakeClock::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    clock.advance(now - clock.now());
    clock
}

async fn handled(callback: VerifiedCallback) -> String {
    callback.callback().map_or_else(|_| "not a callback".to_owned(), |callback| callback.task_id().to_owned())
}

fn with_extractor() -> Router {
    Router::new().route("/", post(handled)).with_state(Arc::new(Platform::live().verifier()))
}

fn with_layer() -> Router {
    async fn behind(Extension(callback): Extension<VerifiedCallback>, body: String) -> String {
        format!("{} {}", callback.verified().id(), body.len())
    }
    let layer = scale_callback_auth::axum::VerifyLayer::new(Arc::new(Platform::live().verifier()));
    Router::new().route("/", post(behind)).layer(layer)
}

async fn send(mut app: Router, request: &TestRequest, body: Body) -> (StatusCode, String) {
    let mut built = Request::post("/");
    for (name, value) in &request.headers {
        built = built.header(*name, value);
    }
    let response = app.call(built.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn sent(app: Router, request: &TestRequest) -> (StatusCode, String) {
    send(app, request, Body::from(request.body.clone())).await
}

#[tokio::test]
async fn verified_requests_are_handled_and_rejections_tell_nothing() {
    let (platform, clock) = (Platform::live(), clock());
    let good = platform.signed(BODY, &clock);
    assert_eq!(sent(with_extractor(), &good).await, (StatusCode::OK, "t1".to_owned()));
    let expected = format!("cb_01kav9ft00zkek0kfes3qvf608 {}", BODY.len());
    assert_eq!(sent(with_layer(), &good).await, (StatusCode::OK, expected));
    let rotated = platform.rotated(BODY, &clock);
    assert_eq!(sent(with_extractor(), &rotated).await.0, StatusCode::OK);
    let mut twice = good.clone();
    let id = twice.headers[0].clone();
    twice.headers.push(id);
    let bad = [
        platform.tampered(BODY, &clock),
        platform.stale(BODY, &clock),
        platform.forged(BODY, &clock),
        platform.unsigned(BODY, &clock),
        Platform::test().signed(BODY, &clock),
        twice,
    ];
    for request in &bad {
        for app in [with_extractor(), with_layer()] {
            assert_eq!(sent(app, request).await, (StatusCode::UNAUTHORIZED, String::new()), "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_or_ends_early_is_rejected() {
    let (platform, clock) = (Platform::live(), clock());
    let large = vec![b' '; (12 << 20) + 1];
    let request = platform.signed(&large, &clock);
    for app in [with_extractor(), with_layer()] {
        assert_eq!(sent(app, &request).await, (StatusCode::PAYLOAD_TOO_LARGE, String::new()));
    }
    let largest = platform.signed(&large[1..], &clock);
    assert_eq!(sent(with_extractor(), &largest).await.0, StatusCode::OK, "axum's own limit of 2 MB does not apply");
    let request = platform.signed(BODY, &clock);
    let broken = || {
        let frames = [Ok(axum::body::Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
        Body::from_stream(futures_util::stream::iter(frames))
    };
    for app in [with_extractor(), with_layer()] {
        assert_eq!(send(app, &request, broken()).await, (StatusCode::BAD_REQUEST, String::new()));
    }
    let limited = scale_callback_auth::axum::VerifyLayer::new(Arc::new(platform.verifier())).body_limit(10);
    let app = Router::new().route("/", post(|| async {})).layer(limited);
    assert_eq!(sent(app, &request).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn other_tasks_get_turns_while_a_large_body_is_verified() {
    let (platform, clock) = (Platform::live(), clock());
    let turns = async |bytes: usize| {
        let request = platform.signed(&vec![b' '; bytes], &clock);
        let mut sending = pin!(sent(with_extractor(), &request));
        let mut turns = 0;
        let answer = poll_fn(|context| {
            turns += 1;
            sending.as_mut().poll(context)
        });
        assert_eq!(answer.await.0, StatusCode::OK);
        turns
    };
    assert_eq!(turns(64 * 1024).await, 1, "a small body is verified in one turn");
    assert!(turns(12 << 20).await > 180);
}

#[tokio::test]
async fn the_extractor_does_not_verify_again_what_the_layer_verified() {
    // The extractor's own verifier would refuse this request.
    let (platform, clock) = (Platform::live(), clock());
    let layer = scale_callback_auth::axum::VerifyLayer::new(Arc::new(platform.verifier()));
    let app = Router::new().route("/", post(handled)).with_state(Arc::new(Platform::test().verifier())).layer(layer);
    assert_eq!(sent(app, &platform.signed(BODY, &clock)).await.0, StatusCode::OK);
}

#[test]
fn a_header_map_returns_all_values_of_a_name() {
    let mut map = HeaderMap::new();
    map.append("webhook-id", "a".parse().unwrap());
    map.append("Webhook-Id", "b".parse().unwrap());
    let values: Vec<&[u8]> = Headers::values(&map, "webhook-id").collect();
    assert_eq!(values, [&b"a"[..], &b"b"[..]]);
}
