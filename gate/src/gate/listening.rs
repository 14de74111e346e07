//! A gate that listens: it takes its ports and files, serves until it is stopped, reloads, and drains.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use hyper::service::service_fn;
use scale_callback_auth::replay::MemoryGuard;
use scale_callback_serve::bind::bind;
use scale_callback_serve::refusal_pace::RefusalPace;
use scale_callback_serve::server::{Limits, Listener, Peer, serve};
use scale_callback_serve::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::admin;
use super::awake::AwakeClock;
use super::body::BodyBounds;
use super::config::{Bounds, Config};
use super::error::GateError;
use super::log_limiter::LogLimiter;
use super::metrics::Metrics;
use super::proxy::Proxy;
use super::room::Room;
use super::upstream::Upstream;
use super::waiting::{Waiting, WaitingBounds};
use crate::keys::{Change, LiveKeys};

/// Requests at once on one HTTP/2 connection. The head of each may wait in memory with its body.
const STREAMS: u32 = 16;
/// Callbacks that are passed on at once. Connections and room bound them long before this does.
const FORWARDS: u32 = 1 << 16;
/// How much longer than the upstream's time limit a claim on a `webhook-id` holds, in seconds.
const CLAIM_MARGIN: u64 = 5;

/// A gate that listens.
pub struct Gate {
    /// Where callbacks come in.
    pub address: SocketAddr,
    /// Where health and metrics are served.
    pub admin_address: Option<SocketAddr>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    proxy: Arc<Proxy>,
    bounds: Bounds,
    proxy_protocol: bool,
    tls: Option<Arc<ServerTls>>,
}

impl Gate {
    /// Reads keys and files, and takes the ports.
    ///
    /// # Errors
    /// [`GateError`] says what is wrong and where.
    pub async fn bind(config: Config) -> Result<Self, GateError> {
        let keys = LiveKeys::load(config.keys.clone())?;
        let tls = config.tls.as_ref().map(|(cert, key)| ServerTls::load(cert, key)).transpose()?.map(Arc::new);
        let token = config.upstream_token.as_deref().map(read_token).transpose()?;
        let listener = bind(config.listen).await?;
        let admin = match config.admin {
            None => None,
            Some(address) => Some(bind(address).await?),
        };
        let local = |listener: &TcpListener| listener.local_addr().map_err(GateError::LocalAddress);
        Ok(Self {
            address: local(&listener)?,
            admin_address: admin.as_ref().map(local).transpose()?,
            listener,
            admin,
            bounds: config.bounds,
            proxy_protocol: config.proxy_protocol,
            proxy: Arc::new(proxy(config, keys, token)?),
            tls,
        })
    }

    /// Reads keys and certificate again when it is called. What cannot be used changes nothing.
    pub fn reloader(&self) -> impl Fn() + Send + Sync + 'static {
        let (proxy, tls) = (Arc::clone(&self.proxy), self.tls.clone());
        move || {
            match proxy.keys.reload() {
                Change::None => tracing::info!("the keys were read again: they are the same"),
                change => report(&proxy.metrics, &change),
            }
            match tls.as_ref().map(|tls| tls.reload()) {
                None => {}
                Some(Ok(())) => {
                    proxy.metrics.reload("ok");
                    tracing::info!("the certificate was read again");
                }
                Some(Err(why)) => {
                    proxy.metrics.reload("refused");
                    tracing::error!(%why, "the certificate was read again and refused: the old one stays in use");
                }
            }
        }
    }

    /// Serves until `stop`, then lets open requests end.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { listener, admin, proxy, bounds, proxy_protocol, tls, .. } = self;
        let follow = {
            let (keys, metrics) = (proxy.keys.clone(), Arc::clone(&proxy.metrics));
            tokio::spawn(async move { keys.follow(|change| report(&metrics, &change)).await })
        };
        let sweep = {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move { proxy.upstream.sweep().await })
        };
        // Health and metrics are served to the end of the drain.
        let (drained, until_drained) = watch::channel(false);
        let admin = admin.map(|listener| {
            tokio::spawn(admin::run(listener, Arc::clone(&proxy.metrics), stop.clone(), until_drained))
        });
        let listener = match tls {
            None => Listener::Tcp(listener),
            Some(tls) => Listener::Tls(listener, tls),
        };
        let serving = Arc::clone(&proxy);
        let make = move |peer: Peer| {
            let proxy = Arc::clone(&serving);
            proxy.metrics.connections.inc();
            // The gate listens on TCP alone, where each peer has an address.
            let peer = peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            service_fn(move |request| Arc::clone(&proxy).answer(request, peer))
        };
        let drain_end = tokio::spawn(drain_end(stop.clone(), bounds));
        serve(listener, limits(bounds, &proxy, proxy_protocol), make, stop).await;
        // What a client began and left comes to its end as well, within the same time.
        if let Ok(end) = drain_end.await {
            tokio::time::timeout_at(end, proxy.forwards.acquire_many(FORWARDS)).await.ok();
        }
        follow.abort();
        sweep.abort();
        drained.send_replace(true);
        if let Some(admin) = admin
            && let Err(error) = admin.await
        {
            tracing::error!(%error, "the listener of health and metrics failed");
        }
    }
}

fn limits(bounds: Bounds, proxy: &Proxy, proxy_protocol: bool) -> Limits {
    Limits {
        connections: bounds.connections,
        per_address: bounds.per_address,
        per_prefix: bounds.per_prefix,
        trusted_proxies: proxy.trusted_proxies.clone().into(),
        proxy_protocol,
        refuse_more: true,
        closed: Arc::clone(&proxy.metrics.closed),
        streams: STREAMS,
        head: bounds.head,
        drain: bounds.drain,
        refusals: Some(Arc::clone(&proxy.refusals)),
        ..Limits::default()
    }
}

/// When the drain that begins at the stop ends.
async fn drain_end(mut stop: watch::Receiver<bool>, bounds: Bounds) -> Instant {
    // A sender that is gone will never say stop, so it counts as one.
    stop.wait_for(|stop| *stop).await.ok();
    Instant::now() + bounds.drain
}

fn proxy(config: Config, keys: LiveKeys, token: Option<Zeroizing<String>>) -> Result<Proxy, GateError> {
    let bounds = config.bounds;
    let claim = bounds.upstream.as_secs().saturating_add(CLAIM_MARGIN);
    let refusals = Arc::new(RefusalPace::new(bounds.refusals));
    Ok(Proxy {
        upstream: Upstream::new(config.upstream, &config.path, token, config.keep_auth_header, bounds.upstream)?,
        path: config.path,
        trusted_proxies: config.trusted_proxies,
        forwarded_header: config.forwarded_header,
        keys,
        guard: MemoryGuard::new(bounds.remembered, claim),
        bodies: BodyBounds {
            most: bounds.body,
            time: bounds.whole_body,
            room: Room::new(bounds.bodies),
            clock: AwakeClock::new(),
            waiting: Waiting::new(WaitingBounds { per_address: bounds.per_address, per_prefix: bounds.per_prefix }),
            pace: Arc::clone(&refusals),
        },
        forwards: Arc::new(Semaphore::new(FORWARDS as usize)),
        refusals,
        metrics: Arc::new(Metrics::new()),
        log: LogLimiter::default(),
    })
}

fn report(metrics: &Metrics, change: &Change) {
    match change {
        Change::None => {}
        Change::Taken => {
            metrics.reload("ok");
            tracing::info!("other keys are in force");
        }
        Change::Refused(why) => {
            metrics.reload("refused");
            tracing::error!(%why, "the keys were read again and refused: the old ones stay in force");
        }
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, GateError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| GateError::UnreadableToken { path: path.to_owned(), cause })?;
    let text = Zeroizing::new(text);
    let token = Zeroizing::new(text.trim().to_owned());
    let is_sendable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sendable { Ok(token) } else { Err(GateError::NotAToken { path: path.to_owned() }) }
}
