//! The HMAC that everything relies on, checked against the published vectors of Wycheproof and RFC 4231.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[test]
fn wycheproof_agrees() {
    let set = TestSet::load(TestName::HmacSha256).unwrap();
    let mut compared = 0;
    for group in set.test_groups {
        for test in group.tests {
            let tag = &mac(&test.key, &test.msg)[..group.tag_size / 8];
            let same = tag == &test.tag[..];
            assert_eq!(same, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn rfc_4231_agrees() {
    let cases: [(Vec<u8>, Vec<u8>, &str); 6] = [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        ((1..=25).collect(), vec![0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".to_vec(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key, message, wanted) in cases {
        let hex: String = mac(&key, &message).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, wanted);
    }
}
