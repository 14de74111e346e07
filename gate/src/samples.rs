//! Sample tasks of the shapes that the platform sends, for demos, tests and the first callback that a receiver gets. The same
//! seed always makes the same sample; nothing here is random or reads a clock.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The kinds of sample tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `imageannotation` with boxes and polygons.
    Image,
    /// `lidarannotation` with a link to its result.
    Lidar,
    /// `textcollection` in several scripts.
    Text,
    /// `categorization`.
    Categorization,
    /// `namedentityrecognition`.
    Entities,
    /// `documenttranscription`.
    Document,
    /// A task that ended in an error.
    Error,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Image, Self::Lidar, Self::Text, Self::Categorization, Self::Entities, Self::Document, Self::Error];

    /// The task's `type`.
    #[must_use]
    pub fn task_type(self) -> &'static str {
        match self {
            Self::Image | Self::Error => "imageannotation",
            Self::Lidar => "lidarannotation",
            Self::Text => "textcollection",
            Self::Categorization => "categorization",
            Self::Entities => "namedentityrecognition",
            Self::Document => "documenttranscription",
        }
    }
}

/// A small generator of numbers, for samples alone: it is far too weak for secrets.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// A generator that starts from any number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// A coordinate with as many digits as an `f64` has.
    fn coordinate(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * 1920.0
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.next_u64(), self.next_u64());
        let hex = format!("{a:016x}{b:016x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }
}

/// What a sample shall be like.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// Its shape.
    pub kind: Kind,
    /// 24 hex digits.
    pub task_id: &'w str,
    /// The task's own callback URL, if it has one.
    pub callback_url: Option<&'w str>,
    /// Whether it is a test task.
    pub is_test: bool,
    /// How many annotations, polygons or pages it has.
    pub items: u64,
}

/// The JSON of a task.
#[must_use]
pub fn task(wanted: &Wanted<'_>, seed: &mut Seed) -> String {
    let Wanted { kind, task_id, callback_url, is_test, items } = *wanted;
    let status = if kind == Kind::Error { "error" } else { "completed" };
    let mut json = format!(
        r#"{{"task_id":"{task_id}","created_at":"2026-11-23T08:15:42.113Z","completed_at":"2026-11-24T07:02:11Z","type":"{}","status":"{status}","is_test":{is_test},"urgency":"standard""#,
        kind.task_type()
    );
    if let Some(url) = callback_url {
        json.push_str(&format!(r#","callback_url":"{url}""#));
    }
    json.push_str(r#","instruction":"Label every object. Überprüfen Sie auch Teilverdeckungen.","params":"#);
    json.push_str(&params(kind));
    json.push_str(r#","response":"#);
    json.push_str(&response(kind, items, seed));
    json.push_str(&format!(
        r#","metadata":{{"order":{},"source":"camera-{}"}},"tags":["sample"],"unique_id":"{}"}}"#,
        seed.below(1_000_000),
        seed.below(8),
        seed.uuid()
    ));
    json
}

fn params(kind: Kind) -> String {
    match kind {
        Kind::Image | Kind::Error => {
            r#"{"attachment_type":"image","attachment":"https://files.example.com/i/4711.jpg","geometries":{"box":{"objects_to_annotate":["car","pedestrian"]},"polygon":{"objects_to_annotate":["road"]}}}"#
        }
        Kind::Lidar => r#"{"attachment_type":"json","attachments":["https://files.example.com/l/0.json"],"labels":["car","truck"]}"#,
        Kind::Categorization => r#"{"attachment_type":"image","attachment":"https://files.example.com/c/1.jpg","categories":["public","private"]}"#,
        Kind::Text | Kind::Entities | Kind::Document => r#"{"attachments":[{"type":"text","content":"…"}],"fields":[{"type":"text","field_id":"summary","title":"Summary"}]}"#,
    }
    .to_owned()
}

fn response(kind: Kind, items: u64, seed: &mut Seed) -> String {
    let list = |items: u64, seed: &mut Seed, item: &dyn Fn(&mut Seed, u64) -> String| {
        (0..items).map(|index| item(seed, index)).collect::<Vec<_>>().join(",")
    };
    match kind {
        Kind::Image => format!(r#"{{"annotations":[{}],"global_attributes":{{}}}}"#, list(items, seed, &annotation)),
        Kind::Lidar => format!(
            r#"{{"annotations":{{"url":"https://files.example.com/results/{}.json"}}}}"#,
            seed.uuid()
        ),
        Kind::Text => {
            let text = list(items, seed, &|_, index| {
                ["\"naïve café\"", "\"データ 📦\"", "\"\\u00e9tiquette\"", "\"строка\\n\""][index as usize % 4].to_owned()
            });
            format!(r#"{{"annotations":{{"summary":{{"type":"text","field_id":"summary","response":[[{text}]]}}}}}}"#)
        }
        Kind::Categorization => r#"{"category":["public"]}"#.to_owned(),
        Kind::Entities => {
            let entity = |seed: &mut Seed, index: u64| {
                format!(r#"{{"label":"city","start":{},"end":{},"uuid":"{}"}}"#, index * 7, index * 7 + 5, seed.uuid())
            };
            format!(r#"{{"annotations":[{}]}}"#, list(items, seed, &entity))
        }
        Kind::Document => format!(r#"{{"annotations":[{}]}}"#, list(items, seed, &page)),
        Kind::Error => {
            r#"{"error":"The attachment could not be fetched.","attachments":[{"statusCode":404,"url":"https://files.example.com/i/4711.jpg"}]}"#
                .to_owned()
        }
    }
}

fn annotation(seed: &mut Seed, index: u64) -> String {
    let uuid = seed.uuid();
    if index % 3 == 2 {
        let vertex = |seed: &mut Seed| format!(r#"{{"x":{},"y":{}}}"#, seed.coordinate(), seed.coordinate());
        let vertices: Vec<_> = (0..5).map(|_| vertex(seed)).collect();
        return format!(r#"{{"type":"polygon","label":"road","vertices":[{}],"uuid":"{uuid}"}}"#, vertices.join(","));
    }
    format!(
        r#"{{"type":"box","label":"car","attributes":{{"occluded":false}},"left":{},"top":{},"width":{},"height":{},"uuid":"{uuid}"}}"#,
        seed.coordinate(),
        seed.coordinate(),
        seed.coordinate(),
        seed.coordinate(),
    )
}

fn page(seed: &mut Seed, index: u64) -> String {
    format!(
        r#"{{"uuid":"{}","page":{index},"label":"total","text":"1 204,50 €","location":{{"type":"box","top":{},"left":{},"width":120.5,"height":20.999999999999986}},"refs":[]}}"#,
        seed.uuid(),
        seed.coordinate(),
        seed.coordinate(),
    )
}

/// The body of a callback around a task, as the platform composes it; `None` if `task` is not a JSON object with a `task_id`.
#[must_use]
pub fn callback(task: &str) -> Option<String> {
    let members: HashMap<&str, &RawValue> = serde_json::from_str(task).ok()?;
    let id = members.get("task_id")?.get();
    let response = members.get("response").map(|raw| format!(r#","response":{}"#, raw.get())).unwrap_or_default();
    Some(format!(r#"{{"task":{task}{response},"task_id":{id}}}"#))
}

/// A callback's id that holds this time.
#[must_use]
pub fn callback_id(unix_millis: u64, seed: &mut Seed) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let (high, low) = (u128::from(unix_millis & 0xffff_ffff_ffff), u128::from(seed.next_u64()));
    let number = high << 80 | u128::from(seed.next_u64() & 0xffff) << 64 | low;
    let digit = |place: u32| char::from(ALPHABET[(number >> (5 * place) & 31) as usize]);
    format!("cb_{}", (0..26).rev().map(digit).collect::<String>())
}

/// The envelope of a task event around a task.
#[must_use]
pub fn envelope(team: &str, event_id: Option<&str>, task: &str) -> String {
    match event_id {
        Some(id) => format!(r#"{{"event_id":"{id}","event_type":"task.completed","team_id":"{team}","task":{task}}}"#),
        None => format!(r#"{{"team_id":"{team}","task":{task}}}"#),
    }
}

/// A `UUIDv7` of this time, as a producer should use for its event ids.
#[must_use]
pub fn uuid_v7(millis: u64, seed: &mut Seed) -> String {
    let (a, b) = (seed.next_u64(), seed.next_u64());
    format!(
        "{:08x}-{:04x}-7{:03x}-a{:03x}-{:012x}",
        (millis >> 16) & 0xffff_ffff,
        millis & 0xffff,
        a & 0xfff,
        (a >> 12) & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

/// A task's id: 24 hex digits that begin with this time, as the platform's task ids do.
#[must_use]
pub fn task_id(unix_seconds: u64, seed: &mut Seed) -> String {
    format!("{:08x}{:016x}", unix_seconds & 0xffff_ffff, seed.next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_json_and_depends_on_its_seed_alone() {
        for kind in Kind::ALL {
            let wanted = Wanted {
                kind,
                task_id: "6583f1a2b0c4d5e6f7081920",
                callback_url: Some("https://a.example/x"),
                is_test: true,
                items: 12,
            };
            let one = task(&wanted, &mut Seed::new(7));
            assert_eq!(one, task(&wanted, &mut Seed::new(7)));
            let whole: Result<&serde_json::value::RawValue, _> = serde_json::from_str(&one);
            assert!(whole.is_ok(), "{one}");
        }
        let body = callback(r#"{"task_id":"t1","response":{"x":1.50}}"#);
        assert_eq!(
            body.as_deref(),
            Some(r#"{"task":{"task_id":"t1","response":{"x":1.50}},"response":{"x":1.50},"task_id":"t1"}"#)
        );
        assert!(callback_id(1_764_000_000_000, &mut Seed::new(1)).starts_with("cb_01kav9ft00"));
        let id = uuid_v7(1_764_000_000_000, &mut Seed::new(1));
        assert_eq!((id.len(), &id[..13], &id[14..15]), (36, "019ab697-e800", "7"));
    }
}
