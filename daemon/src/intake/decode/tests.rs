use super::*;
use crate::model::event::PartitionKey;

fn record() -> RecordRef {
    let partition = PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 };
    RecordRef { partition: Arc::new(partition), offset: 7, timestamp: 1_764_000_000_000 }
}

fn read_with(value: &[u8], headers: Headers<'_>) -> Result<TaskEvent, Unreadable> {
    decode(&Raw { record: &record(), headers, value }, 5 << 20).map_err(|letter| {
        assert_eq!(&letter.value[..], value, "its bytes are kept");
        letter.reason
    })
}

fn read(value: &str) -> Result<TaskEvent, Unreadable> {
    read_with(value.as_bytes(), Headers::default())
}

fn body(value: &str) -> String {
    String::from_utf8(read(value).expect(value).body.to_vec()).expect("text")
}

#[test]
fn bad_records_become_dead_letters_with_their_reason() {
    use Unreadable as U;
    let long = "x".repeat(257);
    for (value, reason) in [
        ("", U::NotJson),
        ("nonsense", U::NotJson),
        (r#"{"team_id":"t","task":{"task_id":"a"}"#, U::NotJson),
        (r#"{"team_id":"t","task":{"task_id":"a"}} x"#, U::NotJson),
        ("[]", U::NotObject),
        ("7", U::NotObject),
        (r#""text""#, U::NotObject),
        ("null", U::NotObject),
        (r#"{"team_id":"t"}"#, U::MissingTask),
        (r#"{"team_id":"t","task":null}"#, U::MissingTask),
        (r#"{"team_id":"t","task":[]}"#, U::WrongType),
        (r#"{"team_id":"t","task":{}}"#, U::MissingTaskId),
        (r#"{"team_id":"t","task":{"task_id":""}}"#, U::MissingTaskId),
        (r#"{"team_id":"t","task":{"task_id":7}}"#, U::WrongType),
        (r#"{"task":{"task_id":"a"}}"#, U::MissingTeamId),
        (r#"{"team_id":7,"task":{"task_id":"a"}}"#, U::WrongType),
        (r#"{"team_id":"t","event_id":{},"task":{"task_id":"a"}}"#, U::WrongType),
        (r#"{"team_id":"t","task":{"task_id":"a","is_test":"yes"}}"#, U::WrongType),
        (r#"{"team_id":"t","task":{"task_id":"a","callback_url":7}}"#, U::WrongType),
        (r#"{"team_id":"t","task":{"task_id":"a\u0000"}}"#, U::InvalidId),
        (r#"{"team_id":"t\n","task":{"task_id":"a"}}"#, U::InvalidId),
        (r#"{"team_id":"t","event_id":"\u001b","task":{"task_id":"a"}}"#, U::InvalidId),
        (r#"{"team_id":"t","task":{"task_id":"\ud800"}}"#, U::InvalidId),
        (r#"{"team_id":"t","team_id":"t","task":{"task_id":"a"}}"#, U::DuplicateField),
        (r#"{"team_id":"t","task":{"task_id":"a"},"task":{"task_id":"a"}}"#, U::DuplicateField),
        (r#"{"team_id":"t","task":{"task_id":"a","task_id":"b"}}"#, U::DuplicateField),
        (&format!(r#"{{"team_id":"t","task":{{"task_id":"{long}"}}}}"#), U::InvalidId),
        (&format!(r#"{{"team_id":"{long}","task":{{"task_id":"a"}}}}"#), U::InvalidId),
    ] {
        assert_eq!(read(value).err(), Some(reason), "{value}");
    }
    let invalid = b"{\"team_id\":\"t\",\"task\":{\"task_id\":\"a\",\"x\":\"\xff\"}}";
    assert_eq!(read_with(invalid, Headers::default()).err(), Some(U::InvalidUtf8));
    let value = vec![b' '; 100_000];
    let large = decode(&Raw { record: &record(), headers: Headers::default(), value: &value }, 99_999);
    let large = large.expect_err("too large");
    assert_eq!((large.reason, large.value.len(), large.value_len), (U::TooLarge, KEPT_OF_TOO_LARGE, 100_000));
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    let whole = decode(&Raw { record: &record(), headers: Headers::default(), value: long.as_bytes() }, 1 << 20);
    assert_eq!(whole.expect_err("no task").value, long.as_bytes(), "another value is kept whole");
}

#[test]
fn opaque_parts_pass_through_byte_for_byte() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for response in [
        deep.as_str(),
        r#"{"a":1,"a":2}"#,
        "1e400",
        "26.198676151772684",
        "20.999999999999986",
        r#""\ud800""#,
        r#""\u0000""#,
        r#"{"\ud800":1}"#,
        "null",
        "[ 1 , 2 ]",
    ] {
        let value = format!(r#"{{"team_id":"t","task":{{"task_id":"a"}},"response":{response}}}"#);
        let expected = format!(r#"{{"task":{{"task_id":"a"}},"response":{response},"task_id":"a"}}"#);
        assert_eq!(body(&value), expected);
    }
    assert_eq!(
        body(r#"{"team_id":"t","task":{"task_id":"a","\ud800":1e400}}"#),
        r#"{"task":{"task_id":"a","\ud800":1e400},"task_id":"a"}"#
    );
}

#[test]
fn the_response_comes_from_the_envelope_or_else_from_the_task() {
    assert_eq!(
        body(r#"{"team_id":"t","task":{"task_id":"a","response":1},"response":2}"#),
        r#"{"task":{"task_id":"a","response":1},"response":2,"task_id":"a"}"#
    );
    assert_eq!(
        body(r#"{"team_id":"t","task":{"task_id":"a","response":1}}"#),
        r#"{"task":{"task_id":"a","response":1},"response":1,"task_id":"a"}"#
    );
    assert_eq!(body(r#"{"team_id":"t","task":{"task_id":"a"}}"#), r#"{"task":{"task_id":"a"},"task_id":"a"}"#);
    assert_eq!(
        body(r#"{"team_id":"t","response":1,"task":{"task_id":"a"},"response":3}"#),
        r#"{"task":{"task_id":"a"},"response":3,"task_id":"a"}"#,
        "the last of several responses counts"
    );
}

#[test]
fn headers_must_agree_with_the_body() {
    let value = br#"{"event_id":"e","team_id":"t","task":{"task_id":"a"}}"#;
    let same = Headers { event_id: Some(b"e"), team_id: Some(b"t"), event_type: Some(b"x"), ..Headers::default() };
    let event = read_with(value, same).expect("equal values");
    assert_eq!(&*event.event_type, "x");
    for other in [
        Headers { event_id: Some(b"f"), ..Headers::default() },
        Headers { team_id: Some(b"u"), ..Headers::default() },
        Headers { conflict: Some("team-id"), ..Headers::default() },
    ] {
        assert_eq!(read_with(value, other).err(), Some(Unreadable::ConflictingIdentity));
    }
    let alone = br#"{"task":{"task_id":"a"}}"#;
    let event = read_with(alone, Headers { team_id: Some(b"t"), ..Headers::default() }).expect("from the header");
    assert_eq!((&*event.team, &*event.event_type), ("t", "task.completed"));
    let empty = Headers { event_id: Some(b""), ..Headers::default() };
    let event = read_with(value, empty).expect("an empty header counts as absent");
    assert_eq!(event.event_id.as_deref(), Some("e"));
    let invalid = Headers { team_id: Some(b"\xff"), ..Headers::default() };
    assert_eq!(read_with(alone, invalid).err(), Some(Unreadable::InvalidUtf8));
}

#[test]
fn a_dead_letter_keeps_what_could_be_read() {
    let value = br#"{"team_id":"t","event_id":"e","task":{"task_id":"a","is_test":3}}"#;
    let raw = Raw { record: &record(), headers: Headers::default(), value };
    let letter = decode(&raw, 1 << 20).expect_err("is_test is not a flag");
    assert_eq!(letter.team.as_deref(), Some("t"));
    assert_eq!(letter.task_id.as_deref(), Some("a"));
    assert_eq!(letter.event_id.as_deref(), Some("e"));
    assert_eq!(letter.value_len, value.len() as u64);
}

#[test]
fn a_conflict_hides_nothing_that_the_body_says() {
    let value = br#"{"team_id":"t","event_id":"e","task":{"task_id":"a"}}"#;
    for headers in [
        Headers { conflict: Some("team-id"), team_id: Some(b"v"), ..Headers::default() },
        Headers { conflict: Some("ce_id"), ..Headers::default() },
        Headers { team_id: Some(b"u"), event_id: Some(b"f"), ..Headers::default() },
        Headers { team_id: Some(b"\xff"), ..Headers::default() },
    ] {
        let letter = decode(&Raw { record: &record(), headers, value }, 1 << 20).expect_err("it is refused");
        let said = (letter.team.as_deref(), letter.task_id.as_deref(), letter.event_id.as_deref());
        assert_eq!(said, (Some("t"), Some("a"), Some("e")), "{headers:?}");
    }
    let headers = Headers { conflict: Some("ce_id"), ..Headers::default() };
    let letter = decode(&Raw { record: &record(), headers, value: b"{}" }, 1 << 20).expect_err("it is refused");
    assert_eq!(letter.detail, "the Kafka header ce_id occurs twice with different values");
}

#[test]
fn null_absent_and_empty_mean_the_same_in_headers_and_body() {
    let header = Headers { team_id: Some(b"t"), event_id: Some(b"e"), ..Headers::default() };
    for body in [r#""team_id":"","event_id":"","#, r#""team_id":null,"event_id":null,"#, ""] {
        let value = format!("{{{body}\"task\":{{\"task_id\":\"a\"}}}}");
        let event = read_with(value.as_bytes(), header).expect("the header says it");
        assert_eq!((&*event.team, event.event_id.as_deref()), ("t", Some("e")), "{body}");
    }
}

#[test]
fn an_event_that_can_not_be_used_keeps_its_whole_value() {
    let value = br#"{"team_id":"t","extra":[1,2],"task":{"task_id":"a"}}"#;
    let event = read_with(value, Headers::default()).expect("an event");
    let letter = unwanted(&event, Unreadable::UnknownTeam, String::new());
    assert_eq!((&letter.value[..], letter.value_len), (&value[..], value.len() as u64));
    assert_eq!(letter.value_hash, Some(Sha256::digest(value).into()));
    assert_eq!(letter.id, id_of(&event.record, &Sha256::digest(value).into()), "the id that any dead letter of it has");
}

#[test]
fn cloud_events_in_binary_mode_are_read() {
    let record = record();
    let event = |ce: CloudEvent<'static>, headers: Headers<'static>, value: &str| {
        let headers = Headers { cloud_event: Some(ce), ..headers };
        decode(&Raw { record: &record, headers, value: value.as_bytes() }, 1 << 20)
    };
    let plain = Headers::default();
    let ulid = b"01KAV9FT00ZKEK0KFES3QVF608";
    let ce =
        CloudEvent { id: Some(ulid), source: Some(b"/tasks"), kind: Some(b"task.recalled"), team: Some(b"team_a") };
    let value = r#"{"task":{"task_id":"t1"}}"#;
    let read = event(ce, plain, value).expect("a CloudEvent");
    assert_eq!(read.event_id.as_deref(), Some("/tasks\n01KAV9FT00ZKEK0KFES3QVF608"));
    assert_eq!((&*read.event_type, &*read.team), ("task.recalled", "team_a"));
    let key = crate::model::callback::EventKey::Id(read.event_id.as_deref().expect("an id"));
    let id = CallbackId::of("team_a", key, 1_700_000_000_000);
    assert_eq!(id.as_bytes()[..6], 1_764_000_000_000_u64.to_be_bytes()[2..], "the time inside ce_id is used");
    // The same id from another source means another event.
    let other = event(CloudEvent { source: Some(b"/other"), ..ce }, plain, value).expect("another");
    assert_ne!(other.event_id, read.event_id);
    // Header, attribute and body must not contradict each other.
    let same = r#"{"event_id":"01KAV9FT00ZKEK0KFES3QVF608","team_id":"team_a","task":{"task_id":"t1"}}"#;
    assert_eq!(
        event(ce, Headers { team_id: Some(b"team_a"), ..plain }, same).expect("equal values").event_id,
        read.event_id
    );
    let refused = |ce, headers, value: &str| event(ce, headers, value).expect_err("refused").reason;
    assert_eq!(refused(ce, Headers { team_id: Some(b"team_b"), ..plain }, value), Unreadable::ConflictingIdentity);
    let body = r#"{"event_id":"another","task":{"task_id":"t1"}}"#;
    assert_eq!(refused(ce, plain, body), Unreadable::ConflictingIdentity);
    assert_eq!(refused(CloudEvent { source: Some(b"/a\nb"), ..ce }, plain, value), Unreadable::InvalidId);
    assert_eq!(refused(CloudEvent { id: Some(b"a\nb"), ..ce }, plain, value), Unreadable::InvalidId);
    assert_eq!(refused(CloudEvent { source: None, ..ce }, plain, value), Unreadable::InvalidId);
    assert_eq!(refused(CloudEvent { id: None, ..ce }, plain, value), Unreadable::InvalidId);
    assert_eq!(refused(CloudEvent { id: None, ..ce }, plain, same), Unreadable::InvalidId);
    // The dead letter still names the task.
    let letter = event(ce, Headers { team_id: Some(b"team_b"), ..plain }, value).expect_err("refused");
    assert_eq!(letter.task_id.as_deref(), Some("t1"));
}
