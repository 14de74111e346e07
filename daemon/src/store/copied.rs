//! What a copy of a store to another database consists of: its tables with their columns, and the pieces in which rows are read
//! and written. The numbers of partitions, queues and instances stay what they are, so rows are copied as they are.

use super::sql::Value;

/// The rows of a piece are at most so many.
pub(super) const ROWS: usize = 2_000;
/// A piece that has so many bytes takes no further row.
pub(super) const BYTES: usize = 8 << 20;

/// A table that is copied.
#[derive(Debug)]
pub(super) struct CopiedTable {
    pub(super) name: &'static str,
    /// How many of the first columns are the primary key.
    pub(super) key: usize,
    /// "name type" pairs: the columns have these names in both databases, and these types on PostgreSQL.
    columns: &'static str,
    /// A further column that PostgreSQL has, with its value.
    pub(super) also: Option<(&'static str, &'static str)>,
    /// PostgreSQL numbers its rows.
    pub(super) is_numbered: bool,
}

/// How a column is written. SQLite has fewer types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Integer,
    Truth,
    Text,
    Bytes,
}

impl CopiedTable {
    const fn new(name: &'static str, key: usize, columns: &'static str) -> Self {
        Self { name, key, columns, also: None, is_numbered: false }
    }

    const fn numbered(name: &'static str, columns: &'static str) -> Self {
        Self { name, key: 1, columns, also: None, is_numbered: true }
    }

    /// The columns as "name type" pairs, with one space in each.
    pub(super) fn typed(&self) -> String {
        self.pairs().map(|(name, of)| format!("{name} {of}")).collect::<Vec<_>>().join(", ")
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.columns.split(',').map(|pair| pair.trim().split_once(' ').unwrap_or((pair, "bytea")))
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.pairs().map(|(name, _)| name).collect()
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        let kind = |of| match of {
            "uuid" => Kind::Id,
            "bigint" | "integer" => Kind::Integer,
            "boolean" => Kind::Truth,
            "text" => Kind::Text,
            _ => Kind::Bytes,
        };
        self.pairs().map(|(_, of)| kind(of)).collect()
    }

    /// The first column, by which changes are logged.
    pub(super) fn first(&self) -> (&'static str, &'static str) {
        self.pairs().next().unwrap_or_default()
    }
}

/// Rows of a table.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) rows: Vec<Vec<Value>>,
    /// The key of the last row.
    pub(super) last: Option<Vec<Value>>,
    /// No rows follow.
    pub(super) is_end: bool,
}

/// What has changed since it was copied: the first columns of rows that are written anew, and those of the rows that are there.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) table: &'static CopiedTable,
    pub(super) ids: Vec<Vec<u8>>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// A cursor as text: the values of a key, with commas between them.
pub(super) fn written(key: &[Value]) -> String {
    let part = |value: &Value| match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => scale_callback_serve::text::hex(bytes),
    };
    key.iter().map(part).collect::<Vec<_>>().join(",")
}

/// A cursor that was written for this table. `None` if it is none.
pub(super) fn read(table: &CopiedTable, cursor: &str) -> Option<Vec<Value>> {
    let parts: Vec<_> = cursor.split(',').collect();
    let kinds = table.kinds();
    if parts.len() != table.key {
        return None;
    }
    let value = |(part, kind): (&&str, &Kind)| match kind {
        Kind::Integer | Kind::Truth => part.parse().ok().map(Value::Integer),
        Kind::Text => Some(Value::Text((*part).to_owned())),
        Kind::Id | Kind::Bytes => bytes(part).map(Value::Bytes),
    };
    parts.iter().zip(&kinds).map(value).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// The tables that may be large. They are copied while a daemon works on the store, and what changes meanwhile is copied again. The log of
/// the changes names each by its place here.
pub(super) static LARGE: [CopiedTable; 7] = [
    CopiedTable::new(
        "settled",
        1,
        "id uuid, partition_id bigint, off bigint, record_at bigint, queue bigint, first_at bigint, settled_at bigint,
         builder integer, attempts integer, status integer, round integer, revision integer, test boolean, team text,
         task bytea, event_id bytea, event_type text, content_hash bytea, state text, reason text, outcome text,
         sent_with bigint",
    ),
    CopiedTable::new(
        "attempt",
        2,
        "id uuid, n integer, round integer, status integer, begun_at bigint, ms bigint, sent boolean, redialed boolean,
         outcome text, peer text, snippet bytea, sent_with bigint",
    ),
    CopiedTable::new("kept_body", 1, "id uuid, size bigint, bytes bytea"),
    CopiedTable::new(
        "dead_letter",
        1,
        "id uuid, partition_id bigint, off bigint, record_at bigint, buried_at bigint, value_len bigint, reason text,
         detail bytea, team bytea, task bytea, event_id bytea, value bytea, value_hash bytea, fate text, callback uuid,
         headers bytea",
    ),
    CopiedTable::new("dedupe", 1, "hash bytea, id uuid, at bigint"),
    CopiedTable::new("body", 1, "id uuid, bytes bytea"),
    CopiedTable::new(
        "pending",
        1,
        "id uuid, partition_id bigint, off bigint, record_at bigint, queue bigint, due bigint, since bigint, horizon bigint,
         token bigint, lease_until bigint, builder integer, tries integer, attempts integer, starts integer, round integer,
         test boolean, team text, task bytea, event_id bytea, event_type text, content_hash bytea, url bytea,
         last_outcome text, new_id boolean",
    ),
];

/// The tables that are copied as a whole when no daemon works on the store any more, in this order: offsets are the last.
pub(super) static LAST: [CopiedTable; 16] = [
    CopiedTable::numbered(
        "queue",
        "id bigint, team text, target text, next_at bigint, rest_until bigint, paused boolean, parked_bytes bigint,
         used_at bigint",
    ),
    CopiedTable::new(
        "instance",
        1,
        "id bigint, batch bigint, heartbeat bigint, started_at bigint, clean bigint, run text, delivered bigint,
         exhausted bigint, abandoned bigint, dead_letters bigint, name text, host text, version text",
    ),
    CopiedTable::new(
        "endpoint",
        2,
        "team text, origin text, outcomes text, failures bigint, failing_since bigint, last_at bigint, last_success_at bigint",
    ),
    CopiedTable::new("admin_version", 1, "one bigint, version bigint"),
    CopiedTable::new(
        "team",
        1,
        "id text, name text, default_url text, default_url_test text, allowed_origins text, auth_form text, origin_forms text,
         http text, retries bigint, horizon_ms bigint, end_on_gone bigint, created_at bigint, changed_at bigint,
         deleted_at bigint",
    ),
    CopiedTable::new(
        "sent_with",
        1,
        "id bigint, team text, mode text, url text, form text, signing_keys text, auth_keys text, first_at bigint,
         used_at bigint",
    ),
    CopiedTable::new(
        "team_key",
        1,
        "id text, team text, kind text, mode text, state text, keyring text, sealed bytea, last4 text, created_at bigint,
         promote_at bigint, revoked_at bigint, used_at bigint",
    ),
    CopiedTable::new(
        "token",
        1,
        "id text, name text, scope text, hash bytea, last4 text, created_at bigint, expires_at bigint, revoked_at bigint,
         teams text, used_at bigint",
    ),
    CopiedTable::new(
        "idempotency_key",
        2,
        "caller text, key text, fingerprint bytea, object text, at bigint",
    ),
    CopiedTable::numbered(
        "audit",
        "id bigint, at bigint, caller text, address text, action text, object text, change text",
    ),
    CopiedTable::new("pause", 2, "team text, origin text, since bigint, paused_by text, reason text"),
    CopiedTable::new(
        "resend_job",
        1,
        "id text, created_at bigint, created_by text, filter text, endpoint text, to_default bigint, allow_new_origin bigint,
         new_id bigint, rate bigint, state text, matched bigint, cursor bytea, opened bigint, busy bigint, no_body bigint,
         refused bigint, changed_at bigint, holder bigint, held_until bigint",
    ),
    CopiedTable {
        also: Some(("held_until", "0")),
        ..CopiedTable::numbered("outbox", "id bigint, notices bigint, entries bytea")
    },
    CopiedTable::new("dead_letter_bytes", 1, "topic text, bytes bigint"),
    CopiedTable::new(
        STORE,
        1,
        "one bigint, id text, generation bigint, created_at bigint, delivered bigint, exhausted bigint, abandoned bigint,
         dead_letters bigint, counted_since bigint, kept_bytes bigint",
    ),
    CopiedTable::numbered(
        "partition_offsets",
        "id bigint, cluster text, topic text, partition integer, watermark bigint, seen_upto bigint, last_off bigint,
         last_hash bytea, epoch bigint, owner bigint, accepted text, moved_at bigint, taken_upto bigint, deaths integer",
    ),
];

/// The table of which the copy differs: its generation rises.
pub(super) const STORE: &str = "store";

/// The tables whose counts and sums must be equal.
pub(super) fn compared() -> impl Iterator<Item = &'static CopiedTable> {
    LARGE.iter().chain(&LAST).filter(|table| table.name != STORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let attempt = LARGE.iter().find(|table| table.name == "attempt").unwrap();
        let key = vec![Value::Bytes(vec![0, 0xab, 0xff]), Value::Integer(17)];
        assert_eq!(written(&key), "00abff,17");
        assert_eq!(read(attempt, &written(&key)), Some(key));
        for wrong in ["", "00abff", "00abff,x", "0g,1", "00,1,2"] {
            assert_eq!(read(attempt, wrong), None, "{wrong}");
        }
        assert_eq!(attempt.names()[..2], ["id", "n"]);
        assert_eq!(attempt.kinds()[..2], [Kind::Id, Kind::Integer]);
        assert!(attempt.typed().starts_with("id uuid, n integer, round integer"), "{}", attempt.typed());
    }
}
