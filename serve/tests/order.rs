//! Holds the order of the modules, so that no two of them import each other, and the size of the files.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use std::path::Path;

/// The modules, as the crate's documentation lists them. Each imports only from those before it.
const ORDER: [&str; 22] = [
    "text",
    "body",
    "tls",
    "client_tls",
    "unix",
    "client",
    "nets",
    "forwarded",
    "proxy_header",
    "refusal_pace",
    "strict_head",
    "strict_stream",
    "activity",
    "places",
    "write_timeout",
    "paced_stream",
    "tracked_service",
    "limits",
    "bind",
    "listener",
    "connection",
    "server",
];
const MOST_LINES: usize = 400;

fn source(module: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}.rs"))).unwrap()
}

/// The modules that `text` names as `crate::module`, outside of its comments and tests.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = lines.flat_map(|line| line.split("crate::").skip(1));
    named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn each_module_imports_only_from_those_before_it() {
    for (place, module) in ORDER.iter().enumerate() {
        for imported in imports(&source(module)) {
            let before = ORDER[..place].contains(&imported.as_str());
            assert!(before, "{module} imports {imported}, which does not stand before it");
        }
    }
    assert_eq!(imports("use crate::server::serve;\n// crate::text\n"), ["server"], "an import is seen");
}

#[test]
fn the_list_is_complete_in_the_order_of_the_documentation_and_each_file_is_short() {
    let library = source("lib");
    let listed: Vec<&str> = library.lines().filter_map(|line| line.strip_prefix("//! | ")?.split('`').nth(1)).collect();
    assert_eq!(listed, ORDER);
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().count();
    assert_eq!(files, ORDER.len() + 1, "every file is in the list");
    for module in ORDER {
        let lines = source(module).split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(lines <= MOST_LINES, "{module} has {lines} lines");
    }
}
