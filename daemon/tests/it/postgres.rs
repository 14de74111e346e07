//! The PostgreSQL server of the tests. With `CALLBACKD_TEST_STORE=postgres`, every test of a daemon runs on it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use callbackd_bench::postgres::Postgres;

/// The server that all tests share. It ends with this process, because the process holds its standard input.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start().expect("a real PostgreSQL; say: make test"))
}

/// The URL of an empty database.
pub fn database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("store_{}", COUNT.fetch_add(1, Ordering::SeqCst));
    server().create_database(&name).unwrap()
}

/// The URL of a store for a daemon under test; `None` for SQLite.
pub fn store_url() -> Option<String> {
    let name = std::env::var("CALLBACKD_TEST_STORE").unwrap_or_default();
    assert!(["", "sqlite", "postgres"].contains(&name.as_str()), "CALLBACKD_TEST_STORE is {name:?}");
    (name == "postgres").then(database)
}
