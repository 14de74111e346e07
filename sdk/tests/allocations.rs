//! The verifier allocates no memory, whether it accepts or refuses a request.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use scale_callback_auth::testing::{FakeClock, Platform};

#[test]
fn verifying_allocates_nothing() {
    let (platform, clock) = (Platform::live(), FakeClock::new());
    let body = format!(r#"{{"task":{{"task_id":"t1"}},"response":"{}","task_id":"t1"}}"#, "x".repeat(2_000));
    let (keyed, hmac) = (platform.verifier(), platform.hmac_verifier());
    for (verifier, request, good) in [
        (&keyed, platform.signed(body.as_bytes(), &clock), true),
        (&keyed, platform.rotated(body.as_bytes(), &clock), true),
        (&hmac, platform.signed_with_hmac(body.as_bytes(), &clock), true),
        (&keyed, platform.tampered(body.as_bytes(), &clock), false),
        (&hmac, platform.signed(body.as_bytes(), &clock), false),
    ] {
        let allocated = allocation_counter::measure(|| {
            let verified = verifier.verify_at(&request.headers[..], &request.body, clock.now());
            assert_eq!(verified.is_ok(), good);
        });
        assert_eq!(allocated.count_total, 0, "{allocated:?}");
    }
    // The counter itself works.
    assert!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 100]))).count_total > 0);
}
