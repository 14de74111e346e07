//! Servers on which no store can stand now, or ever: a daemon waits or says why it ends, and never ends in a circle of starts.

use callbackd_bench::pgbouncer::Pgbouncer;
use callbackd_bench::postgres::Postgres;

use crate::harness::PAUSE;
use crate::postgres;
use crate::process::Process;

/// A daemon that reads nothing from Kafka, with this store.
fn daemon(url: &str) -> Process {
    let mut daemon = Process::new("127.0.0.1:1", "nothing", "");
    daemon.holds_intake = true;
    daemon.variables.push(("CALLBACKD_STORE__URL".to_owned(), url.to_owned()));
    daemon
}

/// Waits until `/readyz` says this.
async fn says(daemon: &Process, what: &str) -> u16 {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let page = daemon.page("/readyz").await;
        if let Some((status, _)) = page.as_ref().filter(|(_, page)| page.contains(what)) {
            return *status;
        }
        assert!(tokio::time::Instant::now() < end, "{what:?} is not in {page:?}\n{}", daemon.log_text());
        tokio::time::sleep(PAUSE).await;
    }
}

/// A stop in order.
async fn stop(daemon: &mut Process) {
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
}

/// It ends by itself with the status of a refused configuration, and with one sentence that says this.
async fn refuses(url: &str, what: &str) {
    let mut daemon = daemon(url);
    daemon.spawn(None, "info");
    assert_eq!(daemon.ended().await, 2, "{}", daemon.log_text());
    let log = daemon.log_text();
    assert!(log.contains(what), "{what:?} is not in {log}");
    assert!(!log.contains("hidden-word"), "{log}");
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut server = Postgres::start().unwrap();
    let url = server.create_database("away").unwrap();
    server.stop();
    let mut waits = daemon(&url);
    waits.start(None, "info").await;
    assert_eq!(says(&waits, "Connection refused").await, 503);
    assert_eq!(
        (waits.metric("callbackd_store_up").await, waits.metric("callbackd_ready").await),
        (Some(0.0), Some(0.0))
    );
    // A stop does not wait for the store.
    stop(&mut waits).await;
    waits.start(None, "info").await;
    server.run().unwrap();
    says(&waits, "\"answers\":true").await;
    crate::harness::until("it runs", async || waits.log_text().contains("callbackd runs").then_some(())).await;
    let log = waits.log_text();
    assert!(log.contains("the store is open"), "{log}");
    assert!(
        log.matches("the store can't be opened yet").count() <= 4,
        "a line for each reason, none for each try: {log}"
    );
    stop(&mut waits).await;
}

#[tokio::test]
async fn a_daemon_waits_for_a_tool_that_must_be_alone() {
    let url = postgres::database();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.query_one("SELECT pg_advisory_lock(x'63616c6c'::integer, 1)", &[]).await.unwrap();
    let mut waits = daemon(&url);
    waits.start(None, "info").await;
    says(&waits, "is held by a tool").await;
    drop(client);
    connection.await.unwrap().unwrap();
    says(&waits, "\"answers\":true").await;
    // And the tools say that they must be alone.
    let mut info = std::process::Command::new(crate::process::BINARY);
    let done = info.args(["store", "info", "--config"]).arg(waits.config()).env("CALLBACKD_STORE__URL", &url).output();
    let told = String::from_utf8_lossy(&done.unwrap().stderr).into_owned();
    assert!(told.contains("is in use by"), "{told}");
    stop(&mut waits).await;
}

#[tokio::test]
async fn an_instance_whose_name_was_taken_meanwhile_begins_anew_and_waits() {
    let url = postgres::database();
    let name = url.rsplit('/').next().unwrap();
    let named = || {
        let mut daemon = daemon(&url);
        daemon.variables.push(("CALLBACKD_INSTANCE__NAME".to_owned(), "blue".to_owned()));
        daemon
    };
    let mut first = named();
    first.start(None, "info").await;
    says(&first, "\"answers\":true").await;
    let mut second = named();
    second.start(None, "info").await;
    says(&second, "another callbackd runs under the name").await;
    // The first one stands still, and its connection is cut.
    first.signal("STOP");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    postgres::server().sql(name, cut).unwrap();
    says(&second, "\"answers\":true").await;
    first.signal("CONT");
    says(&first, "another callbackd runs under the name").await;
    assert!(first.log_text().contains("begins anew"), "{}", first.log_text());
    assert_eq!(says(&second, "\"answers\":true").await, 503, "intake is held");
    stop(&mut second).await;
    says(&first, "\"answers\":true").await;
    stop(&mut first).await;
}

#[tokio::test]
async fn with_manual_migrations_a_daemon_waits_for_the_operator() {
    for url in [postgres::database(), String::new()] {
        let mut daemon = daemon(&url);
        daemon.variables.push(("CALLBACKD_STORE__MIGRATE".to_owned(), "manual".to_owned()));
        daemon.start(None, "info").await;
        says(&daemon, "run: callbackd migrate").await;
        let mut migrate = std::process::Command::new(crate::process::BINARY);
        migrate.args(["migrate", "--config"]).arg(daemon.config()).env("CALLBACKD_STORE__URL", &url);
        let done = migrate.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        says(&daemon, "\"answers\":true").await;
        stop(&mut daemon).await;
    }
}

#[tokio::test]
async fn a_read_only_database_is_waited_for() {
    let url = postgres::database();
    let name = url.rsplit('/').next().unwrap();
    let set = |to: &str| {
        postgres::server().sql("postgres", &format!("ALTER DATABASE {name} {to}")).unwrap();
    };
    set("SET default_transaction_read_only = on");
    let mut waits = daemon(&url);
    waits.start(None, "info").await;
    says(&waits, "the database is read-only").await;
    set("RESET default_transaction_read_only");
    says(&waits, "\"answers\":true").await;
    stop(&mut waits).await;
}

#[tokio::test]
async fn a_server_that_is_full_is_waited_for() {
    let url = postgres::database();
    let name = url.rsplit('/').next().unwrap();
    let admin = |sql: &str| postgres::server().sql("postgres", sql).unwrap();
    // Limits do not hold for a superuser.
    admin(&format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT 0; ALTER DATABASE {name} OWNER TO {name}"));
    let mut waits = daemon(&url.replace("callbackd@", &format!("{name}@")));
    waits.start(None, "info").await;
    says(&waits, "too many connections").await;
    admin(&format!("ALTER ROLE {name} CONNECTION LIMIT -1"));
    says(&waits, "\"answers\":true").await;
    stop(&mut waits).await;
}

#[tokio::test]
async fn what_no_wait_mends_ends_the_start_with_one_sentence() {
    let server = Postgres::start().unwrap();
    let url = server.create_database("store").unwrap();
    refuses(&server.url("nowhere"), "database \"nowhere\" does not exist").await;
    refuses(&url.replace("callbackd@", "nobody:hidden-word@"), "role \"nobody\" does not exist").await;
    refuses(&format!("{url}?sslmode=verify-full"), "does not support TLS").await;
    server
        .sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        .unwrap();
    refuses(&server.url("latin"), "the database's encoding is LATIN1; create one with ENCODING 'UTF8'").await;
    server
        .sql("store", "CREATE TABLE schema_version (version bigint); INSERT INTO schema_version VALUES (99)")
        .unwrap();
    refuses(&url, "it was written by a newer callbackd (schema 99").await;
    for (name, what) in [("fsync", "a power cut would lose callbacks"), ("full_page_writes", "could destroy the store")]
    {
        server.sql("postgres", &format!("ALTER SYSTEM SET {name} = off")).unwrap();
        server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
        refuses(&url, what).await;
        server.sql("postgres", &format!("ALTER SYSTEM RESET {name}")).unwrap();
    }
}

#[tokio::test]
async fn a_pool_of_sessions_is_used_and_one_of_transactions_is_refused() {
    let url = postgres::database();
    let name = url.rsplit('/').next().unwrap();
    let transactions = Pgbouncer::start(postgres::server(), "transaction").unwrap();
    refuses(&transactions.url(name), "a pooler in transaction mode stands before the server").await;
    let sessions = Pgbouncer::start(postgres::server(), "session").unwrap();
    let mut works = daemon(&sessions.url(name));
    works.start(None, "info").await;
    says(&works, "\"answers\":true").await;
    works.team("team_acme");
    stop(&mut works).await;
}

#[tokio::test]
async fn a_server_that_is_away_behind_a_pooler_is_waited_for() {
    let mut server = Postgres::start().unwrap();
    server.create_database("behind").unwrap();
    let pooler = Pgbouncer::start(&server, "session").unwrap();
    server.stop();
    let mut waits = daemon(&pooler.url("behind"));
    waits.start(None, "info").await;
    says(&waits, "\"answers\":false").await;
    server.run().unwrap();
    says(&waits, "\"answers\":true").await;
    stop(&mut waits).await;
}
