//! A captured request: reading it, and the verdict on it at its own time.

use scale_callback_auth::{Verifier, VerifyError, header};

/// A captured request.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// Names and values, with the line that each stands on.
    pub headers: Vec<(String, String, usize)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The verdict on a captured request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is from the platform.
    Valid {
        /// `webhook-id`.
        id: String,
        /// The credential's mode.
        mode: &'static str,
        /// The task, where the body is a callback.
        task: Option<String>,
    },
    /// It does not verify, for this reason.
    Invalid(VerifyError),
}

/// Captured headers that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A line continues the line before it.
    #[error("line {line} continues the one before it: a folded header, which no receiver reads")]
    Folded {
        /// The line's number, from 1.
        line: usize,
    },
    /// A line has no colon.
    #[error("line {line} is not a header: it has no colon")]
    NoColon {
        /// The line's number, from 1.
        line: usize,
    },
    /// A header that a request holds once stands there twice.
    #[error("line {line}: {name} appears a second time (first on line {first}); a request holds it once")]
    Repeated {
        /// The second line's number, from 1.
        line: usize,
        /// The header's name.
        name: String,
        /// The first line's number.
        first: usize,
    },
    /// What stands before a line's colon is no header's name.
    #[error("line {line} is not a header: no header has such a name; the body belongs into a file of its own")]
    NotAName {
        /// The line's number, from 1.
        line: usize,
    },
    /// The file is JSON.
    #[error("it is JSON; write each header on a line of its own, as NAME: VALUE")]
    Json,
    /// The file is UTF-16.
    #[error("it is UTF-16, as PowerShell writes files; save it as UTF-8 (Out-File -Encoding utf8)")]
    Utf16,
    /// There is no header at all.
    #[error("it holds no header")]
    Empty,
}

/// Headers that a request holds once.
const ONCE: [&str; 3] = [header::ID, header::TIMESTAMP, header::AUTH];
/// How a request line ends.
const VERSIONS: [&str; 4] = [" HTTP/1.1", " HTTP/1.0", " HTTP/2", " HTTP/2.0"];

/// The text of a file of headers, and whether a byte order mark stood before it.
///
/// # Errors
/// [`CaptureError::Utf16`]
pub fn text_of(bytes: &[u8]) -> Result<(String, bool), CaptureError> {
    if is_utf16(bytes) {
        return Err(CaptureError::Utf16);
    }
    let rest = bytes.strip_prefix(b"\xef\xbb\xbf");
    Ok((String::from_utf8_lossy(rest.unwrap_or(bytes)).into_owned(), rest.is_some()))
}

/// Whether bytes are UTF-16: by their byte order mark, or because every second byte of their begin is zero.
pub(super) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || matches!(bytes, [_, 0, _, 0, ..] | [0, _, 0, _, ..])
}

/// Whether a text is the name of a header.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl Capture {
    /// Reads headers as tools capture them, as `Name: value` lines. A request line may stand before them, and an empty line
    /// behind them. Where some lines begin with `> `, as curl writes what it sends, the other lines are left out. So are the
    /// names that HTTP/2 has beside headers, such as `:path`.
    ///
    /// # Errors
    /// [`CaptureError`] names the line.
    pub fn headers(text: &str) -> Result<Vec<(String, String, usize)>, CaptureError> {
        let mut headers: Vec<(String, String, usize)> = Vec::new();
        if text.trim_start().starts_with(['{', '[']) {
            return Err(CaptureError::Json);
        }
        let is_from_curl = text.lines().any(|line| line.starts_with("> "));
        for (number, line) in (1..).zip(text.lines()) {
            let sent = if is_from_curl { line.strip_prefix("> ") } else { Some(line) };
            let Some(line) = sent.map(|line| line.trim_end_matches('\r')) else { continue };
            if line.is_empty() || line.starts_with(':') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                return Err(CaptureError::Folded { line: number });
            }
            let is_request_line = headers.is_empty() && VERSIONS.iter().any(|version| line.ends_with(version));
            if is_request_line {
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(CaptureError::NoColon { line: number })?;
            let name = name.trim().to_lowercase();
            if !is_name(&name) {
                return Err(CaptureError::NotAName { line: number });
            }
            let earlier = headers.iter().find(|(known, ..)| *known == name && ONCE.contains(&name.as_str()));
            if let Some((.., first)) = earlier {
                return Err(CaptureError::Repeated { line: number, name, first: *first });
            }
            headers.push((name, value.trim().to_owned(), number));
        }
        if headers.is_empty() { Err(CaptureError::Empty) } else { Ok(headers) }
    }

    /// The time that the request says it was sent, in unix seconds.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        let text = self.value(header::TIMESTAMP)?;
        let plain =
            (1..=12).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| plain)
    }

    /// The verdict as if the request had come in at its own time. Where several credentials refuse it, the one that it came
    /// furthest with gives the reason: where its signature was right, the key is what is wrong.
    #[must_use]
    pub fn verdict(&self, verifier: &Verifier) -> Finding {
        let error = match self.verify(verifier, &self.body) {
            Ok(finding) => return finding,
            Err(error) => error,
        };
        let past_its_signature = |single: &Verifier| {
            let refusal = self.verify(single, &self.body).err();
            refusal.filter(|why| {
                wants_signature_and_key(single) && matches!(why, VerifyError::AuthMismatch | VerifyError::AuthMissing)
            })
        };
        Finding::Invalid(verifier.singles().iter().find_map(past_its_signature).unwrap_or(error))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, ..)| known == name).map(|(_, value, _)| value.as_str())
    }

    pub(super) fn verify(&self, verifier: &Verifier, body: &[u8]) -> Result<Finding, VerifyError> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value, _)| (&**name, &**value)).collect();
        let verified = verifier.verify_at(&headers[..], body, self.time().unwrap_or_default())?;
        Ok(Finding::Valid {
            id: verified.id().to_owned(),
            mode: verified.mode().name(),
            task: verified.callback().ok().map(|callback| callback.task_id().to_owned()),
        })
    }
}

/// Whether a verifier of one credential asks for a signature and a key.
pub(super) fn wants_signature_and_key(single: &Verifier) -> bool {
    single.forms().all(|form| form == "signed_and_keyed")
}
