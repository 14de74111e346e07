//! Fills a store on PostgreSQL with rows, a part of a day at a time, into days like those that daemons make.

use callbackd_bench::postgres::Postgres;

use super::filled::{ENDPOINTS_A_TEAM, Filled, NUMBERS, TEAMS};

/// Rows of one transaction.
const CHUNK: u64 = 250_000;

pub(crate) async fn fill(server: &Postgres, database: &str, filled: Filled) -> anyhow::Result<()> {
    server.sql(database, &days(filled))?;
    server.sql(database, &names())?;
    for from in (0..filled.rows).step_by(usize::try_from(CHUNK)?) {
        server.sql(database, &rows(filled, from, (from + CHUNK).min(filled.rows)))?;
        // A run that takes too long is given up here.
        tokio::task::yield_now().await;
    }
    // As autovacuum leaves them in a store that has grown slowly. Otherwise the first look-ups would do its work.
    server.sql(database, "VACUUM (ANALYZE) settled, attempt, queue")?;
    server.sql(database, "CHECKPOINT")?;
    Ok(())
}

/// The days from the oldest row to tomorrow, as `daemon/src/store/postgres/engine/days.rs` makes them.
fn days(filled: Filled) -> String {
    let (oldest, tomorrow) = (filled.oldest / 86_400_000, filled.newest / 86_400_000 + 1);
    format!(
        "DO $$
         DECLARE
             day   date;
             name  text;
             first text;
             next  text;
         BEGIN
             FOR number IN {oldest}..{tomorrow} LOOP
                 day := date '1970-01-01' + number;
                 name := to_char(day, 'YYYYMMDD');
                 first := lpad(to_hex(number * 86400000::bigint), 12, '0') || repeat('0', 20);
                 next := lpad(to_hex((number + 1) * 86400000::bigint), 12, '0') || repeat('0', 20);
                 EXECUTE format('CREATE TABLE IF NOT EXISTS settled_%s PARTITION OF settled FOR VALUES FROM (%L) TO (%L)',
                                name, first, next);
                 EXECUTE format('CREATE TABLE IF NOT EXISTS attempt_%s PARTITION OF attempt FOR VALUES FROM (%L) TO (%L)',
                                name, first, next);
                 EXECUTE format('CREATE INDEX IF NOT EXISTS settled_%s_at ON settled_%s USING brin (settled_at)
                                 WITH (autosummarize = on)', name, name);
             END LOOP;
         END $$"
    )
}

/// The partition and the queues that the rows name.
fn names() -> String {
    format!(
        "INSERT INTO partition_offsets (id, cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
         OVERRIDING SYSTEM VALUE VALUES ({NUMBERS}, 'filled', 'filled', 0, 0, 0, 0, 0);
         INSERT INTO queue (id, team, target, used_at) OVERRIDING SYSTEM VALUE
         SELECT {NUMBERS} + team * {ENDPOINTS_A_TEAM} + endpoint, 'team_' || team,
                'https://r' || endpoint || '.example:443', (extract(epoch FROM now()) * 1000)::bigint
         FROM generate_series(0, {TEAMS} - 1) AS teams (team),
              generate_series(0, {ENDPOINTS_A_TEAM} - 1) AS endpoints (endpoint)"
    )
}

/// Rows from one number to before another, with their attempts. `fate` says how a callback ended: 0 is exhausted, 1 abandoned, 2
/// delivered by its second attempt; the others were delivered by their first, which has no row.
fn rows(filled: Filled, from: u64, to: u64) -> String {
    let Filled { rows, newest, oldest } = filled;
    let span = newest - oldest;
    let filled = format!(
        "WITH filled AS (
             SELECT n, at, (lpad(to_hex(at), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid AS id, mix % {TEAMS} AS team,
                    mix / {TEAMS} % {ENDPOINTS_A_TEAM} AS endpoint, mix / 1000 % 20 AS fate,
                    CASE WHEN mix / 20000 % 2 = 0 THEN 'url_invalid' ELSE 'address_denied' END AS refusal
             FROM (SELECT n, {oldest} + n * {span} / {rows} AS at, hashint8extended(n, 0) & 2147483647 AS mix
                   FROM generate_series({from}::bigint, {to}::bigint - 1) AS numbers (n)) AS mixed
         )"
    );
    format!(
        "{filled}
         INSERT INTO settled (id, partition_id, off, record_at, queue, first_at, settled_at, builder, attempts, status,
             round, revision, test, team, task, event_id, event_type, content_hash, state, reason, outcome)
         SELECT id, {NUMBERS}, n, at, {NUMBERS} + team * {ENDPOINTS_A_TEAM} + endpoint, at,
                at + CASE fate WHEN 0 THEN 20000 WHEN 2 THEN 10000 ELSE 0 END, 1,
                CASE fate WHEN 0 THEN 3 WHEN 2 THEN 2 ELSE 1 END,
                CASE fate WHEN 0 THEN 503 WHEN 1 THEN NULL ELSE 200 END, 0, 1, false, 'team_' || team,
                convert_to('f' || lpad(to_hex(n), 23, '0'), 'UTF8'), convert_to(id::text, 'UTF8'), 'task.completed',
                sha256(int8send(n)),
                CASE fate WHEN 0 THEN 'exhausted' WHEN 1 THEN 'abandoned' ELSE 'delivered' END,
                CASE fate WHEN 1 THEN refusal END,
                CASE fate WHEN 0 THEN 'server_error' WHEN 1 THEN refusal ELSE 'ok' END
         FROM filled;
         {filled}
         INSERT INTO attempt (id, n, round, status, begun_at, ms, sent, redialed, outcome, peer, snippet)
         SELECT id, try, 0, CASE WHEN fate = 1 THEN NULL WHEN fate = 2 AND try = 2 THEN 200 ELSE 503 END,
                at + (try - 1) * 10000, 20, fate <> 1, false,
                CASE WHEN fate = 1 THEN refusal WHEN fate = 2 AND try = 2 THEN 'ok' ELSE 'server_error' END, NULL,
                CASE WHEN fate = 1 OR (fate = 2 AND try = 2) THEN ''::bytea ELSE 'unavailable'::bytea END
         FROM filled, generate_series(1, 3) AS tries (try)
         WHERE (fate = 0 AND try <= 3) OR (fate = 1 AND try = 1) OR (fate = 2 AND try <= 2)"
    )
}
