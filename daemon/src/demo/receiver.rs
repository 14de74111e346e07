//! The demo's receiver. The SDK verifies each request, and the receiver counts for itself what it accepted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scale_callback::receiver::{self, Handler, Received, Reply};
use scale_callback_auth::Verifier;
use scale_callback_serve::server::Listener;
use tokio::net::TcpListener;

use crate::base::stop::Stop;

/// What the receiver has received.
#[derive(Default)]
pub(super) struct Receipts(Mutex<Entries>);

#[derive(Default)]
pub(super) struct Entries {
    /// Ids that were verified and answered with 2xx.
    pub(super) accepted: HashSet<String>,
    /// How often each id came that was verified.
    pub(super) tries: HashMap<String, u32>,
    /// Requests that did not verify. There must be none.
    pub(super) forged: u64,
    pub(super) requests: u64,
}

impl Receipts {
    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, received: &Received) -> Reply {
        let mut entries = self.entries();
        entries.requests += 1;
        let Ok(verified) = &received.verdict else {
            entries.forged += 1;
            return Reply::status(401);
        };
        let tries = entries.tries.entry(verified.id.clone()).or_default();
        *tries += 1;
        let reply = match (received.path.as_str(), *tries) {
            ("/flaky", 1 | 2) => Reply::status(500).saying("the database is being moved"),
            ("/busy", 1) => Reply::status(429).retry_after(1),
            ("/hang", 1) => Reply::status(200).after(Duration::from_secs(30)),
            ("/down", _) => Reply::status(503).saying("down for maintenance"),
            _ => Reply::status(204),
        };
        if reply.status.is_success() && reply.delay.is_zero() {
            entries.accepted.insert(verified.id.clone());
        }
        reply
    }
}

pub(super) async fn run(listener: TcpListener, verifier: Verifier, receipts: Arc<Receipts>, stop: Stop) {
    let handler: Handler = Arc::new(move |received| receipts.answer(received));
    receiver::run(Listener::Tcp(listener), verifier, handler, stop.into_receiver()).await;
}
