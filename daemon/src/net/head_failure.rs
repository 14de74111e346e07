//! Why a request got no whole head: the outcome, a true sentence about it, and whether the receiver says that it has not
//! handled the request, and over which protocol it wants it. All of this is decided on types, and never on a text.

use std::error::Error as _;

use h2::Reason;

use super::again::Again;
use super::conn::{Connection, HEAD_BYTES, MAX_HEADERS};
use super::meter::Flooded;
use crate::model::attempt::Outcome;

/// How many causes of an error are told.
const CAUSES: usize = 4;

pub(crate) struct HeadFailure {
    pub(crate) outcome: Outcome,
    /// The reason, as the operator sees it. The receiver may have written parts of it.
    pub(crate) why: String,
    /// The receiver says that it has not handled the request and never will, so it may be sent again at once.
    pub(crate) again: Option<Again>,
}

pub(crate) fn too_large() -> String {
    let kib = HEAD_BYTES / 1024;
    format!("the answer's head has more than {MAX_HEADERS} headers or {kib} KiB, or announces an impossible length")
}

pub(crate) fn of(error: &hyper::Error, connection: &Connection) -> HeadFailure {
    let http2 = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let why = if connection.meter().is_flooded() {
        Flooded.to_string()
    } else if error.is_parse_too_large() {
        too_large()
    } else if http2.is_some_and(refuses_head) {
        format!("{}: the answer's head breaks a rule of HTTP/2, or it is much too large", with_causes(error))
    } else {
        with_causes(error)
    };
    HeadFailure { outcome: outcome(error, connection), why, again: http2.and_then(again) }
}

/// The library gives these reasons for a malformed head as well as for a head that is much larger than our limit.
fn refuses_head(error: &h2::Error) -> bool {
    let malformed = error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR);
    let endless = error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    error.is_library() && (malformed || endless)
}

/// RFC 9113, sections 6.8 and 8.7: a receiver that ends a connection in order handles no request above the last one that
/// it names, and the library gives this error to those requests alone. A refused stream was not handled either, nor was one
/// that must come over HTTP/1.1 (section 7).
fn again(error: &h2::Error) -> Option<Again> {
    match error.reason().filter(|_| error.is_remote())? {
        Reason::NO_ERROR if error.is_go_away() => Some(Again::AsBefore),
        Reason::REFUSED_STREAM if error.is_reset() => Some(Again::AsBefore),
        Reason::HTTP_1_1_REQUIRED => Some(Again::OverHttp1),
        _ => None,
    }
}

fn outcome(error: &hyper::Error, connection: &Connection) -> Outcome {
    if error.is_parse() || error.is_parse_too_large() || connection.meter().is_flooded() {
        return Outcome::HeadInvalid;
    }
    // With TLS 1.3, a server's demand for a client certificate shows only when the first answer is read.
    if is_tls(error) || connection.record().tls_failed() {
        return Outcome::TlsFailed;
    }
    if let Some(outcome) = outcome_http2(error) {
        return outcome;
    }
    if connection.record().write_failed() || error.is_body_write_aborted() {
        return Outcome::WriteFailed;
    }
    // Bytes came before our request was sent, so they can't be an answer to it.
    if (error.is_canceled() || error.is_closed()) && !connection.reused && connection.record().read() > 0 {
        return Outcome::HeadInvalid;
    }
    Outcome::HeadReset
}

/// The outcome of an HTTP/2 error: a head that we can't read is invalid, and a stream that the receiver closed was
/// reset.
fn outcome_http2(error: &hyper::Error) -> Option<Outcome> {
    let cause = error.source()?.downcast_ref::<h2::Error>()?;
    if cause.is_io() {
        return None;
    }
    Some(if cause.is_library() { Outcome::HeadInvalid } else { Outcome::HeadReset })
}

fn is_tls(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    false
}

fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES {
        let Some(one) = cause else { break };
        text.push_str(&format!(": {one}"));
        cause = one.source();
    }
    text
}
