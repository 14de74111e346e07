//! `/admin/v1` and the ops listener: thin. Parse, call `ops`, answer.

mod admin;
mod probes;
mod problem;
pub mod shapes;

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use axum::Extension;
use axum::extract::DefaultBodyLimit;
use hyper_util::service::TowerToHyperService;
use scale_callback::server::{Limits, Listener, Peer, serve};
use tokio::net::{TcpListener, UnixListener};

use crate::base::stop::Stop;
use crate::ops::{Actor, Ops};

/// Bytes of a request's body.
const BODY_LIMIT: usize = 64 * 1024;

fn limits() -> Limits {
    Limits { connections: 128, life: Duration::from_secs(300), ..Limits::default() }
}

/// Serves `/admin/v1` on a unix socket until `stop`. Whoever runs as the daemon's user, or as root, may use it.
pub async fn serve_admin(listener: UnixListener, user: u32, ops: Ops, stop: Stop) {
    let router = admin::router(ops).layer(DefaultBodyLimit::max(BODY_LIMIT));
    let make = move |peer| {
        let actor = match peer {
            Peer::Unix(Some(uid)) if uid == user || uid == 0 => {
                Some(Actor { name: format!("uid:{uid}"), origin: "unix socket".to_owned() })
            }
            _ => None,
        };
        TowerToHyperService::new(router.clone().layer(Extension(actor)))
    };
    serve(Listener::Unix(listener), limits(), make, stop.into_receiver()).await;
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`.
pub async fn serve_ops(listener: TcpListener, ops: Ops, stop: Stop) {
    let router = probes::router(ops);
    serve(Listener::Tcp(listener), limits(), move |_| TowerToHyperService::new(router.clone()), stop.into_receiver())
        .await;
}

/// Binds a unix socket that only this user can open, over a stale one if nobody listens there. Gives our user id.
///
/// # Errors
/// The system's.
pub async fn bind_unix(path: &Path) -> io::Result<(UnixListener, u32)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another callbackd listens there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let user = std::fs::metadata("/proc/self")?.uid();
    Ok((listener, user))
}
