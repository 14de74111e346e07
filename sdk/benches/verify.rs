//! What verifying costs compared with the one HMAC that it always needs: `make bench-verify`, all in one run.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit as _, Mac as _};
use scale_callback_auth::testing::{FakeClock, Platform};
use scale_callback_auth::{Credential, Mode, Verifier};
use sha2::Sha256;
use std::hint::black_box;

fn verify(criterion: &mut Criterion) {
    let (platform, clock) = (Platform::live(), FakeClock::new());
    let (begin, end) = (r#"{"task":{"task_id":"t1"},"response":""#, r#"","task_id":"t1"}"#);
    let body = format!("{begin}{}{end}", "x".repeat(2_048 - begin.len() - end.len())).into_bytes();
    assert_eq!(body.len(), 2_048);
    let signed = platform.signed(&body, &clock);
    let hmac = platform.signed_with_hmac(&body, &clock);
    let signature = Verifier::new(Credential::signed("live", Mode::Live, platform.signing_secret()).unwrap());
    let (keyed, header) = (platform.verifier(), platform.hmac_verifier());
    let precomputed = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
    let mut group = criterion.benchmark_group("2 KiB");
    group.bench_function("HMAC-SHA256 with a precomputed key", |bencher| {
        bencher.iter(|| {
            let mut mac = precomputed.clone();
            mac.update(black_box(&body));
            black_box(mac.finalize().into_bytes())
        });
    });
    for (name, verifier, request) in
        [("signature", &signature, &signed), ("signature and key", &keyed, &signed), ("hmac form", &header, &hmac)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let verified =
                    verifier.verify_at(black_box(&request.headers[..]), black_box(&request.body), clock.now()).unwrap();
                black_box(&verified);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
