//! The identity of a callback: a pure function of its task event. It is known before any row exists, so that a first
//! attempt that is repeated after a crash has the same id.

use std::fmt;

use sha2::{Digest, Sha256};

use super::event::PartitionKey;
pub use super::hash::Hash;
use crate::base::clock::Timestamp;
use crate::faults::{self, Fault};

/// The first version of the code that joins the raw spans into the body. Every program knows it.
pub const FIRST_BUILDER: u8 = 1;
/// The newest version of that code.
pub const BUILDER: u8 = 1;

/// The newest builder that this program knows. A test's program that pretends to be the next version knows one more.
pub fn newest_builder() -> u8 {
    let is_next = faults::is_on(Fault::NextSchema) || faults::is_on(Fault::NextSchemaAlone);
    if is_next { BUILDER.saturating_add(1) } else { BUILDER }
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 48 bits of event time in milliseconds, then 10 bytes of hash. Written `cb_` + 26 characters of lower-case
/// Crockford base32; it is the `webhook-id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallbackId([u8; 16]);

/// What identifies an event within its team.
#[derive(Debug, Clone, Copy)]
pub enum EventKey<'e> {
    /// The event id's raw bytes, never normalised.
    Id(&'e str),
    /// If there is no event id: the place of the record, and its content.
    Record { partition: &'e PartitionKey, offset: i64, content: &'e Hash },
}

impl CallbackId {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The time in the id: that of the event, or 0.
    pub fn time(self) -> Timestamp {
        let millis = self.0[..6].iter().fold(0, |millis, byte| (millis << 8) | i64::from(*byte));
        Timestamp::from_millis(millis)
    }

    /// The id of the event `key` of `team`, whose record has the timestamp `record_ms`.
    pub fn of(team: &str, key: EventKey<'_>, record_ms: i64) -> Self {
        let mut hash = Sha256::new();
        lp(&mut hash, team.as_bytes());
        let inner_time = match key {
            EventKey::Id(id) => {
                hash.update([0]);
                lp(&mut hash, id.as_bytes());
                time_inside(id)
            }
            EventKey::Record { partition, offset, content } => {
                hash.update([1]);
                let fixed = 4 + 8 + 32;
                let length = 8 + partition.cluster.len() + partition.topic.len() + fixed;
                hash.update(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
                lp(&mut hash, partition.cluster.as_bytes());
                lp(&mut hash, partition.topic.as_bytes());
                hash.update(partition.number.to_be_bytes());
                hash.update(offset.to_be_bytes());
                hash.update(content);
                None
            }
        };
        let record_time = u64::try_from(record_ms).ok().filter(|ms| plausible(*ms));
        Self::join(inner_time.or(record_time).unwrap_or(0), &hash.finalize())
    }

    /// The id of the dead letter that the record at these coordinates becomes.
    pub fn of_dead_letter(partition: &PartitionKey, offset: i64, record_ms: i64, value: &Hash) -> Self {
        let mut hash = Sha256::new();
        lp(&mut hash, partition.cluster.as_bytes());
        lp(&mut hash, partition.topic.as_bytes());
        hash.update(partition.number.to_be_bytes());
        hash.update(offset.to_be_bytes());
        hash.update(record_ms.to_be_bytes());
        hash.update(value);
        let time = u64::try_from(record_ms).ok().filter(|ms| plausible(*ms)).unwrap_or(0);
        Self::join(time, &hash.finalize())
    }

    fn join(time: u64, hash: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&hash[..10]);
        Self(bytes)
    }

    /// Reads `cb_` + 26 characters; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("cb_")?.as_bytes();
        if digits.len() != 26 {
            return None;
        }
        let mut value = 0_u128;
        for (index, digit) in digits.iter().enumerate() {
            let position = ALPHABET.iter().position(|c| c == digit)?;
            if index == 0 && position > 7 {
                return None;
            }
            value = (value << 5) | position as u128;
        }
        Some(Self(value.to_be_bytes()))
    }

    /// The 26 characters that follow the prefix, without an allocation.
    fn digits(&self) -> [u8; 26] {
        let value = u128::from_be_bytes(self.0);
        std::array::from_fn(|index| ALPHABET[(value >> (5 * (25 - index)) & 31) as usize])
    }

    /// The id as a dead letter's: `dl_` + 26 characters.
    pub fn to_dead_letter_id(self) -> String {
        format!("dl_{}", String::from_utf8_lossy(&self.digits()))
    }

    /// Reads `dl_` + 26 characters.
    pub fn parse_dead_letter(text: &str) -> Option<Self> {
        Self::parse(&format!("cb_{}", text.strip_prefix("dl_")?))
    }
}

impl fmt::Display for CallbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cb_")?;
        f.write_str(std::str::from_utf8(&self.digits()).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for CallbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The raw spans of a task event that end up in its callback.
#[derive(Debug, Clone, Copy)]
pub struct Spans<'v> {
    /// JSON of the task.
    pub task: &'v str,
    /// JSON of the response, if the event or its task has one.
    pub response: Option<&'v str>,
    /// JSON of the task id, a string.
    pub task_id: &'v str,
}

impl Spans<'_> {
    /// SHA-256 over the length-prefixed spans and the event type. An absent response is written as a length that no
    /// span can have.
    pub fn content_hash(&self, event_type: &str) -> Hash {
        let mut hash = Sha256::new();
        lp(&mut hash, self.task.as_bytes());
        match self.response {
            Some(response) => lp(&mut hash, response.as_bytes()),
            None => hash.update(u32::MAX.to_be_bytes()),
        }
        lp(&mut hash, self.task_id.as_bytes());
        lp(&mut hash, event_type.as_bytes());
        hash.finalize().into()
    }

    /// The body of builder 1: `{"task":T,"response":R,"task_id":I}`, frozen by golden tests.
    pub fn body(&self) -> Vec<u8> {
        let response = self.response.map_or(0, |response| response.len() + 12);
        let mut body = Vec::with_capacity(self.task.len() + response + self.task_id.len() + 20);
        body.extend_from_slice(b"{\"task\":");
        body.extend_from_slice(self.task.as_bytes());
        if let Some(response) = self.response {
            body.extend_from_slice(b",\"response\":");
            body.extend_from_slice(response.as_bytes());
        }
        body.extend_from_slice(b",\"task_id\":");
        body.extend_from_slice(self.task_id.as_bytes());
        body.push(b'}');
        body
    }
}

/// The time inside an event id, in milliseconds, if the id is a hyphenated `UUIDv7` or a ULID between 2020 and 2100.
/// The event id of a CloudEvent is its source, a line feed and its id; only the part after the line feed is read.
pub fn time_inside(event_id: &str) -> Option<u64> {
    let id = event_id.rsplit_once('\n').map_or(event_id, |(_, id)| id).as_bytes();
    uuid_v7_time(id).or_else(|| ulid_time(id)).filter(|ms| plausible(*ms))
}

fn plausible(ms: u64) -> bool {
    i64::try_from(ms).is_ok_and(|ms| Timestamp::from_millis(ms).is_plausible())
}

fn uuid_v7_time(id: &[u8]) -> Option<u64> {
    if id.len() != 36 {
        return None;
    }
    let mut time = 0_u64;
    let mut digits = 0;
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        if (index == 14 && digit != 7) || (index == 19 && !(8..12).contains(&digit)) {
            return None;
        }
        if digits < 12 {
            time = (time << 4) | u64::from(digit);
        }
        digits += 1;
    }
    Some(time)
}

fn ulid_time(id: &[u8]) -> Option<u64> {
    if id.len() != 26 || !(b'0'..=b'7').contains(&id[0]) {
        return None;
    }
    let mut time = 0_u64;
    for (index, byte) in id.iter().enumerate() {
        let digit = ALPHABET.iter().position(|c| *c == byte.to_ascii_lowercase())?;
        if index < 10 {
            time = (time << 5) | digit as u64;
        }
    }
    Some(time)
}

fn lp(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionKey {
        PartitionKey { cluster: "c1".into(), topic: "tasks".into(), number: 3 }
    }

    #[test]
    fn the_published_vector_holds() {
        let id = CallbackId::of("team_acme", EventKey::Id("evt-1"), 1_764_000_000_000);
        assert_eq!(id.to_string(), "cb_01kav9ft00zkek0kfes3qvf608");
        assert_eq!(CallbackId::parse("cb_01kav9ft00zkek0kfes3qvf608"), Some(id));
    }

    #[test]
    fn ids_that_are_not_ours_do_not_parse() {
        for text in [
            "",
            "cb_",
            "cb_81kav9ft00zkek0kfes3qvf608",
            "cb_01KAV9FT00ZKEK0KFES3QVF608",
            "cb_01kav9ft00zkek0kfes3qvf60",
        ] {
            assert_eq!(CallbackId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_event_id_in_two_teams_is_two_callbacks() {
        let key = EventKey::Id("evt-1");
        assert_ne!(CallbackId::of("a", key, 0), CallbackId::of("b", key, 0));
        // Length prefixes keep the parts apart.
        assert_ne!(CallbackId::of("ab", EventKey::Id("c"), 0), CallbackId::of("a", EventKey::Id("bc"), 0));
    }

    #[test]
    fn the_time_comes_from_the_id_then_the_record_then_nowhere() {
        let time =
            |id: CallbackId| u64::from_be_bytes([&[0, 0], &id.as_bytes()[..6]].concat().try_into().expect("8 bytes"));
        let uuid = "019aac97-d000-7abc-8def-0123456789ab";
        assert_eq!(time(CallbackId::of("t", EventKey::Id(uuid), 5)), 0x019a_ac97_d000);
        assert_eq!(time(CallbackId::of("t", EventKey::Id("01KAV9FT00ZKEK0KFES3QVF608"), 5)), 1_764_000_000_000);
        assert_eq!(time(CallbackId::of("t", EventKey::Id("x"), 1_764_000_000_001)), 1_764_000_000_001);
        for wild in [0, -1, i64::MAX, i64::MIN] {
            assert_eq!(time(CallbackId::of("t", EventKey::Id("x"), wild)), 0);
        }
    }

    #[test]
    fn only_real_uuid_v7_and_ulid_carry_a_time() {
        for id in [
            "019aac97-d000-4abc-8def-0123456789ab", // version 4
            "019aac97-d000-7abc-cdef-0123456789ab", // variant
            "019aac97d0007abc8def0123456789ab",     // no hyphens
            "00000000-0000-7000-8000-000000000000", // 1970
            "01KAV9FT00ZKEK0KFES3QVF60U",           // not in the alphabet
            "81KAV9FT00ZKEK0KFES3QVF608",           // over 128 bits
            "",
        ] {
            assert_eq!(time_inside(id), None, "{id}");
        }
    }

    #[test]
    fn a_record_without_event_id_is_known_by_place_and_content() {
        let content = [7; 32];
        let of = |partition: &PartitionKey, offset, content: &Hash| {
            CallbackId::of("t", EventKey::Record { partition, offset, content }, 1_764_000_000_000)
        };
        let first = of(&partition(), 9, &content);
        assert_eq!(first, of(&partition(), 9, &content));
        assert_ne!(first, of(&partition(), 10, &content));
        assert_ne!(first, of(&partition(), 9, &[8; 32]), "a re-created topic with other content is another event");
    }

    #[test]
    fn builder_1_is_frozen() {
        let spans =
            Spans { task: r#"{"task_id" : "t\u0031","x":1e400}"#, response: Some("[1.0 ]"), task_id: r#""t\u0031""# };
        assert_eq!(
            String::from_utf8(spans.body()).expect("text"),
            r#"{"task":{"task_id" : "t\u0031","x":1e400},"response":[1.0 ],"task_id":"t\u0031"}"#
        );
        let without = Spans { response: None, ..spans };
        assert_eq!(
            String::from_utf8(without.body()).expect("text"),
            r#"{"task":{"task_id" : "t\u0031","x":1e400},"task_id":"t\u0031"}"#
        );
        assert_ne!(spans.content_hash("a"), spans.content_hash("b"));
        // Computed by an independent program.
        let hash = |spans: Spans<'_>| scale_callback_serve::text::hex(&spans.content_hash("task.completed"));
        assert_eq!(hash(spans), "588995dc2eb1ff44662f0fc86354bdd547b04423304964912798d501a341fa51");
        assert_eq!(hash(without), "420c6d5533f65ac9735fe35646b79c280afc13bae82b7b102c8fa3d02f68e74f");
    }
}
