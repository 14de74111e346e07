//! The listeners of the daemon. They are bound before any work begins, and served when the operations are built.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use scale_callback_serve::bind::bind;
use scale_callback_serve::tls::ServerTls;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::patience::patiently;
use crate::api;
use crate::base::clock::Clock;
use crate::base::stop::Stop;
use crate::base::supervise::Supervisor;
use crate::config::Config;
use crate::ops::Ops;
use crate::store::admin::AdminStore;

pub(super) struct Listeners {
    socket: UnixListener,
    /// The user who may use the socket. Root may use it, too.
    user: u32,
    pub(super) tls: Option<Arc<ServerTls>>,
    api: Option<TcpListener>,
    /// Where the API listens as soon as there is a token.
    api_configured: Option<SocketAddr>,
    ops: Option<TcpListener>,
    /// The addresses that egress never connects to.
    pub(super) ours: Vec<SocketAddr>,
}

/// Makes the folder of the socket, for this user alone, if it is missing: a store on a server makes none.
fn make_folder(socket: &Path) -> std::io::Result<()> {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        _ => Ok(()),
    }
}

impl Listeners {
    /// Binds everything that the configuration names.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) async fn bind(config: &Config, admin: &dyn AdminStore, clock: &dyn Clock) -> anyhow::Result<Self> {
        let socket = || format!("api.socket: {}", config.api.socket.display());
        make_folder(&config.api.socket).with_context(socket)?;
        let (socket, user) = api::bind_unix(&config.api.socket).await.with_context(socket)?;
        let tls = config.api.tls.as_ref().map(|(cert, key)| ServerTls::load(cert, key)).transpose();
        let tls = tls.map_err(|why| anyhow!("api.tls_cert: {why}"))?.map(Arc::new);
        let api = bind_api(config.api.listen, admin, clock).await?;
        let ops = match config.ops_listen {
            None => None,
            Some(address) => Some(bind(address).await.context("ops.listen")?),
        };
        let api_configured = config.api.listen;
        let mut listeners = Self { socket, user, tls, api, api_configured, ops, ours: Vec::new() };
        let api_address = listeners.api_address().or(api_configured);
        listeners.ours = [listeners.ops_address(), api_address].into_iter().flatten().collect();
        Ok(listeners)
    }

    pub(super) fn ops_address(&self) -> Option<SocketAddr> {
        address_of(self.ops.as_ref())
    }

    pub(super) fn api_address(&self) -> Option<SocketAddr> {
        address_of(self.api.as_ref())
    }

    /// Serves all of them until `stop`.
    pub(super) fn serve(self, ops: &Ops, supervisor: &Supervisor, stop: &Stop) -> Vec<JoinHandle<()>> {
        const API: &str = "the API on TCP";
        let at = || stop.clone();
        let serving = api::serve_socket(self.socket, self.user, ops.clone(), at());
        let mut servers = vec![supervisor.spawn("the API on its socket", at(), serving)];
        match (self.api, self.api_configured) {
            (Some(listener), _) => {
                servers.push(supervisor.spawn(API, at(), api::serve_tcp(listener, self.tls, ops.clone(), at())));
            }
            (None, Some(address)) => {
                let serving = api::listen_once_there_is_a_token(address, self.tls, ops.clone(), at());
                servers.push(supervisor.spawn(API, at(), serving));
            }
            (None, None) => {}
        }
        if let Some(listener) = self.ops {
            servers.push(supervisor.spawn("the probes", at(), api::serve_ops(listener, ops.clone(), at())));
        }
        servers
    }
}

fn address_of(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}

/// Binds the API's port if there is a token already, so that a port in use is reported at once.
async fn bind_api(
    listen: Option<SocketAddr>,
    admin: &dyn AdminStore,
    clock: &dyn Clock,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = listen else { return Ok(None) };
    let tokens = patiently(|| admin.tokens()).await.context("read the tokens")?;
    if !tokens.iter().any(|token| token.is_valid(clock.now())) {
        return Ok(None);
    }
    Ok(Some(bind(address).await.context("api.listen")?))
}
