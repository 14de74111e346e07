//! Who may ask what: by the user of a unix socket's other end, or by a bearer token; and the bounds of every request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, extract::DefaultBodyLimit};

use zeroize::Zeroizing;

use super::problem::{Code, Problem, RequestId};
use crate::ops::{Caller, Ops};
use crate::store::admin::Scope;

/// Bytes of a request's body.
pub(super) const BODY_LIMIT: usize = 64 * 1024;
/// From a request's head to its answer's: a slow body, too.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn body_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(BODY_LIMIT)
}

/// How a connection came in.
#[derive(Debug, Clone)]
pub(super) enum Arrival {
    /// Over the unix socket; the user, where it may ask.
    Unix(Option<u32>),
    /// Over TCP, to the address that is listened on.
    Tcp { peer: SocketAddr, listen: SocketAddr },
}

/// Whoever asks, once known.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) caller: Caller,
    scope: Scope,
}

/// Around everything: a deadline, a request id, the count of answers.
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
    ops.metrics.api_requests_total.with_label_values(&[class]).inc();
    let id = response.extensions_mut().remove::<RequestId>().unwrap_or_else(RequestId::new);
    let headers = response.headers_mut();
    headers.insert("x-request-id", HeaderValue::from_str(&id.0).expect("letters and digits"));
    // Answers hold customers' data, and some a key.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whoever is not known gets no further.
pub(super) async fn known(
    State(ops): State<Ops>,
    Extension(arrival): Extension<Arrival>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = Asked::of(&request);
    match caller(&ops, &arrival, asked).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The operations behind this need the operate scope.
pub(super) async fn operators(Extension(caller): Extension<Asker>, request: Request, next: Next) -> Response {
    if caller.scope < Scope::Operate {
        let detail = "this needs a token of the operate scope; this one may only read";
        return Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail).into_response();
    }
    next.run(request).await
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

async fn caller(ops: &Ops, arrival: &Arrival, asked: Asked) -> Result<Asker, Problem> {
    let (peer, listen) = match arrival {
        Arrival::Unix(Some(user)) => {
            let caller = Caller { name: format!("uid:{user}"), origin: "unix socket".to_owned() };
            return Ok(Asker { caller, scope: Scope::Operate });
        }
        Arrival::Unix(None) => {
            let detail = "this socket is for the daemon's own user and root";
            return Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail));
        }
        Arrival::Tcp { peer, listen } => (peer, listen),
    };
    if !asked.host.is_some_and(|host| is_allowed(&host, *listen, &ops.settings.borrow().hosts)) {
        let detail = "requests to this host name are not answered; name it in api.hosts";
        return Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail));
    }
    let Some(token) = asked.token else {
        let detail = "send a token: authorization: Bearer cbt_...";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, detail));
    };
    let (name, scope) = ops.authenticate(&token).await?;
    Ok(Asker { caller: Caller { name, origin: peer.to_string() }, scope })
}

/// The one host that a request names, without its port: HTTP/2 has it in the request line.
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

/// A page in a browser that was led to our address by a name of its own is refused (DNS rebinding).
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
