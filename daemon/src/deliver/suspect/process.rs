//! The daemon's side of a suspect's attempt: it starts this program as a process of its own, hands it the finished request, and
//! makes an exchange of whatever becomes of it. The process ends with its attempt, at its deadline, or with the daemon.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::COMMAND;
use super::wire::{Answer, BEGUN, Order};
use crate::base::child_process::died_by_itself;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::net::egress::Policy;
use crate::net::exchange::{Config, Exchange, Outgoing};

/// The longest answer: the text that is kept of a receiver's answer, four characters a byte, and the rest.
const ANSWER: u64 = 64 * 1024;
/// How long after its deadline the process may still answer. It is less than a lease outlives the deadline.
const LATE: Duration = Duration::from_secs(1);

/// Starts the processes.
pub(in crate::deliver) struct Launcher {
    program: PathBuf,
    arguments: Vec<&'static str>,
    /// What the exchange needs of the settings.
    client: Config,
}

/// What became of a process.
#[derive(Debug)]
enum Ended {
    Answered(Box<Exchange>),
    /// It ended without an answer, after it had begun its attempt or before.
    Unanswered {
        status: ExitStatus,
        had_begun: bool,
    },
    Impossible(io::Error),
    /// It did not end by the deadline.
    Late,
}

impl Launcher {
    pub(in crate::deliver) fn new(client: Config) -> Self {
        // This program itself, even if its file has another version by now.
        Self { program: "/proc/self/exe".into(), arguments: vec![COMMAND], client }
    }

    /// Sends one POST in a process of its own. `now` is for a date in `Retry-After`. `failed_before` says that the attempt
    /// before was one that ended its process, too.
    pub(in crate::deliver) async fn post(
        &self,
        outgoing: &Outgoing,
        policy: &Policy,
        now: Timestamp,
        end: Instant,
        failed_before: bool,
    ) -> Exchange {
        let left = end.saturating_duration_since(Instant::now());
        let order = Order::new(outgoing, policy, &self.client, now, left);
        let ended = match timeout_at(end + LATE, self.run(&order, &outgoing.body)).await {
            Ok(ended) => ended.unwrap_or_else(Ended::Impossible),
            // The process was killed when its future was dropped.
            Err(_) => Ended::Late,
        };
        exchange_of(ended, failed_before)
    }

    async fn run(&self, order: &Order, body: &[u8]) -> io::Result<Ended> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // Keys are among the headers, so they go where nobody else can look. A process that ended before it has read all gives
        // no answer.
        if let Some(mut input) = input
            && input.write_all(&line).await.is_ok()
        {
            input.write_all(body).await.ok();
        }
        let mut answer = Vec::new();
        if let Some(output) = output {
            output.take(ANSWER).read_to_end(&mut answer).await?;
        }
        let status = child.wait().await?;
        let begun = answer.strip_prefix(BEGUN);
        let exchange = serde_json::from_slice(begun.unwrap_or(&answer)).ok().and_then(Answer::open);
        Ok(match exchange {
            Some(exchange) => Ended::Answered(Box::new(exchange)),
            None => Ended::Unanswered { status, had_begun: begun.is_some() },
        })
    }
}

/// The exchange that is recorded. Only a process that ended by what it did itself accuses its callback, and two of them, one
/// after the other, end it.
fn exchange_of(ended: Ended, failed_before: bool) -> Exchange {
    match ended {
        Ended::Answered(exchange) => *exchange,
        Ended::Unanswered { status, had_begun: true } if died_by_itself(status) => {
            let exchange = Exchange::refused(Outcome::Panicked, format!("the attempt ended its process ({status})"));
            Exchange { sent: true, hopeless: failed_before, ..exchange }
        }
        Ended::Unanswered { status, had_begun } => {
            let why = format!("the process of the attempt ended before its answer ({status})");
            Exchange { sent: had_begun, ..Exchange::refused(Outcome::Interrupted, why) }
        }
        Ended::Impossible(error) => {
            Exchange::refused(Outcome::Interrupted, format!("no process can be started for the attempt: {error}"))
        }
        Ended::Late => {
            let exchange = Exchange::refused(Outcome::HeadTimeout, "the process of the attempt did not end in time");
            Exchange { sent: true, ..exchange }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::model::team::HttpPolicy;
    use crate::net::dial::Deadlines;
    use crate::net::dns;
    use crate::net::target::Target;

    /// What is recorded of a process that is this script.
    async fn of(program: &str, script: &'static str, wait: Duration, failed_before: bool) -> Exchange {
        let deadlines = Deadlines { dns: wait, connect: wait, tls: wait, head: wait, total: wait };
        let dns = dns::Config { servers: Vec::new(), cache_entries: 1 };
        let client = Config { deadlines, dns, http2: true, ca_file: None };
        let launcher = Launcher { program: program.into(), arguments: vec!["-c", script], client };
        let target = Target::parse("https://hooks.example/").unwrap();
        let body = bytes::Bytes::from(vec![b'x'; 1 << 20]);
        let outgoing = Outgoing { team: "team".into(), target, headers: HeaderMap::new(), body };
        let (allow, never, own, nat64) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let policy = Policy { allow, never, own, nat64, http: HttpPolicy::Allow, generation: 1 };
        launcher.post(&outgoing, &policy, Timestamp::from_millis(0), Instant::now() + wait, failed_before).await
    }

    #[tokio::test]
    async fn only_a_process_that_ended_by_itself_in_its_attempt_accuses_its_callback() {
        let answer = r#"cat >/dev/null; echo begun; echo '{"outcome":"ok","hopeless":false,"sent":true,"status":200,
            "retry_after":null,"peer":null,"redialed":false,"snippet":[]}'"#;
        for (program, script, outcome, sent, accuses) in [
            ("/bin/sh", answer, Outcome::Ok, true, false),
            ("/bin/sh", "cat >/dev/null; echo begun; kill -ABRT $$", Outcome::Panicked, true, true),
            ("/bin/sh", "cat >/dev/null; echo begun; kill -SEGV $$", Outcome::Panicked, true, true),
            // Somebody else killed it.
            ("/bin/sh", "cat >/dev/null; echo begun; kill -KILL $$", Outcome::Interrupted, true, false),
            // It had not begun, so the reason lies elsewhere.
            ("/bin/sh", "kill -ABRT $$", Outcome::Interrupted, false, false),
            ("/bin/sh", "cat >/dev/null; echo begun; echo nonsense", Outcome::Interrupted, true, false),
            ("/no/such/program", "", Outcome::Interrupted, false, false),
        ] {
            for failed_before in [false, true] {
                let exchange = of(program, script, Duration::from_secs(20), failed_before).await;
                assert_eq!((exchange.outcome, exchange.sent), (outcome, sent), "{script}: {exchange:?}");
                assert_eq!(exchange.hopeless, accuses && failed_before, "{script}: {exchange:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_process_that_does_not_end_is_killed_at_its_deadline() {
        let begun = Instant::now();
        let exchange = of("/bin/sh", "cat >/dev/null; exec sleep 60", Duration::from_millis(10), true).await;
        assert_eq!((exchange.outcome, exchange.hopeless), (Outcome::HeadTimeout, false));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
