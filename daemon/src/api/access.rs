//! Authenticates callers: the user at the other end of the unix socket, or the owner of a bearer token. It also holds
//! the bounds of every request. It does not decide what a caller may do; `ops` does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Extension;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use zeroize::Zeroizing;

use super::problem::{Code, Problem, RequestId};
use crate::ops::{Caller, Ops, Session};

/// The most bytes of a request's body.
pub(super) const BODY_LIMIT: usize = 64 * 1024;
/// The longest time from a request's head to the head of its answer. It includes the time that a slow body takes.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn body_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(BODY_LIMIT)
}

/// How a connection came in.
#[derive(Debug, Clone)]
pub(super) enum Arrival {
    /// Over the unix socket, with the user at its other end if that one may ask.
    Unix(Option<u32>),
    /// Over TCP, from `peer` to the address where we listen.
    Tcp { peer: SocketAddr, listen: SocketAddr },
}

/// The operations, as they are for the request's caller. A handler has nothing else to work with, so it can't do what
/// its caller may not.
impl FromRequestParts<Ops> for Session {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, ops: &Ops) -> Result<Self, Response> {
        let caller = parts.extensions.get::<Caller>().ok_or_else(|| nobody().into_response())?;
        Ok(ops.as_caller(caller))
    }
}

/// Surrounds every request with a deadline, a request id and a count of its answer.
pub(super) async fn bounded(State(ops): State<Ops>, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(DEADLINE, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} s", DEADLINE.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, Code::InvalidRequest, detail).into_response()
    });
    let class = match response.status().as_u16() {
        ..400 => "ok",
        400..500 => "refused",
        500.. => "failed",
    };
    ops.metrics().api_requests_total.with_label_values(&[class]).inc();
    let id = response.extensions_mut().remove::<RequestId>().unwrap_or_else(RequestId::new);
    let headers = response.headers_mut();
    headers.insert("x-request-id", HeaderValue::from_str(&id.0).expect("letters and digits"));
    // Answers hold customers' data, and some hold a key.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refuses callers that are not known.
pub(super) async fn authenticated(
    State(ops): State<Ops>,
    Extension(arrival): Extension<Arrival>,
    mut request: Request,
    next: Next,
) -> Response {
    // What is needed of the request is taken out first: a request may not be shared between threads.
    let asked = Asked::of(&request);
    match caller(&ops, &arrival, asked).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// What a request says of itself.
struct Asked {
    host: Option<String>,
    token: Option<Zeroizing<String>>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|given| given.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        Self { host: host_of(request), token: token.map(|(_, token)| Zeroizing::new(token.trim().to_owned())) }
    }
}

async fn caller(ops: &Ops, arrival: &Arrival, asked: Asked) -> Result<Caller, Problem> {
    let (peer, listen) = match arrival {
        Arrival::Unix(Some(user)) => return Ok(Caller::unix_user(*user)),
        Arrival::Unix(None) => {
            let detail = "this socket is for the daemon's own user and root";
            return Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail));
        }
        Arrival::Tcp { peer, listen } => (peer, listen),
    };
    if !asked.host.is_some_and(|host| is_allowed(&host, *listen, &ops.hosts())) {
        let detail = "requests to this host name are not answered; name it in api.hosts";
        return Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail));
    }
    let Some(token) = asked.token else {
        ops.came_without_token();
        return Err(nobody());
    };
    Ok(ops.authenticate(&token, *peer).await?)
}

fn nobody() -> Problem {
    let detail = "send a token: authorization: Bearer cbt_...";
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, detail)
}

/// The one host that a request names, without its port. HTTP/2 has it in the request line.
fn host_of(request: &Request) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return None;
    }
    let named = request.uri().authority().map(http::uri::Authority::as_str).or(header)?;
    let authority: http::uri::Authority = named.parse().ok()?;
    (!named.contains('@')).then(|| authority.host().to_ascii_lowercase())
}

/// Whether a request may name this host. It refuses a web page that reached our address by a name of its own (DNS
/// rebinding).
fn is_allowed(host: &str, listen: SocketAddr, hosts: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    match address {
        Some(address) => address.is_loopback() || address == listen.ip() || hosts.iter().any(|own| own == host),
        None => host == "localhost" || hosts.iter().any(|own| own.eq_ignore_ascii_case(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_answered() {
        let listen = "192.0.2.7:9465".parse().expect("an address");
        let hosts = ["ops.example".to_owned()];
        for (host, allowed) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("[::1]", true),
            ("192.0.2.7", true),
            ("ops.example", true),
            ("OPS.example", true),
            ("evil.example", false),
            ("192.0.2.8", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(host, listen, &hosts), allowed, "{host}");
        }
        let request =
            |host: &str| Request::builder().header("host", host).body(axum::body::Body::empty()).expect("one");
        assert_eq!(host_of(&request("A.example:80")).as_deref(), Some("a.example"));
        assert_eq!(host_of(&request("user@a.example")), None);
        let twice = Request::builder().header("host", "a").header("host", "b").body(axum::body::Body::empty());
        assert_eq!(host_of(&twice.expect("one")), None);
    }
}
