//! Text that comes from outside and text that people write: control characters are escaped, lengths are bounded, and
//! durations such as "30s" are read; prose is wrapped for a terminal. Nothing here judges whether a text is right for its purpose.

use std::time::Duration;

const HEX_DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// `bytes` as text for a person. Invalid UTF-8, control characters and invisible characters are escaped; only the first
/// `limit` bytes are shown, and an ellipsis marks what was cut.
#[must_use]
pub fn printable(bytes: &[u8], limit: usize) -> String {
    let mut shown = String::new();
    for chunk in bytes[..bytes.len().min(limit)].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_invisible(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str("\\x");
            shown.extend(digits(*byte));
        }
    }
    if bytes.len() > limit {
        shown.push('…');
    }
    shown
}

/// Characters that show nothing themselves but change how a terminal shows the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    text.extend(bytes.iter().flat_map(|byte| digits(*byte)));
    text
}

fn digits(byte: u8) -> [char; 2] {
    [HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 0xf)]]
}

/// Prose in lines of at most `width`, where every line but the first begins with `indent` spaces. A word that is wider
/// than a line stays whole, so that an address or a command can still be copied.
#[must_use]
pub fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let (mut lines, mut line, mut is_empty) = (Vec::new(), String::new(), true);
    // Spaces at the beginning and between words are the caller's layout, as long as they stand inside a line.
    for word in text.split_inclusive(' ') {
        let wide = line.chars().count() + word.trim_end().chars().count();
        if wide > width && !is_empty {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        }
        line.push_str(word);
        is_empty = line.trim().is_empty();
    }
    lines.push(line);
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`, as in "30s".
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
    fn characters_that_a_terminal_would_obey_are_escaped() {
        assert_eq!(printable(b"ok\x1b[2J\0\xff", 64), "ok\\u{1b}[2J\\u{0}\\xff");
        assert_eq!(printable("ä\u{202e}b".as_bytes(), 64), "ä\\u{202e}b");
        assert_eq!(printable(b"abcdef", 3), "abc…");
    }

    #[test]
    fn hex_has_two_digits_for_each_byte() {
        assert_eq!(hex(&[0x00, 0x0a, 0xf0, 0xff]), "000af0ff");
    }

    #[test]
    fn a_word_that_is_too_wide_for_a_line_stays_whole() {
        assert_eq!(wrapped("  see https://a.example/long now", 12, 4), "  see\n    https://a.example/long\n    now");
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2d"), Some(Duration::from_secs(172_800)));
        for wrong in ["", "s", "30", "1.5s", "-1s", "1w", "99999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
