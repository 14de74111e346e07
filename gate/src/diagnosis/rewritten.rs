//! Bodies that tools on the way rewrote: the bodies that may have been signed, computed back from the one that arrived.
//! Nothing here verifies; the caller tries each body.

use base64::engine::{Engine as _, general_purpose::STANDARD};
use serde_json::Value;

use super::capture::is_utf16;

const BASE64: &str = "it is base64, as API gateways hand a body to a function (isBase64Encoded): decode it first";
const IN_A_STRING: &str = "its JSON stands inside a JSON string: it was serialised a second time";
const EVENT: &str = "it is the event of a function, which has the body in its member `body`";
const FORM: &str = "it was parsed or sent as a form";
const SLASHES: &str = "its JSON was rewritten: slashes that were not escaped now are (\\/), as PHP's json_encode does";
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
    found.extend(unwrapped(body, &text));
    if serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok() {
        let escapes_no_longer = "its JSON was rewritten: characters that were escaped no longer are";
        let slashes = text.replace("\\/", "/");
        for (body, how) in [
            (body.to_vec(), [SPACED, UNSPACED]),
            // Python escapes such characters unless it is told otherwise.
            (unescaped(&text).into_bytes(), [ESCAPED; 2]),
            (escaped(&text).into_bytes(), [escapes_no_longer; 2]),
            // PHP escapes slashes unless it is told otherwise, and other characters as well.
            (slashes.clone().into_bytes(), [SLASHES; 2]),
            (unescaped(&slashes).into_bytes(), [SLASHES; 2]),
            (
                text.replace('/', "\\/").into_bytes(),
                ["its JSON was rewritten: slashes that were escaped (\\/) no longer are"; 2],
            ),
        ] {
            found.push((spaced(&body, b"", b""), how[0]));
            found.push((spaced(&body, b" ", b" "), how[1]));
        }
    }
    found
}

/// What a body may have been before something was put around all of it.
fn unwrapped(body: &[u8], text: &str) -> Vec<(Vec<u8>, &'static str)> {
    let mut found = Vec::new();
    let in_base64 = |text: &str| STANDARD.decode(text.split_ascii_whitespace().collect::<String>()).ok();
    if let Some(decoded) = in_base64(text) {
        found.push((decoded, BASE64));
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::String(inner)) => found.push((inner.into_bytes(), IN_A_STRING)),
        Ok(Value::Object(event)) => {
            if let Some(Value::String(inner)) = event.get("body") {
                found.extend(in_base64(inner).map(|decoded| (decoded, EVENT)));
                found.push((inner.clone().into_bytes(), EVENT));
            }
        }
        _ => {}
    }
    found.extend(
        without_chunks(body).map(|whole| (whole, "it still has the sizes of chunked transfer between its pieces")),
    );
    if is_utf16(body) {
        found.push((from_utf16(body), "it was saved as UTF-16, as PowerShell writes files"));
    }
    // Each byte of UTF-8 was taken for a character.
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    found.extend(
        bytes.filter(|_| !text.is_ascii()).map(|bytes| (bytes, "its UTF-8 was read as Latin-1 and written again")),
    );
    // A parser of forms takes JSON for the name of a field, or a sender puts it into one.
    if let Some((name, value)) = text.split_once('=').filter(|_| !text.contains(char::is_whitespace)) {
        found.push((from_form(name), FORM));
        found.push((from_form(value), FORM));
    }
    found
}

fn from_utf16(bytes: &[u8]) -> Vec<u8> {
    let is_big = bytes.starts_with(b"\xfe\xff") || bytes.first() == Some(&0);
    let units = bytes.chunks_exact(2).map(|pair| {
        let pair = [pair[0], pair[1]];
        if is_big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    });
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.trim_start_matches('\u{feff}').as_bytes().to_vec()
}

/// The body without the framing of chunked transfer, if it has that.
fn without_chunks(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).take(20).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok())?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// The text of a field of a form.
fn from_form(field: &str) -> Vec<u8> {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = hex.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
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
