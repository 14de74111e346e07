//! What the demo prints: a banner with a legend, a line for each event, a footer, the ledger, and the way of one failed
//! callback. `lines` lays each of them out for the width of the terminal, which is asked for again before each line.

use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ledger::Ledger;
use super::lines::{self, Colour, Counts, EventLine, Failed, Mark, Painted, WIDE};
use super::producer::Producer;
use super::receiver::Receipts;
use super::{ACME, GLOBEX};
use crate::app::App;
use crate::base::clock::{Clock, SystemClock};
use crate::base::columns::wrapped;
use crate::flight::settle::Notice;
use crate::model::settlement::{Ended, Verdict};

pub(super) struct Screen {
    quiet: bool,
    /// A person sees the output, so there is a footer.
    terminal: bool,
    color: bool,
    counts: Counts,
    /// What the line at the bottom shows, while there is one: its counts, and where the metrics are.
    footer: Option<(Counts, String)>,
}

impl Screen {
    pub(super) fn new(person: bool, quiet: bool) -> Self {
        let terminal = person && std::io::stdout().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, terminal, color, counts: Counts::default(), footer: None }
    }

    /// The width of the terminal now. Without a terminal, everything has room.
    fn width(&self) -> usize {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return WIDE;
        }
        let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let size = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        given.or_else(size).filter(|width| *width > 0).unwrap_or(80)
    }

    /// Writes lines. A reader that has gone does not end the demo.
    fn put(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        // The footer stands there, or what the terminal shows of a key: "^C".
        let clear = if self.terminal { CLEAR } else { "" };
        write!(out, "{clear}{text}\n{}", self.bottom()).and_then(|()| out.flush()).ok();
    }

    /// The line at the bottom, laid out for the width of now.
    fn bottom(&self) -> String {
        let Some((counts, metrics)) = &self.footer else { return String::new() };
        self.paint(Colour::Grey, &lines::footer(counts, metrics, self.width()))
    }

    /// Deletes the line at the bottom.
    pub(super) fn without_footer(&mut self) {
        if self.footer.take().is_some() {
            let mut out = std::io::stdout().lock();
            write!(out, "{CLEAR}").and_then(|()| out.flush()).ok();
        }
    }

    fn paint(&self, color: Colour, text: &str) -> String {
        let code = match color {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Grey => "90",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prose, in lines of the terminal's width.
    pub(super) fn say(&mut self, text: &str) {
        let text = wrapped(text, self.width(), 0);
        self.put(&text);
    }

    pub(super) fn banner(&mut self, app: &App, receiver: SocketAddr, folder: &Path) {
        let width = self.width();
        let metrics = app.ops_address.map_or_else(String::new, |address| format!("http://{address}/metrics"));
        self.say(&format!("callbackd {} demo: task events -> signed callbacks", env!("CARGO_PKG_VERSION")));
        for (name, what) in [
            ("broker", "a mock Kafka in this program".to_owned()),
            ("store", format!("SQLite in {}", folder.display())),
            ("receiver", format!("http://{receiver}, verifies every callback with the SDK")),
            ("teams", format!("{ACME} (auth form key), {GLOBEX} (auth form hmac)")),
            ("metrics", metrics),
            ("retries", "short in the demo: 4 within 8 s (by default: 20 within 24 h)".to_owned()),
        ] {
            self.put(&wrapped(&format!("  {name:<8}  {what}"), width, 12));
        }
        self.put("\nWhat the first word of a line means:");
        for (mark, Painted { before, coloured, after }) in lines::legend(width) {
            let coloured = self.paint(mark.colour(), &coloured);
            self.put(&format!("{before}{coloured}{after}"));
        }
        let columns = lines::legend_of_columns(width);
        if !columns.is_empty() {
            self.put(&columns);
        }
        if self.terminal {
            self.put(&lines::legend_of_footer(width));
        }
        self.put("");
        self.say("The first event comes in a few seconds, when the consumer group has formed.");
        self.put(&format!("\n{}", lines::header(width)));
    }

    pub(super) fn line(&mut self, notice: &Notice, producer: &Producer) {
        let line = event_line(notice, producer);
        self.count(notice);
        let Painted { before, coloured, after } = line.laid_out(self.width());
        let coloured = self.paint(line.mark.colour(), &coloured);
        self.put(&format!("{before}{coloured}{after}"));
    }

    fn count(&mut self, notice: &Notice) {
        let counts = &mut self.counts;
        match notice {
            Notice::Attempt { verdict: Verdict::Ended(Ended::Delivered), .. } => counts.delivered += 1,
            Notice::Attempt { verdict: Verdict::Ended(_), .. } => counts.given_up += 1,
            Notice::Attempt { verdict: Verdict::Due(_), .. } => counts.retries += 1,
            Notice::Attempt { .. } => {}
            Notice::Buried(_) => counts.dead_letters += 1,
        }
    }

    /// Shows one line at the bottom, on a terminal only. It stays there, below the lines that are printed.
    pub(super) fn footer(&mut self, app: &App, producer: &Producer, receipts: &Receipts) {
        if !self.terminal {
            return;
        }
        let counts = Counts {
            produced: producer.produced(),
            open: producer.open(),
            requests: receipts.entries().requests,
            ..self.counts
        };
        let address = app.ops_address.map_or_else(String::new, |address| format!("http://{address}/metrics"));
        self.footer = Some((counts, address));
        let mut out = std::io::stdout().lock();
        write!(out, "{CLEAR}{}", self.bottom()).and_then(|()| out.flush()).ok();
    }

    /// Prints the ledger. `stopped`: Ctrl-C came half-way.
    pub(super) fn ledger(&mut self, ledger: &Ledger, stopped: bool) {
        self.without_footer();
        self.put("");
        self.put(&format!("{:<26} {:>9} {:>9} {:>9}", "LEDGER", "PRODUCED", "RECEIVED", "STORED"));
        let (mut produced, mut stored) = (0, 0);
        for line in &ledger.lines {
            produced += line.produced;
            stored += line.stored;
            let received = line.received.map_or_else(|| "-".to_owned(), |count| count.to_string());
            self.put(&format!("{:<26} {:>9} {received:>9} {:>9}", line.what, line.produced, line.stored));
            if !line.balances() {
                self.put("  ^ these counts differ");
            }
        }
        if ledger.open > 0 || ledger.pending > 0 {
            produced += ledger.open;
            stored += ledger.pending;
            self.put(&format!("{:<26} {:>9} {:>9} {:>9}", "still open", ledger.open, "-", ledger.pending));
        }
        self.put(&format!("{:<26} {produced:>9} {:>9} {stored:>9}", "in all", ""));
        if ledger.forged > 0 {
            self.say(&format!("{} requests did not verify", ledger.forged));
        }
        if ledger.open > 0 {
            self.say(&lines::still_open(ledger.open, ledger.pending));
        }
        let verdict = match (ledger.balances(), stopped) {
            (false, _) => (Colour::Red, "The ledger does NOT balance."),
            (true, false) => {
                (Colour::Green, "The ledger balances: every event ended, and every delivery was verified.")
            }
            (true, true) => (
                Colour::Green,
                "Stopped half-way. The ledger balances: every event ended or is still open, and every delivery was verified.",
            ),
        };
        let text = wrapped(verdict.1, self.width(), 0);
        let text = self.paint(verdict.0, &text);
        self.put(&text);
    }

    /// Prints the way of one failed callback.
    pub(super) fn walk(&mut self, failed: &Failed) {
        self.put("");
        for line in lines::walk(failed, self.width()) {
            self.put(&line);
        }
    }

    /// Says how to ask this demo's daemon from another terminal.
    pub(super) fn commands(&mut self, app: &App, folder: &Path, failed: Option<&Failed>) {
        let program = program();
        self.put("");
        self.say(&format!(
            "The demo continues until you press Ctrl-C. It then deletes {}. To ask its daemon, open another terminal in this \
             folder, and type this first:",
            folder.display()
        ));
        self.put(&format!("  export CALLBACKD_API_URL=unix:{}", app.api_socket.display()));
        self.say("Then type any of these:");
        self.put(&format!("  {program} status"));
        for command in failed.map(|failed| lines::commands(failed, &program)).unwrap_or_default() {
            self.put(&command);
        }
        self.put("");
    }

    /// Says which commands show the way of a callback. The demo's daemon ends now, so they are for another one.
    pub(super) fn commands_for_later(&mut self) {
        self.say("The demo's daemon ends now. While a daemon of your own runs, these commands show the same:");
        for command in lines::COMMANDS {
            self.put(command);
        }
    }
}

/// Goes to the beginning of the line and deletes it.
const CLEAR: &str = "\r\x1b[2K";

/// This program, as a person in the same folder may type it.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "callbackd".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map_or_else(|_| path.clone(), PathBuf::from).display().to_string()
}

fn event_line(notice: &Notice, producer: &Producer) -> EventLine {
    let time = SystemClock.now().to_string();
    let time = time.get(11..23).unwrap_or(&time).to_owned();
    match notice {
        Notice::Attempt { settle, verdict } => {
            let status = settle.attempt.status.map_or_else(String::new, |status| format!(" {status}"));
            EventLine {
                time,
                mark: Mark::of(*verdict),
                id: settle.facts.id.to_string(),
                team: settle.facts.team.to_string(),
                task_type: producer.kind_of(&settle.facts.task_id).to_owned(),
                outcome: format!("{}{status}", settle.attempt.outcome.name()),
                attempt: format!("#{}", settle.number),
            }
        }
        Notice::Buried(letter) => EventLine {
            time,
            mark: Mark::DeadLetter,
            id: letter.id.to_dead_letter_id(),
            team: letter.team.as_deref().unwrap_or("-").to_owned(),
            task_type: letter.task_id.as_deref().map_or("", |task| producer.kind_of(task)).to_owned(),
            outcome: letter.reason.name().to_owned(),
            attempt: String::new(),
        },
    }
}
