//! What the crate promises of itself: few dependencies and no procedural macros.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn the_default_build_has_at_most_twenty_crates_and_no_procedural_macro() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let crates: BTreeSet<_> =
        text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect();
    assert!(crates.len() <= 20, "{}: {crates:#?}", crates.len());
    assert!(!text.contains("(proc-macro)"), "{text}");
}
