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
    /// It accepted what it must refuse, for this reason.
    WronglyAccepted(String),
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
        let (now, body) = (unix_millis(), sized(length));
        let id = callback_id(now, &mut seed);
        let headers = signer(form, own)?.sign(&id, now / 1_000, &body).to_pairs(&id);
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let name = format!("{name}/{}", form.name());
        outcomes.push(post(at, name, refusal, Request { headers, body }).await?);
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
            let outcome = post(&at, case.name().to_owned(), case.refusal(), request).await?;
            drop(place);
            Ok(Some(outcome))
        });
    }
    running
}

fn applies(case: &Case<'_>, form: Form) -> bool {
    case.is_http() && case.verifier() == form.name()
}

/// A callback of so many bytes.
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
    refusal: Option<&str>,
    request: Request,
) -> Result<Outcome, ConformanceError> {
    let headers = headers(&case, &request)?;
    let body = Bytes::from(request.body);
    let answer = client::call(&at.remote, Method::POST, &at.path, headers, body, ANSWER_TIME).await;
    let was_reached = !matches!(answer, Err(ClientError::Unreachable(_)));
    let (verdict, answer) = match answer {
        Ok(answer) => (judge(refusal, answer.status.as_u16()), answer.status.to_string()),
        // Many servers close the connection of a client that sends too much.
        Err(error @ ClientError::Broken(_)) if refusal == Some("too_large") => (Verdict::Right, error.to_string()),
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
