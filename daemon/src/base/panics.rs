//! What the process tells of a panic. A panic's message may quote a customer's data or a secret, so only its place is
//! told.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind};

thread_local! {
    /// On while this thread runs a call that may panic and whose panic is an answer.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Sets the hook for the panics of this process.
#[expect(clippy::print_stderr, reason = "a panic before the logs are set up must be reported, too")]
pub fn tell_places_only(logged: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        if EXPECTED.get() {
            return;
        }
        let place = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        if logged {
            tracing::error!(place, "a panic was caught");
        } else {
            eprintln!("callbackd: there is a defect at {place}; please report it");
        }
    }));
}

/// Calls a function of a library that panics where it should return an error. `None` if it panicked; nothing is logged
/// then. For our own code a panic is a defect, so it never goes through here.
pub fn caught<T>(call: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    let outer = EXPECTED.replace(true);
    let result = catch_unwind(call);
    EXPECTED.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_panic_is_an_answer() {
        let text = |bytes: &'static [u8]| caught(move || std::str::from_utf8(bytes).expect("text"));
        assert_eq!(text(b"event-id"), Some("event-id"));
        assert_eq!(text(b"\xff"), None);
        assert!(!EXPECTED.get(), "the next panic is told");
        assert_eq!(caught(|| text(b"\xff").is_none() && EXPECTED.get()), Some(true), "calls may be nested");
    }
}
