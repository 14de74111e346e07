//! Runs again every input that fuzzing kept.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, reason = "a test may")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn both_verifiers_agree_on_every_kept_input() {
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/inputs").join(name);
        let mut verdicts = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            verdicts.insert(target(&input));
        }
        // One input of each verdict was kept.
        let wanted = match name {
            "verify" => 18,
            "body" => 3,
            _ => 6,
        };
        assert!(verdicts.len() >= wanted, "{name}: {verdicts:?}");
    }
}
