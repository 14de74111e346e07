//! A receiver that verifies every callback with the SDK, and records what arrived and when it answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale_callback::receiver::{self, Handler, Received, Reply};
use scale_callback_auth::Verifier;
use scale_callback_serve::server::Listener;
use scale_callback_serve::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// One request that arrived and verified.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// `webhook-id`.
    pub id: String,
    /// The task's id. It is empty if the body has none.
    pub task_id: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The status of the answer.
    pub status: u16,
    /// When the answer is sent. If the receiver hangs, this is when the answer would be sent.
    pub answered: Instant,
    /// When the request arrived.
    pub came: Instant,
}

/// A running recorder. It ends when this value is dropped.
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    receipts: Mutex<Vec<Receipt>>,
    refused: Mutex<Vec<String>>,
    came: Notify,
}

/// Decides the answer to a request, from the request and from how often its id arrived before.
pub type Rule = Arc<dyn Fn(&Received, u32) -> Reply + Send + Sync>;

impl Recorder {
    /// Starts a recorder on loopback.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub async fn start(verifier: Verifier, rule: Rule) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Self::on(listener, verifier, rule)
    }

    /// Starts a recorder on a listener.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn on(listener: TcpListener, verifier: Verifier, rule: Rule) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self::serving(Listener::Tcp(listener), address, verifier, rule))
    }

    /// Starts a recorder on loopback with TLS. Clients that want HTTP/2 get it.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub async fn behind_tls(tls: Arc<ServerTls>, verifier: Verifier, rule: Rule) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self::serving(Listener::Tls(listener, tls), address, verifier, rule))
    }

    fn serving(listener: Listener, address: SocketAddr, verifier: Verifier, rule: Rule) -> Self {
        let state = Arc::new(State::default());
        let counts: Mutex<HashMap<String, u32>> = Mutex::default();
        let shared = Arc::clone(&state);
        let handler: Handler = Arc::new(move |received| shared.record(received, &counts, &rule));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(receiver::run(listener, verifier, handler, stopped));
        Self { address, state, _stop: stop, task }
    }

    /// The recorder's URL with this path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests that have verified so far.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        self.state.receipts().clone()
    }

    /// How many requests have verified so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.receipts().len()
    }

    /// The error codes of requests that did not verify. There should be none.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.state.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `enough` returns true for the receipts, at most `patience`. Returns false if that time passed.
    pub async fn until(&self, patience: Duration, enough: impl Fn(&[Receipt]) -> bool) -> bool {
        let waiting = async {
            loop {
                let came = self.state.came.notified();
                let mut came = std::pin::pin!(came);
                came.as_mut().enable();
                if enough(&self.state.receipts()) {
                    return;
                }
                came.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }
}

impl State {
    fn receipts(&self) -> MutexGuard<'_, Vec<Receipt>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, received: &Received, counts: &Mutex<HashMap<String, u32>>, rule: &Rule) -> Reply {
        let Ok(verified) = &received.verdict else {
            let code = received.verdict.as_ref().err().map_or("", |error| error.code());
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(code.to_owned());
            return Reply::status(401);
        };
        let before = {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(verified.id.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let reply = rule(received, before);
        let now = Instant::now();
        self.receipts().push(Receipt {
            id: verified.id.clone(),
            task_id: verified.task_id.clone(),
            path: received.path.clone(),
            body: received.body.clone(),
            headers: received.headers.clone(),
            status: reply.status.as_u16(),
            answered: now + reply.delay,
            came: now,
        });
        self.came.notify_waiters();
        reply
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
