//! Which headers cross the gate: a short list on the way to the receiver, and everything but hop-by-hop headers on the way
//! back.

use bytes::BytesMut;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

const SIGNATURE: HeaderName = HeaderName::from_static(scale_callback_auth::header::SIGNATURE);
pub(super) const AUTH: HeaderName = HeaderName::from_static(scale_callback_auth::header::AUTH);
/// What a verified request may pass on. No other header reaches the receiver.
static PASSED_ON: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static(scale_callback_auth::header::ID),
    HeaderName::from_static(scale_callback_auth::header::TIMESTAMP),
    SIGNATURE,
    HeaderName::from_static(scale_callback_auth::header::ATTEMPT),
    HeaderName::from_static("traceparent"),
];
/// Longer values are not passed on. The SDK has a bound of its own for signatures.
const LONGEST_VALUE: usize = 1024;
/// Headers of an answer that concern one connection alone.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The headers of a request that are verified or passed on. With `copied`, the values share no memory with the request's
/// head, so that the head's memory is free while the body is waited for.
pub(in crate::gate) fn wanted(headers: &HeaderMap, copied: bool) -> HeaderMap {
    let mut own = HeaderMap::with_capacity(PASSED_ON.len() + 5);
    let mut copies = BytesMut::new();
    for name in PASSED_ON.iter().chain([&AUTH]) {
        // Signatures may stand in several lines. Of any other header the first line is passed on.
        let several = *name == SIGNATURE;
        let values = headers.get_all(name).iter().take(if several { usize::MAX } else { 1 });
        for value in values.filter(|value| several || value.len() <= LONGEST_VALUE) {
            if !copied {
                own.append(name, value.clone());
                continue;
            }
            copies.extend_from_slice(value.as_bytes());
            if let Ok(copy) = HeaderValue::from_maybe_shared(copies.split().freeze()) {
                own.append(name, copy);
            }
        }
    }
    own
}

/// Whether every program sees the same end of an answer. A status that has no body, with headers that announce one, is often
/// followed by that body, and it would be taken for the next answer.
pub(super) fn ends_clearly(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let is_zero = |value: &HeaderValue| value.as_bytes() == b"0";
    let announces = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|value| !is_zero(value));
    let twice = headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
    !(twice || has_no_body && announces)
}

/// Removes from an answer what concerns the gate's connection to the receiver, and leaves the rest for the sender.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_body_that_announces_one_has_no_clear_end() {
        let ends = |status: u16, lines: &[(&'static str, &'static str)]| {
            let pairs =
                lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            ends_clearly(StatusCode::from_u16(status).expect("a status"), &HeaderMap::from_iter(pairs))
        };
        assert!(ends(200, &[("content-length", "4")]) && ends(200, &[("transfer-encoding", "chunked")]));
        assert!(ends(204, &[]) && ends(204, &[("content-length", "0")]));
        assert!(!ends(204, &[("content-length", "4")]) && !ends(204, &[("transfer-encoding", "chunked")]));
        assert!(!ends(304, &[("content-length", "4")]) && !ends(205, &[("content-length", "4")]));
        assert!(!ends(200, &[("content-length", "4"), ("transfer-encoding", "chunked")]));
    }
}
