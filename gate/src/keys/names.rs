//! The variables that hold keys.

/// Each may be `..._FILE` instead, which names a file with the keys.
pub(super) const NAMES: [&str; 6] = [
    "SCALE_CALLBACK_SIGNING_SECRET",
    "SCALE_CALLBACK_AUTH_KEY",
    "SCALE_CALLBACK_HMAC_KEY",
    "SCALE_CALLBACK_TEST_SIGNING_SECRET",
    "SCALE_CALLBACK_TEST_AUTH_KEY",
    "SCALE_CALLBACK_TEST_HMAC_KEY",
];
