//! Turns the names that people write into values. API and operations read every name here, so that
//! a wrong one gets the same sentence everywhere.

use scale_callback_serve::text::printable;

use super::OpsError;
use crate::base::clock::Timestamp;
use crate::base::named::Named;

/// The value of a name that may be left out. `field` is what the name was given for.
///
/// # Errors
/// `invalid_request`, with the names that there are.
pub fn named<T: Named>(field: &str, given: Option<&str>) -> Result<Option<T>, OpsError> {
    given.map(|name| required(field, name)).transpose()
}

/// The value of a name.
///
/// # Errors
/// The same errors as [`named`].
pub fn required<T: Named>(field: &str, name: &str) -> Result<T, OpsError> {
    T::parse(name).ok_or_else(|| {
        let names: Vec<_> = T::ALL.iter().map(|value| value.name()).collect();
        OpsError::invalid(format!("{field} is one of {}", names.join(", ")))
    })
}

/// Checks the begin and the end of a search.
///
/// # Errors
/// `invalid_request` if no time lies between them.
pub(super) fn check_range(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), OpsError> {
    match (since, until) {
        (Some(since), Some(until)) if since >= until => Err(OpsError::invalid(format!(
            "since ({since}) must be earlier than until ({until}): nothing lies between them"
        ))),
        _ => Ok(()),
    }
}

/// The error for a text that is not an id of this kind.
pub(super) fn malformed(what: &str, prefix: &str, text: &str) -> OpsError {
    let shown = printable(text.as_bytes(), 64);
    OpsError::invalid(format!("{shown:?} is no {what} id; one is {prefix} and 26 characters"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::State;
    use crate::model::team::Mode;

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        assert_eq!(named::<Mode>("mode", None).ok(), Some(None));
        assert_eq!(named("mode", Some("test")).ok(), Some(Some(Mode::Test)));
        let refused = required::<State>("state", "lost").expect_err("no such state");
        assert_eq!(refused.to_string(), "state is one of pending, delivered, exhausted, abandoned");
    }

    #[test]
    fn a_search_that_ends_before_it_begins_is_refused() {
        let at = |millis| Some(Timestamp::from_millis(millis));
        assert!(
            check_range(at(1), at(2)).is_ok() && check_range(at(2), None).is_ok() && check_range(None, at(2)).is_ok()
        );
        for (since, until) in [(2, 1), (2, 2)] {
            let refused = check_range(at(since), at(until)).expect_err("nothing lies between");
            assert!(refused.to_string().contains("must be earlier than until"), "{refused}");
        }
    }
}
