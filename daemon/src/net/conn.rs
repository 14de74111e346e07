//! Connections and the small pool of idle ones. The key holds the team, so that customers with different identities
//! or egress verdicts never share a connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::dial::Stream;
use super::watched::{Watch, Watched};
use crate::model::endpoint::Origin;

/// Node's servers close an idle connection after 5 s: a kept one is used before that or not at all.
const IDLE: Duration = Duration::from_secs(4);
const AGE: Duration = Duration::from_secs(600);
const IDLE_PER_KEY: usize = 16;
const IDLE_IN_ALL: usize = 1_024;
const BUFFER: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) team: Arc<str>,
    pub(crate) origin: Origin,
    /// Of the egress policy that allowed it.
    pub(crate) generation: u64,
}

pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) peer: SocketAddr,
    born: Instant,
    idle_since: Instant,
    /// It came from the pool: the receiver may have closed it meanwhile.
    pub(crate) reused: bool,
    /// Ends with us: a receiver that never reads would keep it, and the body it holds, for ever.
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) async fn over(stream: Box<dyn Stream>, peer: SocketAddr) -> hyper::Result<Self> {
        let watch = Arc::new(Watch::default());
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&watch)));
        let (sender, driver) =
            http1::Builder::new().max_buf_size(BUFFER).max_headers(MAX_HEADERS).handshake(io).await?;
        let driver = tokio::spawn(async move {
            // How it ends shows in the exchange that uses it; an idle one may end as it likes.
            let _ = driver.await;
        });
        let now = Instant::now();
        let driver = driver.abort_handle();
        Ok(Self { sender, watch, peer, born: now, idle_since: now, reused: false, driver })
    }

    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed() && now.duration_since(self.idle_since) < IDLE && now.duration_since(self.born) < AGE
    }
}

#[derive(Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    by_key: HashMap<PoolKey, Vec<Connection>>,
    count: usize,
}

impl Pool {
    /// The connection used last, which is the least likely to be closed.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Idle { by_key, count } = &mut *idle;
        let kept = by_key.get_mut(key)?;
        while let Some(mut connection) = kept.pop() {
            *count = count.saturating_sub(1);
            if connection.usable(now) {
                connection.reused = true;
                return Some(connection);
            }
        }
        by_key.remove(key);
        None
    }

    pub(crate) fn put(&self, key: PoolKey, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.count >= IDLE_IN_ALL {
            return;
        }
        let kept = idle.by_key.entry(key).or_default();
        if kept.len() < IDLE_PER_KEY {
            kept.push(connection);
            idle.count = idle.count.saturating_add(1);
        }
    }

    /// Drops what has been idle or alive too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.by_key.retain(|_, kept| {
            kept.retain(|connection| connection.usable(now));
            !kept.is_empty()
        });
        idle.count = idle.by_key.values().map(Vec::len).sum();
    }
}
