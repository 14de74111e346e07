//! `/admin/v1` and the ops listener. They parse a request, call `ops`, and write the answer; they decide nothing.

mod access;
mod extract;
mod openapi;
mod paging;
mod probes;
mod problem;
mod routes;
pub mod shapes;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::service::TowerToHyperService;
use scale_callback_serve::server::{Limits, Listener, Peer, serve};
use scale_callback_serve::tls::ServerTls;
use scale_callback_serve::unix;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use access::Arrival;
use problem::{Code, Problem};

use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::ops::Ops;

fn limits() -> Limits {
    Limits { connections: 128, life: Duration::from_secs(300), ..Limits::default() }
}

/// Only our own user and root reach the socket. So their connections have time for their first heads, and a burst of them waits.
fn socket_limits() -> Limits {
    Limits { patience: Duration::from_secs(1), ..limits() }
}

/// The ops listener's own places, which no client of the API can take. A probe is one short request on a connection of its
/// own, so a connection without a request keeps its place only for a moment, and there are many more places than
/// programs that ask.
fn probe_limits() -> Limits {
    Limits { connections: 512, head: Duration::from_secs(2), life: Duration::from_secs(10), ..Limits::default() }
}

fn described() -> (Router<Ops>, utoipa::openapi::OpenApi) {
    let (router, mut document) =
        OpenApiRouter::with_openapi(openapi::begin()).nest("/admin/v1", routes::all()).split_for_parts();
    openapi::finish(&mut document);
    (router, document)
}

/// The API's description as JSON.
pub fn openapi() -> String {
    described().1.to_pretty_json().expect("a document of strings and maps") + "\n"
}

fn router(ops: &Ops) -> Router {
    let (operations, document) = described();
    let text: Arc<str> = document.to_json().expect("a document of strings and maps").into();
    let document = move || {
        let text = axum::body::Bytes::from(text.as_bytes().to_vec());
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    };
    operations
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing at this path") })
        .layer(map_response(method_problem))
        .layer(access::body_limit())
        .layer(from_fn_with_state(ops.clone(), access::authenticated))
        // The document is public: it is served to callers that are not authenticated.
        .route("/openapi.json", get(document))
        .layer(from_fn_with_state(ops.clone(), access::bounded))
        .with_state(ops.clone())
}

/// Makes a problem of the answer to a method that a path does not take. The header `allow` names those that it takes.
async fn method_problem(response: Response) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let detail = "this path does not take this method";
    let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidRequest, detail).into_response();
    if let Some(allowed) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    problem
}

/// Serves `/admin/v1` on a unix socket until `stop`, for the daemon's own user and root.
pub async fn serve_socket(listener: UnixListener, user: u32, ops: Ops, stop: Stop) {
    let router = router(&ops);
    let make = move |peer| {
        let known = match peer {
            Peer::Unix(Some(uid)) if uid == user || uid == 0 => Some(uid),
            _ => None,
        };
        TowerToHyperService::new(router.clone().layer(Extension(Arrival::Unix(known))))
    };
    serve(Listener::Unix(listener), socket_limits(), make, stop.into_receiver()).await;
}

/// Serves `/admin/v1` on TCP until `stop`, for callers with a token.
pub async fn serve_tcp(listener: TcpListener, tls: Option<Arc<ServerTls>>, ops: Ops, stop: Stop) {
    let Ok(listen) = listener.local_addr() else { return };
    let router = router(&ops);
    let make = move |peer| {
        let arrival = match peer {
            Peer::Tcp(peer) => Arrival::Tcp { peer, listen },
            Peer::Unix(_) => Arrival::Unix(None),
        };
        TowerToHyperService::new(router.clone().layer(Extension(arrival)))
    };
    let listener = match tls {
        Some(tls) => Listener::Tls(listener, tls),
        None => Listener::Tcp(listener),
    };
    serve(listener, limits(), make, stop.into_receiver()).await;
}

/// Listens on TCP as soon as there is a token. Before that, nobody could be answered.
pub async fn listen_once_there_is_a_token(address: SocketAddr, tls: Option<Arc<ServerTls>>, ops: Ops, mut stop: Stop) {
    tokio::select! {
        () = ops.first_token() => {}
        () = stop.stopped() => return,
    }
    match TcpListener::bind(address).await {
        Ok(listener) => {
            tracing::info!(%address, "the API listens: there is a token now");
            serve_tcp(listener, tls, ops, stop.clone()).await;
        }
        Err(error) => {
            tracing::error!(%address, %error, "api.listen: the API can't listen there; restart once it can");
            stop.stopped().await;
        }
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`.
pub async fn serve_ops(listener: TcpListener, ops: Ops, stop: Stop) {
    let router = probes::router(ops);
    let make = move |_| TowerToHyperService::new(router.clone());
    serve(Listener::Tcp(listener), probe_limits(), make, stop.into_receiver()).await;
}

/// Serves the probes and the metrics of a daemon whose store is away, until `stop`.
pub async fn serve_waiting(listener: TcpListener, trouble: watch::Receiver<String>, metrics: Arc<Metrics>, stop: Stop) {
    let router = probes::waiting(trouble, metrics);
    let make = move |_| TowerToHyperService::new(router.clone());
    serve(Listener::Tcp(listener), probe_limits(), make, stop.into_receiver()).await;
}

/// Binds a unix socket that only this user can open. It replaces a socket file where nobody listens any more. Answers
/// with our user id.
///
/// # Errors
/// The system's.
pub async fn bind_unix(path: &Path) -> io::Result<(UnixListener, u32)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is not a socket; name another path",
            ));
        }
        let connected = tokio::net::UnixStream::connect(path).await;
        if connected.is_ok() || connected.is_err_and(|error| unix::is_full(&error)) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another callbackd listens there; stop that one, or name another path",
            ));
        }
        std::fs::remove_file(path)?;
    }
    // As many connections wait to be accepted as the system allows (net.core.somaxconn on Linux).
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, rustix::process::geteuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use tokio::net::{UnixSocket, UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_socket_whose_queue_is_full_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            queued.push(stream);
        }
        assert_eq!(bind_unix(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        bind_unix(&path).await.expect("nobody listens any more");
    }
}
