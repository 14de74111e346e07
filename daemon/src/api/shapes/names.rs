//! Closed sets of names in the API's document. They are printed from the model's own lists. What is sent and received is
//! text; `ops` says which names it takes.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::base::named::Named;
use crate::intake::partition::AcceptFrom;
use crate::model::attempt::Outcome;
use crate::model::dead_letter::{LetterState, Unreadable};
use crate::model::permission::Right;
use crate::model::retry::Reason;
use crate::model::state::State;
use crate::model::team::{AuthForm, HttpPolicy, KeyKind, Mode};
use crate::ops::endpoints::EndpointState;
use crate::ops::resets::ResetState;
use crate::store::resends::ResendState;

macro_rules! documented {
    ($($set:ident $named:ty)*) => {
        $(
            #[doc = concat!("The names of [`", stringify!($named), "`], for the document alone.")]
            pub enum $set {}

            impl PartialSchema for $set {
                fn schema() -> RefOr<Schema> {
                    one_of(<$named as Named>::ALL)
                }
            }

            impl ToSchema for $set {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($set))
                }
            }
        )*
    };
}

documented! {
    ModeName Mode
    KindName KeyKind
    AuthFormName AuthForm
    HttpName HttpPolicy
    StartName AcceptFrom
    StateName State
    ReasonName Reason
    OutcomeName Outcome
    UnreadableName Unreadable
    LetterStateName LetterState
    EndpointStateName EndpointState
    ResendStateName ResendState
    ResetStateName ResetState
}

fn one_of<T: Named>(all: &[T]) -> RefOr<Schema> {
    let names = all.iter().map(|value| Named::name(*value));
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

/// A set of rights, as text.
pub enum ScopeName {}

impl PartialSchema for ScopeName {
    fn schema() -> RefOr<Schema> {
        let names: Vec<_> = Right::ALL.iter().map(|right| right.name()).collect();
        let one = format!("({})", names.join("|"));
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("One right or several, with a space between them. operate includes read."))
            .pattern(Some(format!("^{one}( {one})*$")))
            .into()
    }
}

impl ToSchema for ScopeName {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ScopeName")
    }
}
