//! How a callback's attempts and its last request are shown to people.

use serde_json::Value;

use super::super::table::{Column, Look, table, text, time, whole};

pub(super) const ATTEMPTS: [Column; 7] = [
    whole("#", "attempt", 0),
    time("BEGUN", "begun_at", 1),
    whole("OUTCOME", "outcome", 0),
    whole("STATUS", "status", 2),
    whole("MS", "duration_ms", 3),
    whole("PEER", "peer", 4),
    text("ANSWER", "answer", 1, 16),
];
/// The same for a callback that was sent again.
pub(super) const ATTEMPTS_OF_ROUNDS: [Column; 8] = {
    let [number, begun, outcome, status, duration, peer, answer] = ATTEMPTS;
    [number, whole("ROUND", "round", 2), begun, outcome, status, duration, peer, answer]
};

/// How much a request that is shown can be believed.
pub(super) const REBUILT: &str = "rebuilt from the settings that it was sent with; secrets are masked";

/// In the place of a request that can't be rebuilt.
pub(super) const UNKNOWN_REQUEST: &str = "No request is known: none was sent, or its settings are not kept any more.";

/// The attempts of all rounds. The store keeps little of the one that delivered the callback, so a sentence says what that is.
pub(super) fn attempts(answer: &Value, look: Look) -> String {
    let mut docs = answer["docs"].as_array().cloned().unwrap_or_default();
    let delivered_by = Some(&answer["delivered_by"]).filter(|doc| doc.is_object());
    docs.extend(delivered_by.cloned());
    docs.sort_by_key(|doc| doc["attempt"].as_u64());
    if docs.is_empty() {
        return "No attempt has ended yet.".to_owned();
    }
    let was_sent_again = answer["callback"]["round"].as_u64().is_some_and(|round| round > 0);
    let columns: &[Column] = if was_sent_again { &ATTEMPTS_OF_ROUNDS } else { &ATTEMPTS };
    let sentence = delivered_by.map(|doc| {
        format!(
            "\nAttempt {} delivered it: the receiver answered with status {}, and the attempt ended at {}. No more is kept of it.",
            doc["attempt"],
            doc["status"],
            doc["ended_at"].as_str().unwrap_or_default()
        )
    });
    format!("{}{}", table(&docs, columns, look), sentence.unwrap_or_default())
}

/// The line and the headers of the last request of a callback, as far as it is known. Who has the body knows its length, which the
/// API can't tell if the store does not have the body.
pub(super) fn last_request(answer: &Value, body_bytes: Option<usize>) -> Option<String> {
    let docs = answer["docs"].as_array().into_iter().flatten();
    let requests = docs.map(|doc| (&doc["attempt"], &doc["request"]));
    let delivery = (&answer["delivered_by"]["attempt"], &answer["delivery"]);
    let known = requests.chain([delivery]).filter(|(_, request)| request.is_object());
    let (_, request) = known.max_by_key(|(number, _)| number.as_u64())?;
    let own = "(the task's own URL, which stands in the body)";
    let mut text = format!("POST {}", request["url"].as_str().unwrap_or(own));
    let mut length = body_bytes;
    for header in request["headers"].as_array().into_iter().flatten() {
        let [name, value] = [&header["name"], &header["value"]].map(|part| part.as_str().unwrap_or_default());
        text.push_str(&format!("\n{name}: {value}"));
        length = length.filter(|_| name != LENGTH);
    }
    text.extend(length.map(|length| format!("\n{LENGTH}: {length}")));
    Some(text)
}

const LENGTH: &str = "content-length";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(number: u32) -> Value {
        let header = json!({ "name": "scale-callback-attempt", "value": number.to_string() });
        json!({ "url": "https://acme.example/callbacks", "headers": [header] })
    }

    fn attempt(number: u32, round: u32) -> Value {
        json!({
            "attempt": number, "round": round, "outcome": "server_error", "status": 503, "begun_at": "2026-12-01T06:08:17.704Z",
            "duration_ms": 2, "peer": "203.0.113.7:443", "answer": "", "request": request(number),
        })
    }

    fn delivered_by(number: u32, round: u32) -> Value {
        json!({
            "attempt": number, "round": round, "outcome": "ok", "status": 204, "begun_at": null,
            "ended_at": "2026-12-01T06:10:05.576Z", "duration_ms": null,
        })
    }

    #[test]
    fn a_delivery_in_a_later_round_is_a_row_and_the_last_request() {
        let answer = json!({
            "callback": { "round": 1 }, "docs": [attempt(1, 0), attempt(2, 0)],
            "delivered_by": delivered_by(3, 1), "delivery": request(3),
        });
        assert_eq!(
            attempts(&answer, Look::default()),
            "#  ROUND  BEGUN                     OUTCOME       STATUS  MS  PEER             ANSWER\n\
             1  0      2026-12-01T06:08:17.704Z  server_error  503     2   203.0.113.7:443\n\
             2  0      2026-12-01T06:08:17.704Z  server_error  503     2   203.0.113.7:443\n\
             3  1      -                         ok            204     -   -                -\n\
             Attempt 3 delivered it: the receiver answered with status 204, and the attempt ended at 2026-12-01T06:10:05.576Z. \
             No more is kept of it."
        );
        let shown = last_request(&answer, None).expect("it is known");
        assert_eq!(shown, "POST https://acme.example/callbacks\nscale-callback-attempt: 3");
    }

    #[test]
    fn what_was_sent_after_the_delivery_is_the_last_request_and_stands_behind_it() {
        let answer = json!({
            "callback": { "round": 2 }, "docs": [attempt(1, 0), attempt(3, 2)],
            "delivered_by": delivered_by(2, 1), "delivery": request(2),
        });
        let shown = attempts(&answer, Look::default());
        let numbers: Vec<_> = shown.lines().take(4).map(|line| line.split("  ").next().unwrap_or_default()).collect();
        assert_eq!(numbers, ["#", "1", "2", "3"], "{shown}");
        let request = last_request(&answer, None).expect("it is known");
        assert!(request.ends_with("scale-callback-attempt: 3"), "{request}");
    }

    #[test]
    fn a_callback_of_one_round_has_no_column_for_it() {
        let first_life = json!({ "callback": { "round": 0 }, "docs": [attempt(1, 0)], "delivered_by": null });
        assert!(attempts(&first_life, Look::default()).starts_with("#  BEGUN  "), "{first_life}");
        let none = json!({ "callback": { "round": 0 }, "docs": [], "delivered_by": null });
        assert_eq!(attempts(&none, Look::default()), "No attempt has ended yet.");
        assert_eq!(last_request(&none, Some(7)), None);
    }

    #[test]
    fn the_length_is_that_of_the_body_unless_the_api_knows_it() {
        let mut answer = json!({ "callback": { "round": 0 }, "docs": [attempt(1, 0)] });
        assert!(last_request(&answer, Some(7)).is_some_and(|text| text.ends_with("\ncontent-length: 7")));
        answer["docs"][0]["request"]["headers"] = json!([{ "name": "content-length", "value": "9" }]);
        assert!(last_request(&answer, Some(7)).is_some_and(|text| text.ends_with("callbacks\ncontent-length: 9")));
    }
}
