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
                <Self as $crate::base::named::Named>::parse(name)
            }
        }

        impl $crate::base::named::Named for $set {
            const ALL: &'static [Self] = $set::ALL;

            fn name(self) -> &'static str {
                $set::name(self)
            }
        }
    };
}

pub(crate) use named;
