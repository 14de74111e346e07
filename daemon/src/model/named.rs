//! Closed sets of values that each have one name. The name is the same in the store's rows, in metrics, in the API, in
//! the command line and in the documents, and it is written here once: every list of names is made from `ALL`.

/// A value of a closed set, with its name.
pub trait Named: Copy + Sized + 'static {
    /// Every value, in the order in which lists and documents show them.
    const ALL: &'static [Self];

    fn name(self) -> &'static str;

    /// The value of this name.
    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name() == name)
    }
}

/// Defines an enum with a name for each variant. `ALL`, `name` and `parse` are made from that one list, so that a new
/// variant can't be forgotten in any of them.
macro_rules! named {
    ($(#[$doc:meta])* $visible:vis enum $set:ident { $($(#[$about:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visible enum $set { $($(#[$about])* $variant,)+ }

        impl $set {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub fn parse(name: &str) -> Option<Self> {
                <Self as $crate::model::named::Named>::parse(name)
            }
        }

        impl $crate::model::named::Named for $set {
            const ALL: &'static [Self] = $set::ALL;

            fn name(self) -> &'static str {
                $set::name(self)
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
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
}
