//! How the demo's lines are laid out in a terminal of a given width. Everything here is pure.

use crate::base::columns::{Need, cut, fit, line_of, wrapped};
use crate::model::settlement::{Ended, Verdict};

/// What became of a callback or an event, as the first word of its line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Delivered,
    Retry,
    Exhausted,
    Abandoned,
    DeadLetter,
    Late,
}

impl Mark {
    pub(super) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ended(Ended::Delivered) | Verdict::DeliveredInRound => Self::Delivered,
            Verdict::Ended(Ended::Exhausted) => Self::Exhausted,
            Verdict::Ended(Ended::Abandoned(_)) => Self::Abandoned,
            Verdict::Due(_) => Self::Retry,
            _ => Self::Late,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Exhausted => "exhausted",
            Self::Abandoned => "abandoned",
            Self::DeadLetter => "dead letter",
            Self::Late => "late",
        }
    }

    pub(super) fn colour(self) -> Colour {
        match self {
            Self::Delivered => Colour::Green,
            Self::Retry => Colour::Yellow,
            Self::Exhausted | Self::Abandoned | Self::DeadLetter => Colour::Red,
            Self::Late => Colour::Grey,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
    Grey,
}

/// The marks that a demo shows, each with its meaning. Late is left out: nothing of the demo makes one.
const LEGEND: [(Mark, &str); 5] = [
    (Mark::Delivered, "The receiver answered with 2xx. This is the end."),
    (Mark::Retry, "The attempt failed. Another one follows."),
    (Mark::Exhausted, "Every retry failed. This is the end."),
    (Mark::Abandoned, "No attempt can succeed: there is no URL, or it must not be called. This is the end."),
    (Mark::DeadLetter, "The event cannot become a callback."),
];

/// One line of the table of events. The cells are empty where there is nothing to show.
#[derive(Debug, Clone)]
pub(super) struct EventLine {
    /// `12:00:00.000`.
    pub(super) time: String,
    pub(super) mark: Mark,
    pub(super) id: String,
    pub(super) team: String,
    pub(super) task_type: String,
    pub(super) outcome: String,
    pub(super) attempt: String,
}

/// The width of each column. They are fixed, because lines come one after the other and must stand below each other.
const COLUMNS: [(&str, Need); 7] = [
    ("TIME", Need { wanted: 12, least: 8, is_stepped: true, rank: 3 }),
    ("", Need { wanted: 11, least: 11, is_stepped: false, rank: 0 }),
    ("CALLBACK", Need { wanted: ID, least: ID, is_stepped: false, rank: 0 }),
    ("TEAM", Need { wanted: 12, least: 12, is_stepped: false, rank: 4 }),
    ("TASK TYPE", Need { wanted: 24, least: 12, is_stepped: false, rank: 5 }),
    ("OUTCOME", Need { wanted: 18, least: 16, is_stepped: false, rank: 1 }),
    ("TRY", Need { wanted: 3, least: 3, is_stepped: false, rank: 2 }),
];
/// The width of an id: `cb_` or `dl_`, and 26 characters.
const ID: usize = 29;
const MARK_COLUMN: usize = 1;

/// The width of lines that do not go to a terminal: everything has room.
pub(super) const WIDE: usize = 120;

/// A line, with the place of the part that has a colour.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Painted {
    pub(super) before: String,
    pub(super) coloured: String,
    pub(super) after: String,
}

impl EventLine {
    /// The line, at most as wide as the terminal. The id is never cut, unless the terminal is narrower than the id alone.
    pub(super) fn laid_out(&self, width: usize) -> Painted {
        let cells = [&self.time, self.mark.word(), &self.id, &self.team, &self.task_type, &self.outcome, &self.attempt];
        laid_out(cells, width)
    }
}

/// The titles of the columns.
pub(super) fn header(width: usize) -> String {
    let Painted { before, coloured, after } = laid_out(COLUMNS.map(|(title, _)| title), width);
    format!("{before}{coloured}{after}")
}

fn laid_out(cells: [&str; COLUMNS.len()], width: usize) -> Painted {
    let Some(widths) = fit(&COLUMNS.map(|(_, need)| need), 1, width) else {
        return narrow(cells[MARK_COLUMN], cells[MARK_COLUMN + 1], width);
    };
    let mut line = Painted { before: String::new(), coloured: String::new(), after: String::new() };
    for (at, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
        let Some(width) = width else { continue };
        let text = cut_cell(at, cell, width);
        let padding = " ".repeat(width.saturating_sub(text.chars().count()) + 1);
        match at {
            MARK_COLUMN => {
                line.coloured = text;
                line.after = padding;
            }
            before if before < MARK_COLUMN => line.before.push_str(&(text + &padding)),
            _ => line.after.push_str(&(text + &padding)),
        }
    }
    line.after = line.after.trim_end().to_owned();
    line
}

/// The mark and the id alone: the mark is cut before the id is.
fn narrow(mark: &str, id: &str, width: usize) -> Painted {
    let coloured = cut(mark, width.saturating_sub(ID + 1));
    let gap = if coloured.is_empty() { "" } else { " " };
    let room = width.saturating_sub(coloured.chars().count() + gap.len());
    Painted { before: String::new(), coloured, after: cut(&format!("{gap}{id}"), room + gap.len()) }
}

/// A cell in its width. A time loses its milliseconds and gets no ellipsis.
fn cut_cell(column: usize, cell: &str, width: usize) -> String {
    if column == 0 { cell.chars().take(width).collect() } else { cut(cell, width) }
}

/// What the line at the bottom counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) produced: u64,
    pub(super) delivered: u64,
    pub(super) retries: u64,
    /// Exhausted and abandoned.
    pub(super) given_up: u64,
    pub(super) dead_letters: u64,
    pub(super) open: u64,
    pub(super) requests: u64,
}

/// The line at the bottom. It never fills the terminal's last column, where some terminals begin a new line.
pub(super) fn footer(counts: &Counts, metrics: &str, width: usize) -> String {
    let part = |name: &str, count: u64, rank: u8| (format!("{name} {count}"), rank);
    let parts = [
        part("produced", counts.produced, 2),
        part("delivered", counts.delivered, 0),
        part("retries", counts.retries, 3),
        part("given up", counts.given_up, 1),
        part("dead letters", counts.dead_letters, 1),
        part("open", counts.open, 0),
        part("requests", counts.requests, 4),
        (metrics.to_owned(), 5),
    ];
    line_of(&parts, width.saturating_sub(1))
}

/// What the marks mean. Each mark stands apart from its meaning, so that it can have its colour.
pub(super) fn legend(width: usize) -> Vec<(Mark, Painted)> {
    let line = |(mark, meaning): &(Mark, &str)| {
        let text = wrapped(&format!("  {:<11}  {meaning}", mark.word()), width, 15);
        let (before, rest) = text.split_at(2);
        let (coloured, after) = rest.split_at(mark.word().len());
        (*mark, Painted { before: before.to_owned(), coloured: coloured.to_owned(), after: after.to_owned() })
    };
    LEGEND.iter().map(line).collect()
}

/// What those of the other columns mean that have room. Empty if none of them has.
pub(super) fn legend_of_columns(width: usize) -> String {
    const MEANINGS: [(&str, &str); 2] = [
        ("OUTCOME", "OUTCOME is what the attempt came to, with the status of the answer."),
        ("TRY", "TRY is the number of the attempt."),
    ];
    let shown = header(width);
    let meanings = MEANINGS.iter().filter(|(title, _)| shown.split_whitespace().any(|word| word == *title));
    let sentences: Vec<&str> = meanings.map(|(_, meaning)| *meaning).collect();
    if sentences.is_empty() { String::new() } else { wrapped(&format!("  {}", sentences.join(" ")), width, 2) }
}

/// What the words of the line at the bottom mean.
pub(super) fn legend_of_footer(width: usize) -> String {
    let text = "  The line at the bottom counts. Of the events that were produced, some were delivered, some were given up (exhausted \
                or abandoned), some are dead letters, and some are open, which means that they have not ended. Retries are \
                attempts after a failed one. Requests are what the receiver got.";
    wrapped(text, width, 2)
}

/// One attempt of a callback that failed.
pub(super) struct Try {
    pub(super) number: u32,
    pub(super) outcome: String,
    pub(super) millis: u128,
    /// The beginning of the answer, fit to be printed.
    pub(super) answer: String,
}

/// A callback that failed, for a person who wants to know why.
pub(super) struct Failed {
    pub(super) id: String,
    pub(super) team: String,
    pub(super) task: String,
    pub(super) origin: String,
    pub(super) tries: Vec<Try>,
}

/// The way of one failed callback: its attempts, and why it failed.
pub(super) fn walk(failed: &Failed, width: usize) -> Vec<String> {
    let Failed { id, team, task, origin, tries } = failed;
    let mut lines = vec!["HOW ONE CALLBACK FAILED".to_owned()];
    let begin = format!("{id} for task {task} of {team} went to {origin}.");
    lines.push(wrapped(&begin, width, 0));
    for Try { number, outcome, millis, answer } in tries {
        let parts = [
            (format!("  #{number:<2}"), 0),
            (format!("{outcome:<16}"), 0),
            (format!("{millis:>5} ms"), 2),
            (answer.clone(), 1),
        ];
        // The answer is cut rather than left out, as long as a part of it fits.
        let room = width.saturating_sub(parts[..3].iter().map(|(text, _)| text.chars().count() + 2).sum());
        let mut parts = parts;
        parts[3].0 = cut(answer, room);
        lines.push(line_of(&parts, width).trim_end().to_owned());
    }
    let last = tries.last().map_or("nothing", |last| last.outcome.as_str());
    let why = format!(
        "Why: its {} attempts all failed, the last one with {last}. callbackd waited longer before each retry, and after the \
         last one it gave up: the callback is exhausted. Only the receiver can mend this.",
        tries.len()
    );
    lines.push(wrapped(&why, width, 0));
    lines
}

/// The commands that show the way of this callback. Each is one line, however long it is, so that it can be copied.
pub(super) fn commands(failed: &Failed, program: &str) -> Vec<String> {
    let Failed { id, team, task, origin, .. } = failed;
    vec![
        format!("  {program} callbacks attempts {id}"),
        format!("  {program} tasks get {task}"),
        format!("  {program} endpoints get {team} {origin}"),
    ]
}

/// The same for any callback of any daemon, because the demo's own daemon has ended.
pub(super) const COMMANDS: [&str; 3] =
    ["  callbackd callbacks attempts CALLBACK", "  callbackd tasks get TASK", "  callbackd endpoints get TEAM ORIGIN"];

/// What has not ended, in words. The store knows `pending` of the `open` events.
pub(super) fn still_open(open: u64, pending: u64) -> String {
    let mut text = match pending {
        1 => "Still open: 1 callback waits in the store for its next attempt.".to_owned(),
        count => format!("Still open: {count} callbacks wait in the store for their next attempt."),
    };
    match open.saturating_sub(pending) {
        0 => {}
        1 => text.push_str(" 1 event is not in the store yet. It is in Kafka, where the next start would read it."),
        count => {
            text.push_str(&format!(
                " {count} events are not in the store yet. They are in Kafka, where the next start would read them."
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [usize; 4] = [40, 60, 80, 120];

    fn event() -> EventLine {
        EventLine {
            time: "07:22:16.767".to_owned(),
            mark: Mark::DeadLetter,
            id: "cb_01m866y1r1vx381xh1wv964t1r".to_owned(),
            team: "team_globex".to_owned(),
            task_type: "namedentityrecognition".to_owned(),
            outcome: "server_error 503".to_owned(),
            attempt: "#21".to_owned(),
        }
    }

    fn plain(line: &Painted) -> String {
        format!("{}{}{}", line.before, line.coloured, line.after)
    }

    #[test]
    fn an_event_is_one_line_at_every_width_and_its_id_is_whole() {
        for width in WIDTHS {
            let line = plain(&event().laid_out(width));
            assert!(line.chars().count() <= width && !line.contains('\n'), "{width}: {line}");
            assert!(line.contains("cb_01m866y1r1vx381xh1wv964t1r"), "{width}: {line}");
            assert!(header(width).chars().count() <= width, "{width}: {}", header(width));
        }
        assert_eq!(plain(&event().laid_out(60)), "dead letter cb_01m866y1r1vx381xh1wv964t1r server_error 503");
        assert_eq!(
            plain(&event().laid_out(80)),
            "07:22:16.767 dead letter cb_01m866y1r1vx381xh1wv964t1r server_error 503   #21"
        );
        let wide = plain(&event().laid_out(120));
        assert!(wide.contains(" team_globex  namedentityrecognition   server_error 503   #21"), "{wide}");
        assert_eq!(plain(&event().laid_out(20)).chars().count(), 20);
    }

    #[test]
    fn the_footer_is_one_line_that_leaves_the_last_column_free() {
        let counts = Counts {
            produced: 100_000,
            delivered: 90_000,
            retries: 12_345,
            given_up: 9_000,
            dead_letters: 1_000,
            open: 300,
            requests: 120_000,
        };
        for width in WIDTHS {
            let line = footer(&counts, "http://127.0.0.1:54321/metrics", width);
            assert!(line.chars().count() < width && !line.contains('\n'), "{width}: {line}");
            assert!(line.contains("delivered 90000") && line.contains("open 300"), "{width}: {line}");
        }
        let small = Counts { produced: 7, delivered: 5, ..Counts::default() };
        assert!(footer(&small, "http://127.0.0.1:1/metrics", 130).ends_with("requests 0  http://127.0.0.1:1/metrics"));
    }

    #[test]
    fn the_legend_explains_each_mark_in_the_width() {
        for width in WIDTHS {
            let mut lines: Vec<String> = legend(width).iter().map(|(_, line)| plain(line)).collect();
            lines.push(legend_of_columns(width));
            lines.push(legend_of_footer(width));
            assert!(lines.iter().flat_map(|line| line.lines()).all(|line| line.chars().count() <= width), "{lines:#?}");
        }
        let marks: Vec<_> = legend(80).into_iter().map(|(_, line)| line.coloured).collect();
        assert_eq!(marks, ["delivered", "retry", "exhausted", "abandoned", "dead letter"]);
        for width in 20..=130 {
            let (titles, legend) = (header(width), legend_of_columns(width));
            for title in ["OUTCOME", "TRY"] {
                assert_eq!(titles.contains(title), legend.contains(title), "{width}: {titles}\n{legend}");
            }
        }
        let counted = footer(&Counts::default(), "", 120).replace(" 0", "");
        for words in counted.split("  ").filter(|words| !words.is_empty()) {
            assert!(legend_of_footer(1_000).to_lowercase().contains(words), "{words} is not explained");
        }
    }

    #[test]
    fn what_is_open_is_said_in_words() {
        assert_eq!(still_open(2, 2), "Still open: 2 callbacks wait in the store for their next attempt.");
        let told = still_open(2, 1);
        assert!(told.contains("1 callback waits") && told.contains("1 event is not in the store yet"), "{told}");
    }

    #[test]
    fn the_walk_shows_the_attempts_the_reason_and_the_commands() {
        let failed = Failed {
            id: "cb_01m866y1r1vx381xh1wv964t1r".to_owned(),
            team: "team_acme".to_owned(),
            task: "6583f1a2b0c4d5e6f7081920".to_owned(),
            origin: "http://127.0.0.1:54321".to_owned(),
            tries: (1..=5)
                .map(|number| Try {
                    number,
                    outcome: "server_error 503".to_owned(),
                    millis: 12,
                    answer: "down for maintenance".to_owned(),
                })
                .collect(),
        };
        for width in WIDTHS {
            let lines = walk(&failed, width);
            assert!(
                lines.iter().flat_map(|line| line.lines()).all(|line| line.chars().count() <= width),
                "{width}: {lines:#?}"
            );
        }
        let text = walk(&failed, 80).join("\n");
        assert!(text.contains("  #5   server_error 503     12 ms  down for maintenance"), "{text}");
        assert!(text.contains("its 5 attempts all failed, the last one with server_error 503"), "{text}");
        let commands = commands(&failed, "callbackd");
        assert_eq!(commands[0], "  callbackd callbacks attempts cb_01m866y1r1vx381xh1wv964t1r");
        let verbs = |command: &str| command.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        assert!(commands.iter().zip(COMMANDS).all(|(one, any)| verbs(one) == verbs(any)), "{commands:?}");
    }
}
