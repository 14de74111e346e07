//! Tables in terminals of several widths, and text in terminals of few lines.

use serde_json::json;

use super::super::remote::LISTS;
use super::*;

fn terminal(width: usize) -> Look {
    Look { width: Some(width), height: Some(24), colours: false, hints: true }
}

/// A document with a value for every member that any list shows: the longest that are usual.
fn document() -> Value {
    let time = "2026-11-24T10:41:52.114Z";
    let text = r#"{
        "callback_id": "cb_01m86jkmdjtz7ymr2z343brkz5", "dead_letter_id": "dl_01m86jkmdjtz7ymr2z343brkz5",
        "team_id": "team_acme", "task_id": "6583f1a2b0c4d5e6f7081920", "key_id": "key_0123456789abcdef",
        "token_id": "tok_0123456789abcdef", "origin": "https://hooks.acme.example:443", "object": "key_0123456789abcdef",
        "caller": "token:tok_0123456789abcdef (grafana)", "state": "abandoned", "reason": "address_denied",
        "attempts": 21, "last_outcome": "connect_refused", "attempt": 21, "outcome": "connect_refused", "status": 503,
        "duration_ms": 15000, "peer": "203.0.113.200:443", "answer": "<html>the server is being moved</html>",
        "detail": "at line 1, column 1", "topic_partition": "tasks.events[3]", "offset": 123456789,
        "topic": "tasks.events", "partition": 11, "watermark": 123456789, "seen_upto": 123456799, "lag": 1000,
        "epoch": 12, "owned": true, "name": "Acme Robotics and Sons, a company with a long name", "auth_form": "hmac",
        "default_url": "https://hooks.acme.example/callbacks/of/tasks", "kind": "callback-auth", "mode": "live",
        "last4": "0af3", "in_flight": 16, "pending": 1000, "consecutive_failures": 1000,
        "recent": "ok=11, server_error=21, connect_refused=9", "instance_id": 12, "step": "connect", "ok": false,
        "scope": "operate secrets", "address": "127.0.0.1:54321", "action": "key.promote", "change": "kind=signing mode=live",
        "event_type": "task.completed", "stage": "first attempt under way", "from": 123456789, "to": 123400000, "records": 56789,
        "note": "its log begins at 123400000: Kafka has nothing older"
    }"#;
    let mut doc: Value = serde_json::from_str(text).expect("JSON");
    for member in [
        "record_at",
        "due",
        "begun_at",
        "buried_at",
        "recorded_upto",
        "promoted_at",
        "revoked_at",
        "oldest_due",
        "last_success_at",
        "started_at",
        "seen_at",
        "created_at",
        "expires_at",
        "at",
        "since",
    ] {
        doc[member] = time.into();
    }
    doc
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_id_is_cut() {
    for (name, columns) in LISTS {
        for width in [80, 100, 120] {
            let text = table(&[document(), document()], columns, terminal(width));
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{name} at {width}:\n{text}");
            }
            for column in columns.iter().filter(|column| column.holds == Holds::Whole && column.rank == 0) {
                let id = cell(&document()[column.member]);
                assert!(text.matches(&id).count() >= 2, "{name} at {width}: {id} stands whole in each row\n{text}");
            }
            // Of a column that is never cut, no beginning is shown either.
            for column in columns.iter().filter(|column| column.holds == Holds::Whole) {
                let id = cell(&document()[column.member]);
                if id.len() < 4 {
                    continue;
                }
                let begins = id.chars().take(id.chars().count().saturating_sub(2)).collect::<String>() + "…";
                assert!(!text.contains(&begins), "{name} at {width}: {begins}\n{text}");
            }
        }
        let piped = table(&[document()], columns, Look::default());
        let members = columns.iter().map(|column| cell(&document()[column.member]));
        assert!(members.into_iter().all(|whole| piped.contains(&whole)), "{name}: piped output is not cut\n{piped}");
        assert!(!piped.contains("Not shown"), "{piped}");
    }
}

#[test]
fn callbacks_give_way_in_their_order_and_become_blocks() {
    let (_, columns) = LISTS.iter().find(|(name, _)| *name == "callbacks").expect("a list");
    let at = |width: usize| table(&[document()], columns, terminal(width));
    assert_eq!(
        at(80),
        "CALLBACK                       TEAM       TASK                      STATE\n\
         cb_01m86jkmdjtz7ymr2z343brkz5  team_acme  6583f1a2b0c4d5e6f7081920  abandoned\n\
         (Not shown in this width: EVENT AT, REASON, ATTEMPTS, LAST, DUE. --json shows\n \
         everything.)"
    );
    let first = |text: String| {
        text.lines()
            .next()
            .unwrap_or_default()
            .split("  ")
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(first(at(100)), "CALLBACK,TEAM,TASK,STATE,LAST");
    assert_eq!(first(at(120)), "CALLBACK,TEAM,TASK,STATE,REASON,LAST");
    assert_eq!(first(at(140)), "CALLBACK,EVENT AT,TEAM,TASK,STATE,REASON,ATTEMPTS,LAST");
    assert!(at(140).contains("  11-24 10:41:52  "), "{}", at(140));
    assert_eq!(
        at(50).lines().take(3).collect::<Vec<_>>(),
        ["CALLBACK: cb_01m86jkmdjtz7ymr2z343brkz5", "EVENT AT: 2026-11-24T10:41:52.114Z", "TEAM: team_acme"]
    );
    assert!(at(50).lines().all(|line| line.chars().count() <= 50), "{}", at(50));
}

#[test]
fn a_table_fits_its_cells_and_escapes_them() {
    let docs = [json!({"a": "x", "b": 7}), json!({"a": "\u{1b}[2J", "b": null})];
    let columns = [whole("A", "a", 0), whole("BEE", "b", 0)];
    assert_eq!(table(&docs, &columns, Look::default()), "A          BEE\nx          7\n\\u{1b}[2J  -");
    assert_eq!(record(&json!({"one": 1, "longer": ["a", "b"], "none": null})), "one     1\nlonger  a, b");
}

#[test]
fn text_is_cut_and_a_state_has_its_colour() {
    let docs = [json!({"a": "x".repeat(60), "state": "delivered"})];
    let text_of = table(&docs, &[text("A", "a", 0, 8), whole("STATE", "state", 0)], terminal(40));
    assert!(text_of.lines().all(|line| line.chars().count() <= 40), "{text_of}");
    assert!(text_of.contains("…  delivered"), "{text_of}");
    let look = Look { colours: true, ..Look::default() };
    let coloured = table(&docs, &[whole("STATE", "state", 0)], look);
    assert_eq!(coloured, "STATE\n\u{1b}[32mdelivered\u{1b}[0m");
    let narrow = Look { width: Some(3), ..look };
    assert_eq!(table(&docs, &[whole("STATE", "state", 0)], narrow), "STATE:\n  \u{1b}[32mdelivered\u{1b}[0m");
}

#[test]
fn what_does_not_fit_into_the_height_is_counted_at_the_end() {
    let text: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    let cut = fit_height(&text, 23, 80);
    assert_eq!(cut.lines().count(), 23);
    assert!(cut.starts_with("line 1\n") && cut.ends_with("line 22\n... 8 more lines"), "{cut}");
    assert_eq!(fit_height("a\nb", 2, 80), "a\nb");
    // A line of 100 characters takes two lines of a terminal with 80 columns.
    let wide = format!("{}\nb\nc", "x".repeat(100));
    assert_eq!(fit_height(&wide, 4, 80), wide);
    assert_eq!(fit_height(&wide, 3, 80), format!("{}\n... 2 more lines", "x".repeat(100)));
    let painted = "\u{1b}[32mok\u{1b}[0m!";
    assert_eq!(fit_height(&format!("{painted}\nb"), 2, 3), format!("{painted}\nb"), "colours take no room");
}
