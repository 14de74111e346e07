//! The findings of a check before the start.

/// Whether the daemon can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// The daemon can run, but the operator should know this.
    Warning,
    Failed,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone)]
pub struct Finding {
    pub verdict: Verdict,
    pub what: String,
    pub detail: String,
    /// What to do, if something must be done.
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), detail: detail.into(), fix: None }
    }

    pub fn warning(what: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, fix: Some(fix.into()), ..Self::ok(what, detail) }
    }

    pub fn failed(what: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, fix: Some(fix.into()), ..Self::ok(what, detail) }
    }
}
