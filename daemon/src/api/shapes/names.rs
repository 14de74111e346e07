//! Closed sets of names, for the document alone: what is sent is text, and `ops` says which it takes.

use utoipa::ToSchema;

macro_rules! names {
    ($($(#[$doc:meta])* $set:ident $rename:literal { $($name:ident),* })*) => {
        $($(#[$doc])*
        #[derive(ToSchema)]
        #[schema(rename_all = $rename)]
        pub enum $set { $($name),* })*
    };
}

names! {
    /// Live or test.
    ModeName "snake_case" { Live, Test }
    KindName "kebab-case" { CallbackAuth, Hmac, Signing }
    /// Operate includes read.
    ScopeName "snake_case" { Read, Operate }
    AuthFormName "snake_case" { Key, Hmac }
    HttpName "kebab-case" { Allow, HmacOnly, Refuse }
    StartName "snake_case" { Earliest, Committed, End }
    StateName "snake_case" { Pending, Delivered, Exhausted, Abandoned }
    EndpointStateName "snake_case" { Active, Limited }
}
