//! One POST with a report of each step, for a person who wants to know where it fails. It uses the same parts as an
//! attempt, but a connection of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::again::Again;
use super::conn::{Connection, PoolKey};
use super::dial;
use super::dns::Answers;
use super::exchange::{Client, Exchange, Outgoing};
use super::failed::Failed;
use super::redact;
use super::target::TargetHost;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;

/// One step of the POST.
#[derive(Debug, Clone)]
pub struct Step {
    pub name: &'static str,
    pub took: Duration,
    /// What was found, or why it failed.
    pub detail: String,
    /// The outcome that an attempt would have.
    pub failed: Option<Outcome>,
    /// What the receiver answered, in the step `post`.
    pub status: Option<u16>,
}

impl Step {
    /// The name of the step that sends the request. The steps before it send nothing of a callback.
    pub const POST: &'static str = "post";
}

struct Steps<'o> {
    steps: Vec<Step>,
    outgoing: &'o Outgoing,
    since: Instant,
}

impl Steps<'_> {
    fn done(&mut self, name: &'static str, detail: impl Into<String>) {
        self.push(name, detail.into(), None);
    }

    fn failed(mut self, name: &'static str, failed: &Failed) -> Vec<Step> {
        // The receiver may have written a part of the text.
        let why = redact::kept(failed.why.as_bytes(), &self.outgoing.headers);
        self.push(name, String::from_utf8_lossy(&why).into_owned(), Some(failed.outcome));
        self.steps
    }

    fn push(&mut self, name: &'static str, detail: String, failed: Option<Outcome>) {
        let now = Instant::now();
        self.steps.push(Step { name, took: now.duration_since(self.since), detail, failed, status: None });
        self.since = now;
    }
}

impl Client {
    /// Sends one POST, which ends before `end`, and reports each step: dns, egress, connect, tls, post.
    pub async fn probe(&self, outgoing: &Outgoing, now: Timestamp, end: Instant) -> Vec<Step> {
        let (target, team, policy) = (&outgoing.target, &*outgoing.team, self.policy());
        let mut steps = Steps { steps: Vec::new(), outgoing, since: Instant::now() };
        let found = match self.dialer.lookup(target, team, &policy, end).await {
            Ok(found) => found,
            Err(failed) if failed.outcome == Outcome::AddressDenied => return steps.failed("egress", &failed),
            Err(failed) => return steps.failed("dns", &failed),
        };
        let listed: Vec<_> = found.iter().map(ToString::to_string).collect();
        steps.done(
            "dns",
            match target.host {
                TargetHost::Name(_) => listed.join(", "),
                TargetHost::Address(_) => "an address, not a name".to_owned(),
            },
        );
        if let Err(failed) = dial::allowed(target, team, &policy, &found) {
            return steps.failed("egress", &failed);
        }
        steps.done("egress", "every address of this host is allowed");
        let (stream, peer) = match self.dialer.connect(Answers::known(found), target, team, &policy, end).await {
            Ok(connected) => connected,
            Err(failed) => return steps.failed("connect", &failed),
        };
        steps.done("connect", peer.to_string());
        let dialed = match self.dialer.secure(target, stream, peer, end, Again::AsBefore).await {
            Ok(dialed) => dialed,
            Err(failed) => return steps.failed("tls", &failed),
        };
        match &dialed.tls {
            Some(version) => {
                steps.done("tls", format!("{version}, {}", if dialed.http2 { "HTTP/2" } else { "HTTP/1.1" }))
            }
            None => steps.done("tls", "none: the URL is http, so the body and a key are sent unencrypted"),
        }
        let exchange = match Connection::over(dialed).await {
            Ok(connection) => {
                // The test has a pool key of its own, so that attempts do not use its connection.
                let key = PoolKey { team: "".into(), origin: target.origin.clone(), generation: policy.generation };
                self.converse(connection, outgoing, &key, now, end).await.unwrap_or_else(|unhandled| unhandled.exchange)
            }
            Err(error) => Exchange::refused(Outcome::ConnectFailed, error),
        };
        let kept = redact::kept(&exchange.snippet, &outgoing.headers);
        let answer = scale_callback_serve::text::printable(&kept, 300);
        let status = exchange.status.map_or_else(String::new, |status| format!("status {status}"));
        let detail = [status, answer].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        steps.push(Step::POST, detail, Some(exchange.outcome).filter(|outcome| *outcome != Outcome::Ok));
        if let Some(post) = steps.steps.last_mut() {
            post.status = exchange.status;
        }
        steps.steps
    }
}
