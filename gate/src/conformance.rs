//! Holds a running receiver to the conformance corpus: what it wrongly accepts, and what it wrongly refuses. A receiver
//! shows nothing but its statuses, so a refusal for the wrong reason counts as right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use scale_callback_auth::conformance::{Case, Corpus, OwnKeys, Request};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};
use scale_callback_serve::client::{self, ClientError, Remote};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::clock::unix_millis;
use crate::receiver::BODY_LIMIT;
use crate::receiver_at::ReceiverAt;
use crate::samples::{Seed, callback_id};

/// Requests under way at once.
const AT_ONCE: usize = 4;
/// The time for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// What the corpus is too small for: right callbacks as long as they may be, and longer.
const SIZES: [(&str, usize, Option<&str>); 2] =
    [("body of 12 MiB", BODY_LIMIT, None), ("body of 12 MiB and a byte", BODY_LIMIT + 1, Some("too_large"))];

/// Which credentials the receiver holds. They decide which cases apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The signing secret.
    Signed,
    /// The signing secret and the callback auth key.
    Keyed,
    /// The key of the `hmac` form.
    Hmac,
}

/// The outcome of one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The case's name.
    pub case: String,
    /// Whether the receiver did as it must.
    pub verdict: Verdict,
    /// The status, or why there was none.
    pub answer: String,
    /// Whether the receiver could be connected to.
    was_reached: bool,
}

/// Whether the receiver did as it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Right,
    /// It accepted what it must refuse, for this reason, and somebody without the key can make such a request, or can send a
    /// recorded one again long afterwards.
    ForgeryAccepted(String),
    /// It accepted what it must refuse, for this reason, but only who has the key can make such a request.
    TooLenient(String),
    /// It refused what it must accept.
    WronglyRefused,
    /// It failed: a status of 500 and above, or no answer at all.
    Failed,
}

/// Why a receiver cannot be held to the corpus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConformanceError {
    /// A key has the wrong form.
    #[error("{0}")]
    Key(KeyError),
    /// The form needs a key that is not given.
    #[error("a key of the form is missing")]
    MissingKey,
    /// A header of a case cannot be sent.
    #[error("{case}: {header} can't be sent")]
    Header {
        /// The case.
        case: String,
        /// The header's name.
        header: String,
    },
    /// No request reached the receiver.
    #[error("{remote}: {answer}")]
    Unreachable {
        /// The receiver's server.
        remote: Remote,
        /// Why not.
        answer: String,
    },
    /// The corpus has no case for this form.
    #[error("the corpus has no case for the form {}", .0.name())]
    NoCases(Form),
    /// There is no case of this name for this form.
    #[error("there is no case {case:?} for the form {}; --all lists the cases", .form.name())]
    NoCase {
        /// The name.
        case: String,
        /// The form.
        form: Form,
    },
    /// A task of this process failed.
    #[error("a request could not be made: {0}")]
    Task(JoinError),
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

impl Verdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::ForgeryAccepted(_) => "forgery_accepted",
            Self::TooLenient(_) => "too_lenient",
            Self::WronglyRefused => "wrongly_refused",
            Self::Failed => "failed",
        }
    }

    /// Why the request must be refused, where it was accepted.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::ForgeryAccepted(why) | Self::TooLenient(why) => Some(why),
            Self::Right | Self::WronglyRefused | Self::Failed => None,
        }
    }
}

/// What a case expects.
#[derive(Debug, Clone, Copy)]
struct Expected<'c> {
    /// Why the request must be refused; `None` if it must be accepted.
    refusal: Option<&'c str>,
    /// The request carries a proof that only who has the key can make.
    has_right_proof: bool,
}

/// Sends the case of this name, and gives the request as well.
///
/// # Errors
/// [`ConformanceError`], also where there is no such case.
pub async fn hold_one(
    at: &ReceiverAt,
    form: Form,
    own: &OwnKeys,
    name: &str,
) -> Result<(Request, Outcome), ConformanceError> {
    let mut seed = Seed::new(unix_millis());
    let size = SIZES.iter().find(|(size, ..)| name.rsplit_once('/') == Some((*size, form.name())));
    if let Some((_, length, refusal)) = size {
        let request = sized_request(form, own, *length, &mut seed)?;
        let expected = Expected { refusal: *refusal, has_right_proof: true };
        return Ok((request.clone(), post(at, name.to_owned(), expected, request).await?));
    }
    let corpus = Corpus::embedded();
    let no_case = || ConformanceError::NoCase { case: name.to_owned(), form };
    let case = corpus.cases().find(|case| case.name() == name && applies(case, form)).ok_or_else(no_case)?;
    let now = unix_millis();
    let request = case.request(own, &callback_id(now, &mut seed), now / 1_000).map_err(ConformanceError::Key)?;
    Ok((request.clone(), post(at, name.to_owned(), expected(&case), request).await?))
}

/// Sends every case that applies, each with an id of its own and at the present time.
///
/// # Errors
/// [`ConformanceError`]: a key that cannot be used, or a receiver that cannot be reached.
pub async fn hold(at: &ReceiverAt, form: Form, own: &OwnKeys) -> Result<Vec<Outcome>, ConformanceError> {
    let mut seed = Seed::new(unix_millis());
    let mut running = start_cases(at, form, own, &mut seed).await;
    // The large ones go one after the other.
    let mut outcomes = Vec::new();
    for (name, length, refusal) in SIZES {
        let request = sized_request(form, own, length, &mut seed)?;
        let expected = Expected { refusal, has_right_proof: true };
        outcomes.push(post(at, format!("{name}/{}", form.name()), expected, request).await?);
    }
    while let Some(ended) = running.join_next().await {
        outcomes.extend(ended.map_err(ConformanceError::Task)??);
    }
    outcomes.sort_by(|one, other| one.case.cmp(&other.case));
    let first = outcomes.first().ok_or(ConformanceError::NoCases(form))?;
    if outcomes.iter().any(|outcome| outcome.was_reached) {
        return Ok(outcomes);
    }
    Err(ConformanceError::Unreachable { remote: at.remote.clone(), answer: first.answer.clone() })
}

/// Whether there is a case of this name.
#[must_use]
pub fn is_case(name: &str) -> bool {
    let sized = SIZES.iter().any(|(size, ..)| name.rsplit_once('/').is_some_and(|(name, _)| name == *size));
    sized || Corpus::embedded().cases().any(|case| case.name() == name)
}

/// What is left once known deviations are taken out: outcomes that are wrong, and known deviations that no longer show.
#[must_use]
pub fn against_known<'o>(outcomes: &'o [Outcome], known: &BTreeSet<String>) -> (Vec<&'o Outcome>, Vec<String>) {
    let is_wrong = |outcome: &&Outcome| outcome.verdict != Verdict::Right;
    let new = outcomes.iter().filter(is_wrong).filter(|outcome| !known.contains(&outcome.case)).collect();
    let wrong: BTreeSet<&str> = outcomes.iter().filter(is_wrong).map(|outcome| outcome.case.as_str()).collect();
    let gone = known
        .iter()
        .filter(|name| !wrong.contains(name.as_str()) && outcomes.iter().any(|outcome| outcome.case == **name))
        .cloned()
        .collect();
    (new, gone)
}

/// Starts the corpus' cases, [`AT_ONCE`] at a time.
async fn start_cases(
    at: &ReceiverAt,
    form: Form,
    own: &OwnKeys,
    seed: &mut Seed,
) -> JoinSet<Result<Option<Outcome>, ConformanceError>> {
    let corpus = Arc::new(Corpus::embedded());
    let names: Vec<String> =
        corpus.cases().filter(|case| applies(case, form)).map(|case| case.name().to_owned()).collect();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for name in names {
        let place = Arc::clone(&places).acquire_owned().await;
        let now = unix_millis();
        let id = callback_id(now, seed);
        let (corpus, at, own) = (Arc::clone(&corpus), at.clone(), own.clone());
        running.spawn(async move {
            let Some(case) = corpus.cases().find(|case| case.name() == name) else { return Ok(None) };
            let request = case.request(&own, &id, now / 1_000).map_err(ConformanceError::Key)?;
            let outcome = post(&at, case.name().to_owned(), expected(&case), request).await?;
            drop(place);
            Ok(Some(outcome))
        });
    }
    running
}

fn applies(case: &Case<'_>, form: Form) -> bool {
    case.is_http() && case.verifier() == form.name()
}

fn expected<'c>(case: &Case<'c>) -> Expected<'c> {
    Expected { refusal: case.refusal(), has_right_proof: case.carries_right_proof() }
}

/// A right callback of so many bytes.
fn sized_request(form: Form, own: &OwnKeys, length: usize, seed: &mut Seed) -> Result<Request, ConformanceError> {
    let (now, body) = (unix_millis(), sized(length));
    let id = callback_id(now, seed);
    let headers = signer(form, own)?.sign(&id, now / 1_000, &body).to_pairs(&id);
    Ok(Request { headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), body })
}

/// A body of so many bytes.
fn sized(length: usize) -> Vec<u8> {
    let (begin, end) = (r#"{"task":{"task_id":"t1"},"response":{"x":""#, r#""},"task_id":"t1"}"#);
    [begin.as_bytes(), &vec![b'x'; length.saturating_sub(begin.len() + end.len())], end.as_bytes()].concat()
}

fn signer(form: Form, own: &OwnKeys) -> Result<Signer, ConformanceError> {
    let given = |key: &Option<String>| key.clone().ok_or(ConformanceError::MissingKey);
    let secret = own.signing.as_deref().map(SigningSecret::parse).transpose().map_err(ConformanceError::Key)?;
    let auth = match form {
        Form::Signed => AuthHeader::Absent,
        Form::Keyed => AuthHeader::Key(CallbackAuthKey::parse(&given(&own.auth)?).map_err(ConformanceError::Key)?),
        Form::Hmac => AuthHeader::Hmac(HmacKey::parse(&given(&own.hmac)?).map_err(ConformanceError::Key)?, None),
    };
    Ok(Signer::new(secret.into_iter().collect(), auth))
}

/// Sends one request, and judges the answer.
async fn post(
    at: &ReceiverAt,
    case: String,
    expected: Expected<'_>,
    request: Request,
) -> Result<Outcome, ConformanceError> {
    let headers = headers(&case, &request)?;
    let body = Bytes::from(request.body);
    let answer = client::call(&at.remote, Method::POST, &at.path, headers, body, ANSWER_TIME).await;
    let was_reached = !matches!(answer, Err(ClientError::Unreachable(_)));
    let (verdict, answer) = match answer {
        Ok(answer) => (judge(expected, answer.status.as_u16()), answer.status.to_string()),
        // Many servers close the connection of a client that sends too much.
        Err(error @ ClientError::Broken(_)) if expected.refusal == Some("too_large") => {
            (Verdict::Right, error.to_string())
        }
        Err(error) => (Verdict::Failed, error.to_string()),
    };
    Ok(Outcome { case, verdict, answer, was_reached })
}

fn headers(case: &str, request: &Request) -> Result<HeaderMap, ConformanceError> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let agent = concat!("scale-callback/", env!("CARGO_PKG_VERSION"));
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in &request.headers {
        let wrong = || ConformanceError::Header { case: case.to_owned(), header: name.clone() };
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        headers.append(name.parse::<HeaderName>().map_err(|_| wrong())?, value);
    }
    Ok(headers)
}

/// Judges a status. A verified body that is not a callback may be accepted or refused: that is the application's decision.
fn judge(expected: Expected<'_>, status: u16) -> Verdict {
    match (expected.refusal, status) {
        (_, 500..) => Verdict::Failed,
        (None, 200..=299) => Verdict::Right,
        (None, _) => Verdict::WronglyRefused,
        (Some("not_json" | "not_a_callback"), _) => Verdict::Right,
        (Some(why), 200..=299) if is_forgery(why, expected.has_right_proof) => Verdict::ForgeryAccepted(why.to_owned()),
        (Some(why), 200..=299) => Verdict::TooLenient(why.to_owned()),
        (Some(_), _) => Verdict::Right,
    }
}

/// Whether somebody without the key can make a request that must be refused for this reason, or can send a recorded one
/// again at any time.
fn is_forgery(why: &str, has_right_proof: bool) -> bool {
    !has_right_proof || matches!(why, "timestamp_too_old" | "timestamp_too_new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_key_can_make_is_no_forgery() {
        let judged = |refusal, has_right_proof, status| judge(Expected { refusal, has_right_proof }, status).name();
        assert_eq!(judged(Some("signature_mismatch"), false, 204), "forgery_accepted");
        assert_eq!(judged(Some("signature_mismatch"), true, 204), "too_lenient");
        assert_eq!(judged(Some("id_duplicate"), true, 200), "too_lenient");
        assert_eq!(judged(Some("timestamp_too_old"), true, 200), "forgery_accepted", "it may be a recorded one");
        assert_eq!(judged(Some("signature_mismatch"), false, 401), "right");
        assert_eq!(judged(Some("not_json"), true, 204), "right");
        assert_eq!(judged(None, true, 401), "wrongly_refused");
        assert_eq!(judged(None, true, 500), "failed");
    }
}
