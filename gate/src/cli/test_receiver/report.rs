//! What a receiver did with the cases, for people, for programs and for continuous integration. Nothing here sends anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use scale_callback_serve::text::printable;
use serde_json::{Value, json};

use crate::conformance::{Form, Outcome, Verdict, against_known};

/// How much of a name or an answer is printed, in bytes.
const SHOWN: usize = 200;

/// The outcome of a test.
pub(super) struct Report<'r> {
    pub(super) form: Form,
    pub(super) outcomes: &'r [Outcome],
    /// The names of cases that the receiver is known to answer wrongly.
    pub(super) known: &'r BTreeSet<String>,
}

impl Report<'_> {
    /// What is wrong and not known.
    pub(super) fn new_ones(&self) -> Vec<&Outcome> {
        against_known(self.outcomes, self.known).0
    }

    /// What is known and no longer wrong.
    pub(super) fn gone(&self) -> Vec<String> {
        against_known(self.outcomes, self.known).1
    }

    /// Lines for a person: what matters most comes first. With `all`, right cases have a line too.
    pub(super) fn human(&self, all: bool) -> Vec<String> {
        let mut shown: Vec<&Outcome> = if all { self.outcomes.iter().collect() } else { self.new_ones() };
        shown.sort_by_key(|outcome| rank(&outcome.verdict));
        let mut lines: Vec<_> = shown.iter().map(|outcome| line(outcome)).collect();
        lines.extend(
            self.gone().iter().map(|name| format!("known, and no longer so: {}", printable(name.as_bytes(), SHOWN))),
        );
        lines.push(self.summary());
        let wrong = self.new_ones();
        if wrong.iter().any(|outcome| matches!(outcome.verdict, Verdict::TooLenient(_))) {
            lines.push(
                "too lenient: only who has the key can make such a request, so it forges nothing; docs/receivers.md says why \
                 to refuse it, and --known takes a list of those that you accept"
                    .to_owned(),
            );
        }
        if !wrong.is_empty() {
            lines.push(
                "docs/receivers.md has the rules; --case NAME sends one case again and prints its request".to_owned(),
            );
        }
        lines
    }

    fn summary(&self) -> String {
        let count = |name: &str| self.counted(name);
        let known = self.known_count();
        let deviations = if self.known.is_empty() { String::new() } else { format!(", {known} known deviations") };
        format!(
            "{} cases of the form {}: {} right, {} forgeries accepted, {} wrongly refused, {} failed, {} too lenient{deviations}",
            self.outcomes.len(),
            self.form.name(),
            self.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Right).count(),
            count("forgery_accepted"),
            count("wrongly_refused"),
            count("failed"),
            count("too_lenient"),
        )
    }

    /// How many new outcomes have this verdict.
    fn counted(&self, name: &str) -> usize {
        self.new_ones().iter().filter(|outcome| outcome.verdict.name() == name).count()
    }

    fn known_count(&self) -> usize {
        self.outcomes.iter().filter(|outcome| self.is_known(outcome)).count()
    }

    fn is_known(&self, outcome: &Outcome) -> bool {
        outcome.verdict != Verdict::Right && self.known.contains(&outcome.case)
    }

    /// Everything, for a program.
    pub(super) fn json(&self) -> Value {
        let case = |outcome: &Outcome| {
            let reason = outcome.verdict.reason();
            json!({
                "case": outcome.case,
                "verdict": outcome.verdict.name(),
                "answer": outcome.answer,
                "reason": reason,
                "rule": reason.map(rule),
                "known": self.is_known(outcome),
            })
        };
        json!({
            "form": self.form.name(),
            "cases": self.outcomes.iter().map(case).collect::<Vec<_>>(),
            "forgeries_accepted": self.counted("forgery_accepted"),
            "wrongly_refused": self.counted("wrongly_refused"),
            "failed": self.counted("failed"),
            "too_lenient": self.counted("too_lenient"),
            "known": self.known_count(),
            "no_longer_known": self.gone(),
        })
    }

    /// Everything as JUnit's XML. A case that is too lenient, or known, counts as skipped: it fails no build.
    pub(super) fn junit(&self) -> String {
        let fails = |outcome: &Outcome| {
            !self.is_known(outcome) && !matches!(outcome.verdict, Verdict::Right | Verdict::TooLenient(_))
        };
        let gone = self.gone();
        let failures = self.outcomes.iter().filter(|outcome| fails(outcome)).count() + gone.len();
        let wrong = self.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right).count();
        let tests = self.outcomes.len() + gone.len();
        let skipped = wrong - (failures - gone.len());
        let form = self.form.name();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"scale-callback test-receiver\" tests=\"{tests}\" \
             failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n"
        );
        for outcome in self.outcomes {
            let (name, told) = (xml(&outcome.case), xml(&line(outcome)));
            let kind = outcome.verdict.name();
            let inner = match &outcome.verdict {
                Verdict::Right => String::new(),
                _ if fails(outcome) => format!("<failure type=\"{kind}\" message=\"{told}\"/>"),
                _ => format!("<skipped message=\"{told}\"/>"),
            };
            // Writing to a string cannot fail.
            writeln!(text, "  <testcase classname=\"{form}\" name=\"{name}\">{inner}</testcase>").ok();
        }
        for name in gone {
            let name = xml(&name);
            let told = "known, and no longer so";
            writeln!(
                text,
                "  <testcase classname=\"known\" name=\"{name}\"><failure type=\"no_longer_known\" message=\"{told}\"/></testcase>"
            )
            .ok();
        }
        text + "</testsuite>"
    }
}

/// What a person reads first.
fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::ForgeryAccepted(_) => 0,
        Verdict::WronglyRefused => 1,
        Verdict::Failed => 2,
        Verdict::TooLenient(_) => 3,
        Verdict::Right => 4,
    }
}

/// The line of one case.
pub(super) fn line(outcome: &Outcome) -> String {
    let verdict = match &outcome.verdict {
        Verdict::Right => "right".to_owned(),
        Verdict::ForgeryAccepted(why) => format!("FORGERY ACCEPTED, rule {}, {why}", rule(why)),
        Verdict::TooLenient(why) => format!("too lenient, rule {}, {why}", rule(why)),
        Verdict::WronglyRefused => "WRONGLY REFUSED".to_owned(),
        Verdict::Failed => "FAILED".to_owned(),
    };
    let (case, answer) = (printable(outcome.case.as_bytes(), SHOWN), printable(outcome.answer.as_bytes(), SHOWN));
    format!("{verdict}: {case} ({answer})")
}

/// The rule of docs/receivers.md that a refusal's reason belongs to.
fn rule(why: &str) -> u8 {
    match why {
        "too_large" => 1,
        "id_duplicate" | "timestamp_duplicate" | "auth_duplicate" | "too_many_signatures" | "header_too_long" => 2,
        "id_missing" | "id_invalid" | "timestamp_missing" | "timestamp_invalid" => 3,
        "timestamp_too_old" | "timestamp_too_new" => 4,
        "signature_missing" | "signature_mismatch" => 5,
        "test_refused" => 7,
        _ => 6,
    }
}

/// Text inside an attribute of XML.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text.as_bytes(), text.len()).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            c => safe.push(c),
        }
    }
    safe
}
