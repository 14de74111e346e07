//! What the demo prints: a banner, a line for each event, a footer, and the ledger.

use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use super::ledger::Ledger;
use super::producer::Producer;
use super::receiver::Receipts;
use super::{ACME, GLOBEX};
use crate::app::App;
use crate::base::clock::{Clock, SystemClock};
use crate::flight::settle::Notice;
use crate::model::settlement::{Ended, Verdict};

pub(super) struct Screen {
    quiet: bool,
    terminal: bool,
    color: bool,
    footer: bool,
    delivered: u64,
    retried: u64,
    ended: u64,
    buried: u64,
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const GREY: &str = "90";

impl Screen {
    pub(super) fn new(person: bool, quiet: bool) -> Self {
        let terminal = person && std::io::stdout().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, terminal, color, footer: false, delivered: 0, retried: 0, ended: 0, buried: 0 }
    }

    /// Writes lines. A reader that has gone does not end the demo.
    fn put(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        let clear = if std::mem::take(&mut self.footer) { "\r\x1b[2K" } else { "" };
        writeln!(out, "{clear}{text}").and_then(|()| out.flush()).ok();
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.put(text);
    }

    pub(super) fn banner(&mut self, app: &App, receiver: SocketAddr, folder: &Path) {
        let metrics = app.ops_address.map_or_else(String::new, |address| format!("http://{address}/metrics"));
        self.put(&format!(
            "callbackd {} demo: task events -> signed callbacks\n\
             \x20 broker    a mock Kafka in this program\n\
             \x20 store     SQLite in {}\n\
             \x20 receiver  http://{receiver}, verifies every callback with the SDK\n\
             \x20 teams     {ACME} (auth form key), {GLOBEX} (auth form hmac)\n\
             \x20 metrics   {metrics}\n\
             \x20 retries   short in the demo: 4 within 8 s (by default: 20 within 24 h)\n\
             The first event comes in a few seconds, when the consumer group has formed.\n",
            env!("CARGO_PKG_VERSION"),
            folder.display(),
        ));
        self.put(&format!(
            "{:<12} {:<11} {:<30} {:<12} {:<24} {:<16} {}",
            "TIME", "", "CALLBACK", "TEAM", "TASK TYPE", "OUTCOME", "ATTEMPT"
        ));
    }

    pub(super) fn line(&mut self, notice: &Notice, producer: &Producer) {
        let time = SystemClock.now().to_string();
        let time = time.get(11..23).unwrap_or(&time).to_owned();
        let (color, mark, id, team, kind, outcome, attempt) = match notice {
            Notice::Attempt { settle, verdict } => {
                let (color, mark) = match verdict {
                    Verdict::Ended(Ended::Delivered) => (GREEN, "delivered"),
                    Verdict::Ended(Ended::Exhausted) => (RED, "exhausted"),
                    Verdict::Ended(Ended::Abandoned(_)) => (RED, "abandoned"),
                    Verdict::Due(_) => (YELLOW, "retry"),
                    _ => (GREY, "late"),
                };
                self.count(*verdict);
                let attempt = format!("#{}", settle.number);
                let team = settle.facts.team.to_string();
                let kind = producer.kind_of(&settle.facts.task_id);
                let status = settle.attempt.status.map_or_else(String::new, |status| format!(" {status}"));
                let outcome = format!("{}{status}", settle.attempt.outcome.name());
                (color, mark, settle.facts.id.to_string(), team, kind, outcome, attempt)
            }
            Notice::Buried(letter) => {
                self.buried += 1;
                let team = letter.team.as_deref().unwrap_or("-").to_owned();
                let kind = letter.task_id.as_deref().map_or("", |task| producer.kind_of(task));
                let id = letter.id.to_dead_letter_id();
                (RED, "dead letter", id, team, kind, letter.reason.name().to_owned(), String::new())
            }
        };
        let mark = self.paint(color, &format!("{mark:<11}"));
        self.put(&format!("{time:<12} {mark} {id:<30} {team:<12} {kind:<24} {outcome:<16} {attempt}"));
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Ended(Ended::Delivered) => self.delivered += 1,
            Verdict::Ended(_) => self.ended += 1,
            Verdict::Due(_) => self.retried += 1,
            _ => {}
        }
    }

    /// Prints one line at the bottom, on a terminal only.
    pub(super) fn footer(&mut self, app: &App, producer: &Producer, receipts: &Receipts) {
        if !self.terminal {
            return;
        }
        let requests = receipts.entries().requests;
        let address = app.ops_address.map_or_else(String::new, |address| format!("  http://{address}/metrics"));
        let text = format!(
            "produced {}  delivered {}  retries {}  given up {}  dead letters {}  open {}  requests {requests}{address}",
            producer.produced(),
            self.delivered,
            self.retried,
            self.ended,
            self.buried,
            producer.open(),
        );
        let text = self.paint(GREY, &text);
        let mut out = std::io::stdout().lock();
        write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush()).ok();
        self.footer = true;
    }

    pub(super) fn ledger(&mut self, ledger: &Ledger, stopped: bool) {
        self.put("");
        self.put(&format!("{:<32} {:>10} {:>10} {:>10}", "LEDGER", "PRODUCED", "RECEIVED", "STORED"));
        let (mut produced, mut stored) = (0, 0);
        for line in &ledger.lines {
            produced += line.produced;
            stored += line.stored;
            let received = line.received.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let mark = if line.balances() || stopped { "" } else { "  <- differs" };
            self.put(&format!("{:<32} {:>10} {received:>10} {:>10}{mark}", line.what, line.produced, line.stored));
        }
        self.put(&format!("{:<32} {produced:>10} {:>10} {stored:>10}", "in all", ""));
        if ledger.forged > 0 {
            self.put(&format!("{} requests did not verify", ledger.forged));
        }
        if ledger.pending > 0 {
            self.put(&format!("{} callbacks are still pending", ledger.pending));
        }
        let verdict = if ledger.balances() {
            self.paint(GREEN, "The ledger balances: every event ended, and every delivery was verified.")
        } else if stopped {
            "Stopped half-way: it balances once every event has come to its end.".to_owned()
        } else {
            self.paint(RED, "The ledger does NOT balance.")
        };
        self.put(&verdict);
    }

    pub(super) fn commands(&mut self, app: &App, producer: &Producer, folder: &Path) {
        let program =
            std::env::current_exe().map_or_else(|_| "callbackd".to_owned(), |path| path.display().to_string());
        let api = format!("--api unix:{}", app.api_socket.display());
        let callback = producer.last_exhausted.clone().unwrap_or_default();
        let task = producer.last_delivered.clone().unwrap_or_default();
        self.put(&format!(
            "\nThe demo goes on until Ctrl-C ({} goes with it). In another terminal:\n\
             \x20 {program} {api} status\n\
             \x20 {program} {api} callbacks attempts {callback}\n\
             \x20 {program} {api} tasks get {task}\n",
            folder.display(),
        ));
    }
}
