//! What a sandbox is told, in JSON, and what it answers: lines of JSON. The bytes of a record's value follow its line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use crate::intake::settings::LARGEST_EVENT;
use crate::model::callback::Hash;

/// The longest line: the headers that carry identity, four characters a byte.
const LINE: u64 = 1 << 20;

/// What a sandbox reads. It has no `Debug`, because passwords are among the client's properties.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    /// The properties of Kafka's client.
    pub(super) client: BTreeMap<String, String>,
    /// The id of the cluster that the partition is of, where another one must not be read.
    pub(super) cluster: Option<String>,
    pub(super) topic: String,
    pub(super) partition: i32,
    /// `None`: from the beginning of the log.
    pub(super) from: Option<i64>,
    /// If the log begins later, from its beginning.
    pub(super) or_from_beginning: bool,
    /// One record is enough.
    pub(super) only_one: bool,
    /// A longer value is cut to the first bytes, as many as a dead letter keeps.
    pub(super) max_event_bytes: usize,
    /// The values at these offsets are cut only where no event could ever be so long: they were accepted before.
    pub(super) wanted: Vec<i64>,
}

impl Order {
    /// How long the value at this offset may be.
    pub(super) fn most_bytes(&self, offset: i64) -> usize {
        if self.wanted.contains(&offset) { LARGEST_EVENT } else { self.max_event_bytes }
    }
}

/// A line of the answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    /// The first line: from where it reads, and one above the last offset of the log.
    Start {
        from: i64,
        log_end: i64,
    },
    /// It has a record, which follows. So its batch has not ended it.
    Got {
        offset: i64,
    },
    Record {
        head: Head,
        value_bytes: usize,
    },
    /// The end of the log, or of what the order's offset can give.
    End {
        next: i64,
    },
    /// Kafka says that it has no such topic, or that the topic has no such partition.
    Absent,
    /// It can't read.
    Failed {
        reason: String,
    },
}

/// A record without its value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
    /// Those that carry identity.
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) is_tombstone: bool,
    pub(super) cut: Option<CutValue>,
}

/// What is known of a value that was too large to be sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CutValue {
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
    /// The record's hash in the log.
    pub(crate) log_hash: Hash,
}

/// A record that a sandbox read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SandboxedRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Tombstone,
    Whole(Vec<u8>),
    /// The first bytes.
    Cut(Vec<u8>, CutValue),
}

impl Frame {
    /// Writes the line, and the value behind it.
    pub(super) fn write(&self, output: &mut impl Write, value: &[u8]) -> io::Result<()> {
        serde_json::to_writer(&mut *output, self)?;
        output.write_all(b"\n")?;
        output.write_all(value)?;
        output.flush()
    }

    /// Reads a line. `None` at the end of the answer, also where it breaks off.
    pub(super) fn read(input: &mut impl BufRead) -> Option<Self> {
        let mut line = Vec::new();
        // Whatever is wrong with the input, the answer ends here.
        input.take(LINE).read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }
}

impl Head {
    /// Reads the value that follows the record's line. `None` if the answer breaks off.
    pub(super) fn with_value(self, input: &mut impl BufRead, bytes: usize) -> Option<SandboxedRecord> {
        let mut value = Vec::new();
        input.take(bytes as u64).read_to_end(&mut value).ok()?;
        if value.len() < bytes {
            return None;
        }
        let value = match self.cut {
            _ if self.is_tombstone => Value::Tombstone,
            Some(cut) => Value::Cut(value, cut),
            None => Value::Whole(value),
        };
        Some(SandboxedRecord { offset: self.offset, timestamp: self.timestamp, headers: self.headers, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(offset: i64, cut: Option<CutValue>) -> Head {
        let headers = vec![("team-id".to_owned(), Some(vec![0, 0xff])), ("event-id".to_owned(), None)];
        Head { offset, timestamp: Some(5), headers, is_tombstone: false, cut }
    }

    #[test]
    fn a_value_that_is_wanted_comes_whole_though_the_bound_of_events_was_lowered() {
        let client = BTreeMap::new();
        let order = Order {
            client,
            cluster: None,
            topic: "t".to_owned(),
            partition: 0,
            from: Some(7),
            or_from_beginning: true,
            only_one: false,
            max_event_bytes: 1_024,
            wanted: vec![7, 9],
        };
        let order: Order = serde_json::from_slice(&serde_json::to_vec(&order).unwrap()).unwrap();
        assert_eq!([7, 8, 9].map(|offset| order.most_bytes(offset)), [LARGEST_EVENT, 1_024, LARGEST_EVENT]);
    }

    #[test]
    fn what_is_written_is_read_and_an_answer_that_breaks_off_gives_no_record() {
        let cut = CutValue { bytes: 9_000, hash: [1; 32], log_hash: [2; 32] };
        let mut answer = Vec::new();
        Frame::Start { from: 7, log_end: 9 }.write(&mut answer, b"").unwrap();
        Frame::Record { head: head(7, None), value_bytes: 5 }.write(&mut answer, b"a\nb\xff\n").unwrap();
        Frame::Record { head: head(8, Some(cut)), value_bytes: 2 }.write(&mut answer, b"ab").unwrap();
        let read = |answer: &[u8]| {
            let mut input = answer;
            let mut records = Vec::new();
            while let Some(frame) = Frame::read(&mut input) {
                if let Frame::Record { head, value_bytes } = frame {
                    let Some(record) = head.with_value(&mut input, value_bytes) else { break };
                    records.push(record.value);
                }
            }
            records
        };
        let all = [Value::Whole(b"a\nb\xff\n".to_vec()), Value::Cut(b"ab".to_vec(), cut)];
        assert_eq!(read(&answer), all);
        for end in 0..answer.len() {
            let some = read(&answer[..end]);
            assert!(some.len() < 2 && all.starts_with(&some), "{end}: {some:?}");
        }
    }
}
