//! Holds the order of the rooms, and the fences around the libraries that only some rooms may use.

use std::path::{Path, PathBuf};

/// The rooms in the order of the data. Those of one line are siblings, which never import each other.
const ORDER: [&[&str]; 14] = [
    &["base", "faults"],
    &["model"],
    &["keyring"],
    &["store", "net"],
    &["schedule"],
    &["deliver"],
    &["intake"],
    &["ops"],
    &["api"],
    &["config"],
    &["app"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// A library, the files that may use it, and nobody else.
const FENCES: [(&str, &[&str]); 11] = [
    ("rdkafka::", &["intake/", "demo/"]),
    ("rusqlite::", &["store/sqlite/", "store/people/"]),
    ("hyper::", &["net/"]),
    ("hyper_util::", &["net/", "api/mod.rs"]),
    ("axum::", &["api/"]),
    ("utoipa", &["api/"]),
    ("h2::", &["net/"]),
    ("indicatif::", &["cli/"]),
    ("backoff::", &["base/pace.rs"]),
    ("hickory_resolver::", &["net/dns.rs"]),
    ("SystemTime", &["base/clock.rs"]),
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn room_of(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

fn place(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a line of code names as `crate::room`.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(name);
        }
    }
    found
}

fn trespasses(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files {
        let room = room_of(file);
        let Some(own) = place(room) else { continue };
        for imported in imports(text) {
            let Some(other) = place(&imported) else { continue };
            if other >= own && imported != room {
                found.push(format!("{file} imports {imported}"));
            }
        }
        for (library, may) in FENCES {
            let uses = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(library));
            if uses && !may.iter().any(|place| file.starts_with(place)) {
                found.push(format!("{file} uses {library}"));
            }
        }
        if !file.starts_with("store/")
            && ["SELECT ", "INSERT INTO ", "DELETE FROM "].iter().any(|sql| text.contains(sql))
        {
            found.push(format!("{file} holds SQL"));
        }
    }
    found
}

#[test]
fn rooms_keep_their_order_and_fences() {
    assert_eq!(trespasses(&sources()), Vec::<String>::new());
}

#[test]
fn every_file_is_in_a_room_and_of_a_readable_size() {
    for (file, text) in sources() {
        let room = room_of(&file);
        assert!(room == "lib" || place(room).is_some(), "{file} is in no room");
        let code = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(code <= 560, "{file} has {code} lines: has it grown past one idea?");
    }
}

#[test]
fn breaking_the_order_is_seen() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    for (broken, what) in [
        (file("model/x.rs", "use crate::store::Store;"), "model/x.rs imports store"),
        (file("net/x.rs", "use crate::store::Store;"), "net/x.rs imports store"),
        (file("deliver/x.rs", "fn f() { crate::intake::decode() }"), "deliver/x.rs imports intake"),
        (file("deliver/x.rs", "use rdkafka::Message;"), "deliver/x.rs uses rdkafka::"),
        (file("ops/x.rs", "let sql = \"SELECT 1\";"), "ops/x.rs holds SQL"),
        (file("deliver/x.rs", "let now = SystemTime::now();"), "deliver/x.rs uses SystemTime"),
    ] {
        assert_eq!(trespasses(&[broken]), [what]);
    }
    assert!(trespasses(&[file("app.rs", "use crate::store::Store; // crate::cli is not imported")]).len() <= 1);
}
