//! Every closed set of this room: its names are distinct, and each reads back as its value.

use std::collections::BTreeSet;

use crate::base::named::Named;
use crate::model::attempt::Outcome;
use crate::model::dead_letter::Unreadable;
use crate::model::permission::Right;
use crate::model::retry::Reason;
use crate::model::team::{AuthForm, HttpPolicy, KeyKind, KeyState, Mode};

fn holds<T: Named + PartialEq + std::fmt::Debug>() {
    let names: BTreeSet<_> = T::ALL.iter().map(|value| value.name()).collect();
    assert_eq!(names.len(), T::ALL.len(), "two values of one name in {names:?}");
    for value in T::ALL {
        assert_eq!(T::parse(value.name()), Some(*value));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        assert!(value.name().chars().all(plain), "{value:?} has the name {:?}", value.name());
    }
    assert_eq!(T::parse("no such name"), None);
    assert_eq!(T::parse(""), None);
}

#[test]
fn names_are_distinct_and_parse_back() {
    holds::<Outcome>();
    holds::<Reason>();
    holds::<Unreadable>();
    holds::<Right>();
    holds::<Mode>();
    holds::<AuthForm>();
    holds::<HttpPolicy>();
    holds::<KeyKind>();
    holds::<KeyState>();
}
