//! The conformance corpus (feature `conformance`): more than seven hundred requests, and the verdict that a receiver must
//! give on each. An independent program made them (`testdata/conformance.py`). This module can make each request again
//! with a receiver's own keys and the current time, so that a running receiver can be tested.
//!
//! ```
//! use scale_callback_auth::conformance::Corpus;
//!
//! let corpus = Corpus::embedded();
//! for case in corpus.cases() {
//!     let (verifier, request) = (corpus.verifier(case.verifier()), case.recorded());
//!     let verdict = verifier.verify_at(&request.headers[..], &request.body, corpus.now());
//!     assert!(verdict.is_err() || case.refusal().is_none_or(|why| why.starts_with("not_")), "{}", case.name());
//! }
//! ```

use base64::engine::{Engine as _, general_purpose::STANDARD, general_purpose::URL_SAFE};
use serde_json::Value;

use crate::mac::KeyedHmac;
use crate::{Credential, HmacKey, Mode, SigningSecret, Verifier, header};

/// All cases of the corpus, with the keys, bodies and verifiers that they name.
#[derive(Debug)]
pub struct Corpus(Value);

/// One request and its expected verdict.
#[derive(Debug, Clone, Copy)]
pub struct Case<'c> {
    corpus: &'c Corpus,
    case: &'c Value,
}

/// A request as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The headers as names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A receiver's own keys, which replace the main keys of the corpus. The corpus keeps its other keys, such as those of
/// another team.
#[derive(Clone, Default)]
pub struct OwnKeys {
    /// `whsec_...`
    pub signing: Option<String>,
    /// `live_auth_...` or `test_auth_...`
    pub auth: Option<String>,
    /// `live_hmac_...` or `test_hmac_...`
    pub hmac: Option<String>,
}

impl core::fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("OwnKeys(..)")
    }
}

/// The name of the corpus' keys that a receiver's own keys replace.
const MAIN: &str = "main";

impl Corpus {
    /// The corpus of this version of the crate.
    ///
    /// # Panics
    /// Never, because the corpus is compiled in and a test reads it.
    #[must_use]
    pub fn embedded() -> Self {
        Self(serde_json::from_str(include_str!("../testdata/conformance.json")).expect("the corpus is JSON"))
    }

    /// The time of the recorded requests, in unix seconds.
    ///
    /// # Panics
    /// Never, because a test reads the corpus.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0["now"].as_u64().expect("the corpus holds its time as a number")
    }

    /// Every case.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        self.0["cases"].as_array().into_iter().flatten().map(|case| Case { corpus: self, case })
    }

    /// The verifier that some cases name, with the corpus' keys.
    ///
    /// # Panics
    /// If the corpus has no verifier of this name.
    #[must_use]
    pub fn verifier(&self, name: &str) -> Verifier {
        let wanted = &self.0["verifiers"][name];
        let made = wanted["credentials"].as_array().into_iter().flatten().map(|credential| self.credential(credential));
        let verifier = made.fold(None::<Verifier>, |all, next| {
            Some(match all {
                None => Verifier::new(next),
                Some(all) => all.or_credential(next),
            })
        });
        let verifier = verifier.unwrap_or_else(|| panic!("the corpus has no verifier {name}"));
        if wanted["live_only"] == true { verifier.require_live() } else { verifier }
    }

    /// Whether a key stands in the corpus. Then everybody can read it, and a receiver that holds it accepts what anybody
    /// signs.
    #[must_use]
    pub fn publishes(&self, key: &str) -> bool {
        let kinds = self.0["keys"].as_object().into_iter().flat_map(|kinds| kinds.values());
        kinds.filter_map(Value::as_object).flat_map(|keys| keys.values()).any(|published| published == key)
    }

    /// Whether a key is one of those in the corpus that no receiver holds. A receiver that holds it cannot be tested.
    #[must_use]
    pub fn holds_for_others(&self, key: &str) -> bool {
        let kinds = self.0["keys"].as_object().into_iter().flat_map(|kinds| kinds.values());
        let keys = kinds.filter_map(Value::as_object).flatten();
        keys.filter(|(name, _)| *name != MAIN).any(|(_, published)| published == key)
    }

    fn credential(&self, credential: &Value) -> Credential {
        let key = |kind: &str, member: &str| self.key(&OwnKeys::default(), kind, text(&credential[member]));
        let mode = if credential["mode"] == "live" { Mode::Live } else { Mode::Test };
        let made = match text(&credential["kind"]) {
            "signed" => Credential::signed(mode.name(), mode, &key("signing", "key")),
            "keyed" => Credential::signed_and_keyed(mode.name(), &key("signing", "key"), &key("auth", "second_key")),
            "hmac" => Credential::hmac_header(mode.name(), &key("hmac", "key")),
            _ => Credential::static_key_authenticates_no_body(mode.name(), &key("auth", "key")),
        };
        made.expect("the corpus' keys are well formed")
    }

    fn key(&self, own: &OwnKeys, kind: &str, name: &str) -> String {
        let given = match kind {
            "signing" => &own.signing,
            "auth" => &own.auth,
            _ => &own.hmac,
        };
        let given = given.as_ref().filter(|_| name == MAIN);
        given.cloned().unwrap_or_else(|| text(&self.0["keys"][kind][name]).to_owned())
    }

    fn body(&self, name: &Value) -> Vec<u8> {
        STANDARD.decode(text(&self.0["bodies"][text(name)])).expect("the bodies of the corpus are base64")
    }
}

impl<'c> Case<'c> {
    /// The name of the case, which says what is special about it.
    #[must_use]
    pub fn name(&self) -> &'c str {
        text(&self.case["name"])
    }

    /// The name of the verifier that must judge the request: it says which keys the receiver holds.
    #[must_use]
    pub fn verifier(&self) -> &'c str {
        text(&self.case["verifier"])
    }

    /// Whether the request can be sent over HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.case["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "http"))
    }

    /// Why the request must be refused. This is the code of a [`VerifyError`](crate::VerifyError), or the code of a
    /// [`ParseError`](crate::ParseError) if the request verifies but is not a callback. `None` if it must be accepted.
    #[must_use]
    pub fn refusal(&self) -> Option<&'c str> {
        self.case["refusal"].as_str()
    }

    /// Whether the request carries a proof that the receiver's own key made over exactly what is sent, however it is
    /// written. A receiver that wrongly accepts such a request is too lenient, but nobody without the key can make one.
    #[must_use]
    pub fn carries_right_proof(&self) -> bool {
        let recipe = &self.case["recipe"];
        let is_main = |name: &Value| name == MAIN;
        let signatures = recipe["signatures"].as_array().into_iter().flatten().flat_map(|line| line.as_array());
        let is_signed = signatures.flatten().any(|entry| is_main(&entry["secret"]));
        let is_authenticated = recipe["auth"]["hmac"].as_array().into_iter().flatten().any(is_main);
        let is_hmac = self.verifier().starts_with("hmac");
        recipe["over"].is_null() && if is_hmac { is_authenticated } else { is_signed }
    }

    /// The request as it was recorded, with the corpus' keys and the corpus' time.
    #[must_use]
    pub fn recorded(&self) -> Request {
        Request { headers: pairs(&self.case["headers"]), body: self.corpus.body(&self.case["recipe"]["body"]) }
    }

    /// Makes the request again for the time `now`, in unix seconds, with a receiver's own keys. `id` replaces the usual
    /// id of the corpus.
    ///
    /// # Errors
    /// [`KeyError`](crate::KeyError): one of the receiver's keys can't be used.
    pub fn request(&self, own: &OwnKeys, id: &str, now: u64) -> Result<Request, crate::KeyError> {
        let recipe = &self.case["recipe"];
        let usual = text(&self.corpus.0["id"]);
        let with_id = |given: &Value| given.as_str().map(|given| given.replace(usual, id));
        let sent_id = with_id(&recipe["id"]);
        let time = match (&recipe["timestamp"]["offset"], &recipe["timestamp"]["text"]) {
            (Value::Number(offset), _) => {
                Some(now.saturating_add_signed(offset.as_i64().unwrap_or_default()).to_string())
            }
            (_, text) => text.as_str().map(str::to_owned),
        };
        let body = self.corpus.body(&recipe["body"]);
        let mut headers = Vec::new();
        headers.extend(sent_id.iter().map(|id| (header::ID.to_owned(), id.clone())));
        headers.extend(time.iter().map(|time| (header::TIMESTAMP.to_owned(), time.clone())));
        // Some cases sign something else than what they send.
        let over = &recipe["over"];
        let signed = Signed {
            id: with_id(&over["id"]).or(sent_id).unwrap_or_default(),
            time: over["timestamp"].as_str().map(str::to_owned).or(time).unwrap_or_default(),
            body: if over["body"].is_null() { body.clone() } else { self.corpus.body(&over["body"]) },
        };
        for line in recipe["signatures"].as_array().into_iter().flatten() {
            let entries = line.as_array().into_iter().flatten().map(|entry| self.signature(own, entry, &signed));
            let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
            headers.push((header::SIGNATURE.to_owned(), entries.join(" ")));
        }
        if !recipe["auth"].is_null() {
            headers.push((header::AUTH.to_owned(), self.auth(own, &recipe["auth"], &signed)?));
        }
        headers.extend(pairs(&recipe["more"]).into_iter().map(|(name, value)| (name, value.replace(usual, id))));
        Ok(Request { headers, body })
    }

    fn signature(&self, own: &OwnKeys, entry: &Value, signed: &Signed) -> Result<String, crate::KeyError> {
        if let Some(raw) = entry["raw"].as_str() {
            return Ok(raw.to_owned());
        }
        let secret = SigningSecret::parse(&self.corpus.key(own, "signing", text(&entry["secret"])))?;
        let mac = signed.standard_webhooks(&secret.0);
        let standard = STANDARD.encode(mac);
        let encoded = match entry["as"].as_str() {
            Some("unpadded") => standard.trim_end_matches('=').to_owned(),
            Some("url_safe") => URL_SAFE.encode(mac),
            Some("hex") => mac.iter().map(|byte| format!("{byte:02x}")).collect(),
            Some("non_canonical") => with_an_unused_bit_set(&standard),
            Some("lower_case") => standard.to_lowercase(),
            _ => standard,
        };
        let tail = entry["tail"].as_str().unwrap_or_default();
        Ok(format!("{},{encoded}{tail}", entry["version"].as_str().unwrap_or("v1")))
    }

    fn auth(&self, own: &OwnKeys, auth: &Value, signed: &Signed) -> Result<String, crate::KeyError> {
        if let Some(raw) = auth["raw"].as_str() {
            return Ok(raw.to_owned());
        }
        if let Some(name) = auth["key"].as_str() {
            return Ok(self.corpus.key(own, "auth", name));
        }
        let mut parts = vec![format!("t={}", auth["t"].as_str().unwrap_or(&signed.time))];
        for name in auth["hmac"].as_array().into_iter().flatten() {
            let key = HmacKey::parse(&self.corpus.key(own, "hmac", text(name)))?;
            let (id, time) = (signed.id.as_bytes(), signed.time.as_bytes());
            let digits = key.keyed.authenticating(id, time, &signed.body).hex();
            let digits = String::from_utf8_lossy(&digits).into_owned();
            let upper = auth["as"] == "upper_case";
            parts.push(format!("v1={}", if upper { digits.to_uppercase() } else { digits }));
        }
        Ok(parts.join(auth["join"].as_str().unwrap_or(",")) + auth["tail"].as_str().unwrap_or_default())
    }
}

/// What the signatures and HMACs of a request cover.
struct Signed {
    id: String,
    time: String,
    body: Vec<u8>,
}

impl Signed {
    fn standard_webhooks(&self, key: &KeyedHmac) -> [u8; 32] {
        key.over(&[self.id.as_bytes(), b".", self.time.as_bytes(), b".", &self.body])
    }
}

/// Sets one of the two bits that the last base64 digit of 32 bytes leaves unused. A lenient decoder ignores it.
fn with_an_unused_bit_set(standard: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = standard.as_bytes().to_vec();
    let last = bytes.len().saturating_sub(2);
    if let Some(digit) = ALPHABET.iter().position(|digit| Some(digit) == bytes.get(last)) {
        bytes[last] = ALPHABET[digit | 1];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pairs(list: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned());
    list.as_array().into_iter().flatten().map(pair).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
