//! A second verifier, written only from the published rules. It uses another library's HMAC and its own encodings.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

/// What a receiver holds.
#[derive(Clone)]
pub enum Holds {
    Signed(Vec<u8>),
    Keyed(Vec<u8>, String),
    Hmac(String),
    Static(String),
}

pub struct Receiver {
    /// Each with whether it is for test callbacks.
    pub credentials: Vec<(Holds, bool)>,
    pub live_only: bool,
}

pub struct Request<'r> {
    pub headers: &'r [(String, Vec<u8>)],
    pub body: &'r [u8],
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
}

pub fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for position in 0..4 {
            let digit = alphabet[(word >> (18 - 6 * position) & 63) as usize];
            text.push(if position <= three.len() { digit } else { '=' });
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<'r> Request<'r> {
    fn all(&self, wanted: &str) -> Vec<&'r [u8]> {
        let named = self.headers.iter().filter(|(name, _)| name.to_ascii_lowercase() == wanted);
        named.map(|(_, value)| &value[..]).collect()
    }

    fn signed_by(&self, key: &[u8], entries: &[&[u8]], has_header: bool) -> Result<(), &'static str> {
        if !has_header {
            return Err("signature_missing");
        }
        let (id, time) = (self.all("webhook-id")[0], self.all("webhook-timestamp")[0]);
        let right = format!("v1,{}", base64(&mac(key, &[id, b".", time, b".", self.body])));
        if entries.contains(&right.as_bytes()) { Ok(()) } else { Err("signature_mismatch") }
    }

    fn keyed_by(&self, key: &str) -> Result<(), &'static str> {
        match self.all("scale-callback-auth").first() {
            None => Err("auth_missing"),
            Some(value) if *value == key.as_bytes() => Ok(()),
            Some(_) => Err("auth_mismatch"),
        }
    }

    fn hmac_by(&self, key: &str) -> Result<(), &'static str> {
        let value = *self.all("scale-callback-auth").first().ok_or("auth_missing")?;
        let (id, time) = (self.all("webhook-id")[0], self.all("webhook-timestamp")[0]);
        let text = std::str::from_utf8(value).map_err(|_| "auth_malformed")?;
        let parts: Vec<&str> = text.split(',').collect();
        let number = parts[0].strip_prefix("t=").filter(|text| is_number(text.as_bytes())).ok_or("auth_malformed")?;
        if !(2..=3).contains(&parts.len()) {
            return Err("auth_malformed");
        }
        let mut given = Vec::new();
        for part in &parts[1..] {
            let digits = part.strip_prefix("v1=").ok_or("auth_malformed")?;
            let lower = digits.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            if digits.len() != 64 || !lower {
                return Err("auth_malformed");
            }
            given.push(digits);
        }
        if number.as_bytes() != time {
            return Err("auth_timestamp_differs");
        }
        let right = hex(&mac(key.as_bytes(), &[b"scale-callback-auth;v1\n", time, b"\n", id, b"\n", self.body]));
        if given.contains(&right.as_str()) { Ok(()) } else { Err("auth_mismatch") }
    }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 12 && text[0] != b'0' && text.iter().all(u8::is_ascii_digit)
}

/// The index of the credential that accepts the request, or the reason why none does.
pub fn judge(receiver: &Receiver, request: &Request<'_>, now: u64) -> Result<usize, &'static str> {
    check_forms(request)?;
    let entries = signatures(request)?;
    check_age(request.all("webhook-timestamp")[0], now)?;
    let has_header = !request.all("webhook-signature").is_empty();
    let versioned: Vec<&[u8]> = entries.into_iter().filter(|entry| entry.starts_with(b"v1,")).collect();
    let mut reason = "signature_mismatch";
    for (index, (holds, is_test)) in receiver.credentials.iter().enumerate() {
        let signed = |key: &[u8]| request.signed_by(key, &versioned, has_header);
        let verdict = match holds {
            Holds::Signed(secret) => signed(secret),
            Holds::Keyed(secret, key) => signed(secret).and_then(|()| request.keyed_by(key)),
            Holds::Hmac(key) => request.hmac_by(key),
            Holds::Static(key) => request.keyed_by(key),
        };
        match verdict {
            Ok(()) if receiver.live_only && *is_test => reason = "test_refused",
            Ok(()) => return Ok(index),
            Err(why) if index == 0 => reason = why,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// Checks the headers that may occur only once.
fn check_forms(request: &Request<'_>) -> Result<(), &'static str> {
    match request.all("webhook-id")[..] {
        [] => return Err("id_missing"),
        [id] => {
            let known = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
            if id.is_empty() || id.len() > 64 || !id.iter().all(known) {
                return Err("id_invalid");
            }
        }
        _ => return Err("id_duplicate"),
    }
    match request.all("webhook-timestamp").len() {
        0 => return Err("timestamp_missing"),
        1 => {}
        _ => return Err("timestamp_duplicate"),
    }
    match request.all("scale-callback-auth")[..] {
        [] => Ok(()),
        [auth] if auth.len() > 256 => Err("header_too_long"),
        [_] => Ok(()),
        _ => Err("auth_duplicate"),
    }
}

/// All entries of all `webhook-signature` headers, within their limits.
fn signatures<'r>(request: &Request<'r>) -> Result<Vec<&'r [u8]>, &'static str> {
    let (mut bytes, mut entries) = (0, Vec::new());
    for line in request.all("webhook-signature") {
        bytes += line.len();
        if bytes > 4096 {
            return Err("header_too_long");
        }
        entries.extend(line.split(|byte| *byte == b' ').filter(|entry| !entry.is_empty()));
        if entries.len() > 16 {
            return Err("too_many_signatures");
        }
    }
    Ok(entries)
}

fn check_age(timestamp: &[u8], now: u64) -> Result<(), &'static str> {
    if !is_number(timestamp) {
        return Err("timestamp_invalid");
    }
    let time: i128 = std::str::from_utf8(timestamp).unwrap().parse().unwrap();
    match i128::from(now) - time {
        age if age > 300 => Err("timestamp_too_old"),
        age if age < -300 => Err("timestamp_too_new"),
        _ => Ok(()),
    }
}
