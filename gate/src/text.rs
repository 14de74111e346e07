//! Text from outside, made safe to show: control bytes escaped, length bounded. And durations, as people write them.

use std::fmt::Write as _;
use std::time::Duration;

/// `bytes` as text for a person: invalid UTF-8 and control characters escaped, cut after `limit` bytes of input.
#[must_use]
pub fn printable(bytes: &[u8], limit: usize) -> String {
    let mut shown = String::new();
    for chunk in bytes[..bytes.len().min(limit)].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control()
                || matches!(c, '\u{61c}' | '\u{180e}' | '\u{feff}')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
            {
                let _ = write!(shown, "{}", c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if bytes.len() > limit {
        shown.push('…');
    }
    shown
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number and one of `ms`, `s`, `m`, `h`, `d`: "30s".
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(printable(b"ok\x1b[2J\0\xff", 64), "ok\\u{1b}[2J\\u{0}\\xff");
        assert_eq!(printable("ä\u{202e}b".as_bytes(), 64), "ä\\u{202e}b");
        assert_eq!(printable(b"abcdef", 3), "abc…");
    }
}
