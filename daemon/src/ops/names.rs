//! Turns the names that people write into values. API and operations read every name here, so that
//! a wrong one gets the same sentence everywhere.

use scale_callback_serve::text::printable;

use super::OpsError;
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
}
