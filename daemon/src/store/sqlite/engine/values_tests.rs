//! Statements that sum up the lengths of large values must not load the values. SQLite loads them all the same if it sorts
//! the rows first.

use std::collections::HashSet;

use rusqlite::Connection;

use super::super::migrations::tests::empty;
use super::{dead_letters, upkeep};

/// SQLite marks the reading of a column with one of these if only its length or its type is needed.
const ONLY_LENGTH_OR_TYPE: i64 = 0x40 | 0x80;

/// Whether a statement reads this column of the table, and not only its length.
fn loads(connection: &Connection, sql: &str, table: &str, column: i64) -> bool {
    let root: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1", [table], |row| row.get(0))
        .unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN {sql}")).unwrap();
    let steps = statement
        .query_map([], |row| Ok((row.get::<_, String>(1)?, row.get(2)?, row.get::<_, i64>(3)?, row.get::<_, i64>(6)?)));
    let steps: Vec<(String, i64, i64, i64)> = steps.unwrap().collect::<Result<_, _>>().unwrap();
    let cursors: HashSet<i64> = steps
        .iter()
        .filter(|(name, _, page, _)| ["OpenRead", "OpenWrite", "ReopenIdx"].contains(&name.as_str()) && *page == root)
        .map(|(_, cursor, ..)| *cursor)
        .collect();
    assert!(!cursors.is_empty(), "{sql} does not open {table}");
    steps.iter().any(|(name, cursor, number, flags)| {
        name == "Column" && cursors.contains(cursor) && *number == column && flags & ONLY_LENGTH_OR_TYPE == 0
    })
}

fn column(connection: &Connection, table: &str, name: &str) -> i64 {
    let sql = "SELECT cid FROM pragma_table_info(?1) WHERE name = ?2";
    connection.query_row(sql, [table, name], |row| row.get(0)).unwrap()
}

#[test]
fn sums_of_lengths_load_no_values() {
    let connection = empty();
    let bytes = column(&connection, "body", "bytes");
    let by_join = "SELECT queue, sum(length(bytes)) FROM pending JOIN body ON body.id = pending.id GROUP BY queue";
    assert!(loads(&connection, by_join, "body", bytes), "this test would not notice a body that is loaded");
    assert!(!loads(&connection, upkeep::QUEUES_SEEN, "body", bytes));
    let value = column(&connection, "dead_letter", "value");
    assert!(!loads(&connection, &dead_letters::freed_by("SELECT id FROM dead_letter"), "dead_letter", value));
}
