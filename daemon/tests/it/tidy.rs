//! Checks the structure of the code: the order of the rooms, which rooms may use which libraries, no circles among
//! modules, files of a readable size, and tests that wait on conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The daemon's rooms in the order of the data. Rooms in one line are siblings, which never import each other.
const ORDER: [&[&str]; 17] = [
    &["faults"],
    &["base"],
    &["model"],
    &["keyring"],
    &["store", "net"],
    &["schedule"],
    &["flight"],
    &["deliver"],
    &["intake"],
    &["publish"],
    &["ops"],
    &["api"],
    &["config"],
    &["app"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// The order inside a room that has folders: a part imports only from parts named before it.
const ORDER_INSIDE: [(&str, &[&[&str]]); 5] = [
    (
        "store",
        &[
            &["sql"],
            &["filter", "letters"],
            &["resends"],
            &["engine", "reads", "admin"],
            &["outbox"],
            &["report", "copied"],
            &["sqlite", "memory", "faulty", "batch"],
            &["copy", "tools"],
        ],
    ),
    (
        "store/sqlite",
        &[
            &["error"],
            &["id_cache", "migrations", "no_room"],
            &["connection"],
            &["sql"],
            &["engine"],
            &["reads"],
            &["tools"],
        ],
    ),
    ("flight", &[&["offset_tracker", "stage", "composed"], &["table"], &["settle"]]),
    (
        "intake",
        &[
            &["settings", "decode", "partition"],
            &["headers"],
            &["context"],
            &["interpret"],
            &["rebalance"],
            &["session"],
        ],
    ),
    ("api", &[&["problem"], &["shapes"], &["access"], &["extract", "paging"], &["routes", "probes"], &["openapi"]]),
];

/// Each library with the only files of the daemon that may use it.
const FENCES: [(&str, &[&str]); 13] = [
    ("rdkafka::", &["intake/", "publish/", "demo/"]),
    ("rusqlite::", &["store/sqlite/"]),
    ("tokio_postgres::", &["store/postgres/"]),
    ("deadpool_postgres::", &["store/postgres/"]),
    ("hyper::", &["net/"]),
    ("hyper_util::", &["net/", "api/mod.rs"]),
    ("axum::", &["api/"]),
    ("utoipa", &["api/"]),
    ("h2::", &["net/"]),
    ("indicatif::", &["cli/"]),
    ("backoff::", &["base/pace.rs"]),
    ("hickory_resolver::", &["net/dns.rs"]),
    ("SystemTime", &["base/clock/mod.rs"]),
];

/// The most lines of code in one file, without its tests.
const LONGEST_FILE: usize = 400;

/// Sources of a crate by their path below `src`.
type Sources = Vec<(String, String)>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path) -> Sources {
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
    let mut files = Vec::new();
    walk(folder, &mut files);
    files.sort();
    let name = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn daemon() -> Sources {
    rust_files(&workspace().join("daemon/src"))
}

/// Every crate with its sources.
fn crates() -> Vec<(&'static str, Sources)> {
    let names = ["sdk", "serve", "gate", "daemon", "bench"];
    names.into_iter().map(|name| (name, rust_files(&workspace().join(name).join("src")))).collect()
}

/// Whether a file holds only tests.
fn is_tests(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("tests/")
}

/// The code of a file: without its tests and without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn room_of(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

fn place(order: &[&[&str]], part: &str) -> Option<usize> {
    order.iter().position(|parts| parts.contains(&part))
}

/// The names that follow `prefix` in a file's code.
fn named_after(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code(text) {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

fn trespasses(files: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files {
        let room = room_of(file);
        let Some(own) = place(&ORDER, room) else { continue };
        for imported in named_after(text, "crate::") {
            let Some(other) = place(&ORDER, &imported) else { continue };
            if other >= own && imported != room {
                found.push(format!("{file} imports {imported}"));
            }
        }
        for (library, may) in FENCES {
            if code(text).any(|line| line.contains(library)) && !may.iter().any(|place| file.starts_with(place)) {
                found.push(format!("{file} uses {library}"));
            }
        }
        let is_sql = |line: &str| ["SELECT ", "INSERT INTO ", "DELETE FROM "].iter().any(|sql| line.contains(sql));
        if !file.starts_with("store/") && code(text).any(is_sql) {
            found.push(format!("{file} holds SQL"));
        }
    }
    found
}

#[test]
fn rooms_keep_their_order_and_fences() {
    assert_eq!(trespasses(&daemon()), Vec::<String>::new());
}

/// Statements that break, or write into the wrong columns, once a newer program has added a column: they take all columns, or name
/// none of those that they write.
fn statements_without_columns(files: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| file.starts_with("store/") && !is_tests(file)) {
        for line in code(text) {
            if line.contains("SELECT *") || line.contains("RETURNING *") {
                found.push(format!("{file}: {}", line.trim()));
            }
            for (at, into) in line.match_indices("INTO ") {
                let (before, rest) = (&line[..at], &line[at + into.len()..]);
                let is_table = |c: char| c.is_alphanumeric() || ['_', '{', '}'].contains(&c);
                let after = rest.trim_start_matches(is_table).trim_start();
                if before.contains("INSERT") && !after.starts_with('(') {
                    found.push(format!("{file}: {}", line.trim()));
                }
            }
        }
    }
    found
}

#[test]
fn a_column_that_is_added_breaks_no_statement() {
    let found = statements_without_columns(&daemon());
    // Rows are moved to a table that has the same columns, and none may be lost.
    let is_allowed =
        |line: &String| line.starts_with("store/postgres/engine/days.rs: ") && line.contains("{table}_other");
    let wrong: Vec<_> = found.iter().filter(|line| !is_allowed(line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let file = |text: &str| vec![("store/x.rs".to_owned(), text.to_owned())];
    for broken in
        ["\"SELECT * FROM pending\"", "\"INSERT INTO body VALUES ($1, $2)\"", "INSERT OR REPLACE INTO {name} SELECT 1"]
    {
        assert_eq!(statements_without_columns(&file(broken)).len(), 1, "{broken}");
    }
    assert_eq!(statements_without_columns(&file("\"INSERT INTO {table} (id) VALUES ($1)\"")), Vec::<String>::new());
}

/// Which parts of its room each part imports, for the room or crate whose files begin with `folder`.
fn imports_inside(files: &Sources, folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let from_crate = format!("crate::{}", prefix.replace('/', "::"));
    let inside = files.iter().filter_map(|(file, text)| Some((file.strip_prefix(&prefix)?, text)));
    let inside: Vec<_> = inside.filter(|(file, _)| !is_tests(file)).collect();
    let parts: BTreeSet<String> = inside.iter().map(|(file, _)| room_of(file).to_owned()).collect();
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for (file, text) in inside {
        let part = room_of(file);
        // The `mod.rs` of a room (or the `lib.rs` of a crate) may import all its parts.
        if ["mod", "lib", "main"].contains(&part) {
            continue;
        }
        let depth = file.matches('/').count() - usize::from(file.ends_with("/mod.rs"));
        let from_super = "super::".repeat(depth + 1);
        let mut named = named_after(text, &from_crate);
        for line in code(text) {
            for (at, _) in line.match_indices(&from_super) {
                let rest = &line[at + from_super.len()..];
                if line[..at].ends_with("super::") || rest.starts_with("super::") {
                    continue;
                }
                let names = rest.strip_prefix('{').map_or(vec![rest], |list| list.split(", ").collect());
                let first = |name: &str| name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                named.extend(names.into_iter().map(first));
            }
        }
        let others = named.into_iter().filter(|other| other != part && parts.contains(other));
        imports.entry(part.to_owned()).or_default().extend(others);
    }
    imports
}

/// A circle among parts that import each other, if there is one.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        part: &str,
        imports: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = path.iter().position(|seen| seen == part) {
            return Some(path[at..].to_vec());
        }
        if done.contains(part) {
            return None;
        }
        path.push(part.to_owned());
        let found = imports.get(part).into_iter().flatten().find_map(|next| walk(next, imports, path, done));
        path.pop();
        done.insert(part.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|part| walk(part, imports, &mut Vec::new(), &mut done))
}

/// Every folder of a crate, its root included.
fn folders(files: &Sources) -> BTreeSet<String> {
    let mut found = BTreeSet::from([String::new()]);
    for (file, _) in files {
        found.extend(file.match_indices('/').map(|(at, _)| file[..at].to_owned()));
    }
    found
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for (name, files) in crates() {
        for folder in folders(&files) {
            found.extend(
                circle(&imports_inside(&files, &folder)).map(|circle| (format!("{name}/src/{folder}"), circle)),
            );
        }
    }
    assert_eq!(found, []);
}

#[test]
fn the_parts_of_a_room_keep_their_order() {
    let files = daemon();
    let mut found = Vec::new();
    for (room, order) in ORDER_INSIDE {
        for part in order.iter().copied().flatten() {
            let is_there =
                files.iter().any(|(file, _)| file.strip_prefix(room).is_some_and(|rest| room_of(&rest[1..]) == *part));
            assert!(is_there, "{room} has no part {part}");
        }
        for (part, imported) in imports_inside(&files, room) {
            let Some(own) = place(order, &part) else { continue };
            let wrong = imported.into_iter().filter(|other| place(order, other).is_some_and(|place| place >= own));
            found.extend(wrong.map(|other| format!("in {room}, {part} imports {other}")));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_file_is_in_a_room_and_of_a_readable_size() {
    for (file, _) in daemon() {
        let room = room_of(&file);
        assert!(room == "lib" || place(&ORDER, room).is_some(), "{file} is in no room");
    }
    for (name, files) in crates() {
        for (file, text) in files.iter().filter(|(file, _)| !is_tests(file)) {
            let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
            assert!(lines <= LONGEST_FILE, "{name}/src/{file} has {lines} lines: split it");
        }
    }
}

/// The Rust files with tests of every crate: a test of an invariant may be beside the code or in `tests`.
fn test_code() -> String {
    let root = workspace();
    let mut all = String::new();
    for name in ["sdk", "serve", "gate", "daemon"] {
        for folder in ["src", "tests"] {
            let folder = root.join(name).join(folder);
            if folder.is_dir() {
                all.extend(rust_files(&folder).into_iter().map(|(_, text)| text));
            }
        }
    }
    all
}

/// The names of tests in the invariants of ARCHITECTURE.md: words of lower case and underscores between backticks.
fn tests_named_by_invariants(page: &str) -> Vec<String> {
    let section = page.split("\n## Invariants").nth(1).expect("the page has invariants");
    let section = section.split("\n## ").next().unwrap();
    let words = section.split('`').skip(1).step_by(2);
    let is_test = |word: &&str| {
        word.matches('_').count() >= 2 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    words.filter(is_test).map(str::to_owned).collect()
}

#[test]
fn every_test_that_an_invariant_names_exists() {
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let named = tests_named_by_invariants(&page);
    assert!(named.len() >= 20, "{named:?}");
    let code = test_code();
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names tests that are not there: {missing:?}");
}

/// A sleep of a literal time in a test's code: it waits too long on a fast machine and too short on a slow one.
fn fixed_sleeps(text: &str) -> Vec<&str> {
    let is_fixed = |line: &&str| {
        line.split("sleep(").nth(1).is_some_and(|rest| {
            rest.split("::").last().is_some_and(|end| {
                (rest.contains("Duration::from_") || rest.starts_with("from_"))
                    && end.split_once('(').is_some_and(|(_, number)| number.starts_with(|c: char| c.is_ascii_digit()))
            })
        })
    };
    text.lines().filter(|line| !line.trim_start().starts_with("//")).filter(is_fixed).collect()
}

#[test]
fn no_test_sleeps_for_a_fixed_time() {
    for name in ["sdk", "serve", "gate", "daemon"] {
        let folder = workspace().join(name).join("tests");
        if !folder.is_dir() {
            continue;
        }
        for (file, text) in rust_files(&folder).iter().filter(|(file, _)| !file.ends_with("tidy.rs")) {
            let fixed = fixed_sleeps(text);
            assert!(fixed.is_empty(), "{name}/tests/{file} sleeps for a fixed time: {fixed:?}");
        }
    }
}

#[test]
fn breaking_the_order_is_seen() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    for (broken, what) in [
        (file("model/x.rs", "use crate::store::EngineStore;"), "model/x.rs imports store"),
        (file("net/x.rs", "use crate::store::EngineStore;"), "net/x.rs imports store"),
        (file("flight/x.rs", "use crate::deliver::Engine;"), "flight/x.rs imports deliver"),
        (file("deliver/x.rs", "fn f() { crate::intake::decode() }"), "deliver/x.rs imports intake"),
        (file("deliver/x.rs", "use rdkafka::Message;"), "deliver/x.rs uses rdkafka::"),
        (file("ops/x.rs", "let sql = \"SELECT 1\";"), "ops/x.rs holds SQL"),
        (file("deliver/x.rs", "let now = SystemTime::now();"), "deliver/x.rs uses SystemTime"),
    ] {
        assert_eq!(trespasses(&vec![broken]), [what]);
    }
    let circular = vec![
        file("room/mod.rs", "mod a;\nmod b;"),
        file("room/a.rs", "use super::{b, Thing};"),
        file("room/b/mod.rs", "use super::c::X;"),
        file("room/b/deep.rs", "use super::super::c::X;"),
        file("room/c.rs", "use crate::room::a::Y;"),
    ];
    let found = circle(&imports_inside(&circular, "room")).expect("a circle");
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!(circle(&imports_inside(&circular[..4].to_vec(), "room")), None);
    assert_eq!(fixed_sleeps("tokio::time::sleep(Duration::from_millis(300)).await;\nsleep(PAUSE).await;").len(), 1);
    let page = "\n## Invariants\n1. `the_watermark_rises`, `store_contract`.\n## Next `not_a_test_of_ours`";
    assert_eq!(tests_named_by_invariants(page), ["the_watermark_rises"]);
}
