//! The section `outcomes`: topics to which the daemon publishes.

use super::super::raw::Raw;
use super::super::{ConfigError, Wrong};
use super::given;
use crate::model::notice::Notices;
use crate::publish::Topics;

/// The longest name of a topic that Kafka takes.
const LONGEST: usize = 249;

pub(super) fn topics(raw: &Raw, wrong: &Wrong<'_>) -> Result<Topics, ConfigError> {
    let topic = |key: &str, name: &str| -> Result<Option<String>, ConfigError> {
        let Some(name) = given(name) else { return Ok(None) };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.len() > LONGEST || !name.chars().all(is_plain) || [".", ".."].contains(&name) {
            return Err(wrong(key, "use at most 249 letters, digits, dots, hyphens and underscores"));
        }
        if raw.kafka.topics.iter().any(|read| read == name) {
            return Err(wrong(
                key,
                "it is one of kafka.topics, so callbackd would read its own messages as task events",
            ));
        }
        Ok(Some(name.to_owned()))
    };
    let outcomes = topic("outcomes.topic", &raw.outcomes.topic)?;
    let dead_letters = topic("outcomes.dead_letters_topic", &raw.outcomes.dead_letters_topic)?;
    if outcomes.is_some() && outcomes == dead_letters {
        return Err(wrong("outcomes.dead_letters_topic", "it is outcomes.topic, too; name two topics"));
    }
    if raw.outcomes.backlog < 1_000 {
        return Err(wrong("outcomes.backlog", "allow at least 1000 messages"));
    }
    Ok(Topics { outcomes, dead_letters })
}

/// What the store has to keep for these topics.
pub(super) fn notices(topics: &Topics) -> Notices {
    Notices { outcomes: topics.outcomes.is_some(), dead_letters: topics.dead_letters.is_some() }
}
