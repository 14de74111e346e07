//! Bodies that tools on the way rewrote: the bodies that may have been signed, computed back from the one that arrived.
//! Nothing here verifies; the caller tries each body.

const SPACED: &str = "its JSON was rewritten with white space";
const UNSPACED: &str = "its JSON was rewritten without white space";
const ESCAPED: &str = "its JSON was rewritten: characters that were not escaped now are (\\u...)";

/// The bodies that may have been signed, each with the change that made this body out of it.
pub(super) fn originals(body: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let mut found = Vec::new();
    if let Some(rest) = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n")) {
        found.push((rest.to_vec(), "a line end was added"));
    }
    if let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        found.push((rest.to_vec(), "a byte order mark was added"));
    }
    found.push(([body, b"\n"].concat(), "its line end was removed"));
    let text = String::from_utf8_lossy(body);
    if text.contains("\r\n") {
        found.push((text.replace("\r\n", "\n").into_bytes(), "its line ends were changed"));
    }
    if text.contains('\n') {
        found.push((text.replace('\n', "\r\n").into_bytes(), "its line ends were changed"));
    }
    if serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok() {
        for (body, how) in [
            (body.to_vec(), [SPACED, UNSPACED]),
            // Python escapes such characters unless it is told otherwise.
            (unescaped(&text).into_bytes(), [ESCAPED; 2]),
            (escaped(&text).into_bytes(), ["its JSON was rewritten: characters that were escaped no longer are"; 2]),
        ] {
            found.push((spaced(&body, b"", b""), how[0]));
            found.push((spaced(&body, b" ", b" "), how[1]));
        }
    }
    found
}

/// JSON with every character outside of ASCII escaped, as UTF-16.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// JSON in which no character outside of ASCII is escaped.
fn unescaped(json: &str) -> String {
    let unit = |text: &str| {
        let digits =
            text.strip_prefix("\\u")?.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| *unit > 0x7f)
    };
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        let units = [unit(rest), rest.get(6..).and_then(unit)];
        let one = units[0].and_then(|unit| char::from_u32(u32::from(unit)));
        let two = units[0].zip(units[1]).and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let (c, length) = match (one, two) {
            (Some(c), _) => (c, 6),
            (None, Some(c)) => (c, 12),
            // Behind a backslash the next character has no meaning of its own.
            (None, None) if next == '\\' && rest.len() > 1 => {
                let pair = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..pair]);
                rest = &rest[pair..];
                continue;
            }
            (None, None) => (next, next.len_utf8()),
        };
        out.push(c);
        rest = &rest[length..];
    }
    out
}

/// JSON with this white space behind each `:` and `,`, and no other.
fn spaced(json: &[u8], colon: &[u8], comma: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if inside => {
                inside = *byte != b'"' || escaped;
                escaped = *byte == b'\\' && !escaped;
                out.push(*byte);
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                inside = *byte == b'"';
                out.push(*byte);
                match byte {
                    b':' => out.extend_from_slice(colon),
                    b',' => out.extend_from_slice(comma),
                    _ => {}
                }
            }
        }
    }
    out
}
