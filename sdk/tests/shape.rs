//! What the crate promises about itself: few dependencies, no procedural macros, and an old compiler is enough.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::PathBuf;
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

/// Let chains need Rust 1.88. They are syntax, so that clippy's `incompatible_msrv` does not see them.
#[test]
fn the_library_uses_no_let_chains() {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let is_chain = |line: &&str| line.contains("&& let ") || line.contains("if let ") && line.contains(" && ");
            assert_eq!(text.lines().find(is_chain), None, "{}", path.display());
        }
    }
    assert!(files > 10, "{files} files were read");
}
