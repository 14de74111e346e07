//! Holds a running receiver to the conformance corpus: what it wrongly accepts, what it wrongly refuses.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use scale_callback_auth::conformance::{Case, Corpus, OwnKeys, Request};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{self, ClientError, Remote};
use crate::receiver::BODY_LIMIT;
use crate::samples::{Seed, callback_id};

/// Requests under way at once.
const AT_ONCE: usize = 4;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the receiver holds, and so which cases apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The signing secret.
    Signed,
    /// The signing secret and the callback auth key.
    Keyed,
    /// The key of the `hmac` form.
    Hmac,
}

impl Form {
    /// As the corpus names the verifier.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Keyed => "keyed",
            Self::Hmac => "hmac",
        }
    }
}

/// Where a receiver is: the server, and the path and query of its callbacks.
#[derive(Debug, Clone)]
pub struct ReceiverAt {
    /// The server.
    pub remote: Remote,
    /// Path and query.
    pub path: String,
}

impl ReceiverAt {
    /// Reads `http[s]://HOST[:PORT][/PATH[?QUERY]]`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Self, String> {
        // What stands before an @ may be a password.
        let shown = url.rsplit_once('@').map_or_else(|| format!("{url:?}"), |(_, host)| format!("\"...@{host}\""));
        let wrong = || format!("{shown} is no URL of a receiver; write for example http://127.0.0.1:8080/callbacks");
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
        let remote = Remote::parse(&format!("{scheme}://{authority}"), ca_file).map_err(|_| wrong())?;
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { remote, path })
    }
}

/// What one case came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The case's name.
    pub case: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The status, or why there was none.
    pub answer: String,
}

/// Whether the receiver did as it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Right,
    /// It took what it must refuse, for this reason.
    WronglyAccepted(String),
    /// It refused what it must take.
    WronglyRefused,
    /// It failed: a status of 500 and above, or no answer at all.
    Failed,
}

/// Sends every case that applies, each with an id of its own; `now` moves the corpus' times to the present.
///
/// # Errors
/// One sentence: a key that can't be used, or a receiver that can't be reached.
pub async fn hold(at: &ReceiverAt, form: Form, own: &OwnKeys) -> Result<Vec<Outcome>, String> {
    let corpus = Arc::new(Corpus::embedded());
    let names: Vec<String> =
        corpus.cases().filter(|case| applies(case, form)).map(|case| case.name().to_owned()).collect();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut seed = Seed::new(u64::try_from(unix_millis()).unwrap_or_default());
    let mut running = JoinSet::new();
    for name in names {
        let place = Arc::clone(&places).acquire_owned().await.map_err(|error| error.to_string())?;
        let now = unix_millis();
        let id = callback_id(u64::try_from(now).unwrap_or_default(), &mut seed);
        let (corpus, at, own) = (Arc::clone(&corpus), at.clone(), own.clone());
        running.spawn(async move {
            let found = corpus.cases().find(|case| case.name() == name);
            let case = found.ok_or_else(|| format!("the corpus has no case {name}"))?;
            let outcome = send(&at, &case, &own, &id, u64::try_from(now / 1_000).unwrap_or_default()).await;
            drop(place);
            outcome
        });
    }
    // One after the other: they are large.
    let mut outcomes = Vec::new();
    for (name, length, refusal) in SIZES {
        let millis = u64::try_from(unix_millis()).unwrap_or_default();
        let (body, id) = (sized(length), callback_id(millis, &mut seed));
        let headers = signer(form, own)?.sign(&id, millis / 1_000, &body).to_pairs(&id);
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let name = format!("{name}/{}", form.name());
        outcomes.push(post(at, name, refusal, Request { headers, body }).await?);
    }
    while let Some(ended) = running.join_next().await {
        outcomes.push(ended.map_err(|error| error.to_string())??);
    }
    outcomes.sort_by(|one, other| one.case.cmp(&other.case));
    if outcomes.iter().all(|outcome| outcome.answer.starts_with("no connection")) {
        let answer = outcomes.first().map_or("there is no case", |outcome| &outcome.answer);
        return Err(format!("{}: {answer}", at.remote));
    }
    Ok(outcomes)
}

/// Whether there is a case of this name.
#[must_use]
pub fn is_case(name: &str) -> bool {
    let sized = SIZES.iter().any(|(size, ..)| name.rsplit_once('/').is_some_and(|(name, _)| name == *size));
    sized || Corpus::embedded().cases().any(|case| case.name() == name)
}

/// What the corpus is too small for: right callbacks as long as they may be, and longer.
const SIZES: [(&str, usize, Option<&str>); 2] =
    [("body of 12 MiB", BODY_LIMIT, None), ("body of 12 MiB and a byte", BODY_LIMIT + 1, Some("too_large"))];

/// A callback of so many bytes.
fn sized(length: usize) -> Vec<u8> {
    let (begin, end) = (r#"{"task":{"task_id":"t1"},"response":{"x":""#, r#""},"task_id":"t1"}"#);
    [begin.as_bytes(), &vec![b'x'; length.saturating_sub(begin.len() + end.len())], end.as_bytes()].concat()
}

fn signer(form: Form, own: &OwnKeys) -> Result<Signer, String> {
    let said = |error: KeyError| error.to_string();
    let missing = || "a key of the form is missing".to_owned();
    let secret = own.signing.as_deref().map(SigningSecret::parse).transpose().map_err(said)?;
    let auth = match form {
        Form::Signed => AuthHeader::Absent,
        Form::Keyed => AuthHeader::Key(CallbackAuthKey::parse(own.auth.as_deref().ok_or_else(missing)?).map_err(said)?),
        Form::Hmac => AuthHeader::Hmac(HmacKey::parse(own.hmac.as_deref().ok_or_else(missing)?).map_err(said)?, None),
    };
    Ok(Signer::new(secret.into_iter().collect(), auth))
}

fn applies(case: &Case<'_>, form: Form) -> bool {
    case.is_http() && case.verifier() == form.name()
}

async fn send(at: &ReceiverAt, case: &Case<'_>, own: &OwnKeys, id: &str, now: u64) -> Result<Outcome, String> {
    let request = case.request(own, id, now).map_err(|error| error.to_string())?;
    post(at, case.name().to_owned(), case.refusal(), request).await
}

/// Sends one request, and judges what comes of it.
async fn post(at: &ReceiverAt, case: String, refusal: Option<&str>, request: Request) -> Result<Outcome, String> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("scale-callback/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &request.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{case}: {name:?} can't be sent"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("{case}: {name} can't be sent"))?;
        headers.append(name, value);
    }
    let body = Bytes::from(request.body);
    let answer = client::call(&at.remote, Method::POST, &at.path, headers, body, PATIENCE).await;
    let (verdict, answer) = match answer {
        Ok(answer) => (judge(refusal, answer.status.as_u16()), answer.status.to_string()),
        // Many servers close on who sends too much.
        Err(error @ ClientError::Broken(_)) if refusal == Some("too_large") => (Verdict::Right, error.to_string()),
        Err(error) => (Verdict::Failed, error.to_string()),
    };
    Ok(Outcome { case, verdict, answer })
}

/// A verified body that is no callback is the application's business: it may be taken or refused.
fn judge(refusal: Option<&str>, status: u16) -> Verdict {
    match (refusal, status) {
        (_, 500..) => Verdict::Failed,
        (None, 200..=299) => Verdict::Right,
        (None, _) => Verdict::WronglyRefused,
        (Some("not_json" | "not_a_callback"), _) => Verdict::Right,
        (Some(why), 200..=299) => Verdict::WronglyAccepted(why.to_owned()),
        (Some(_), _) => Verdict::Right,
    }
}

/// What is left once known deviations are taken out: outcomes that are wrong, and known ones that did not show.
#[must_use]
pub fn against_known<'o>(outcomes: &'o [Outcome], known: &BTreeSet<String>) -> (Vec<&'o Outcome>, Vec<String>) {
    let wrong = |outcome: &&Outcome| outcome.verdict != Verdict::Right;
    let new = outcomes.iter().filter(wrong).filter(|outcome| !known.contains(&outcome.case)).collect();
    let shown: BTreeSet<&str> = outcomes.iter().filter(wrong).map(|outcome| outcome.case.as_str()).collect();
    let gone = known
        .iter()
        .filter(|name| !shown.contains(name.as_str()) && outcomes.iter().any(|outcome| outcome.case == **name))
        .cloned()
        .collect();
    (new, gone)
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "requests are signed for the real time")]
pub(crate) fn unix_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
