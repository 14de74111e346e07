//! What can be wrong: with a key, with a request, with a body.

use core::fmt;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// A stable name for logs and tests.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }

        impl core::error::Error for $name {}
    };
}

coded! {
    /// A key or secret that can't be used.
    KeyError {
        /// Nothing was given.
        Empty => "key_empty", "the key is empty";
        /// White space around or inside the key: mostly a line end from a file.
        Whitespace => "key_whitespace", "the key contains white space";
        /// The prefix is not that of this kind of key.
        Prefix => "key_prefix", "the key does not begin with the prefix of its kind";
        /// The part after the prefix has the wrong length or alphabet.
        Malformed => "key_malformed", "the part after the key's prefix has the wrong length or alphabet";
        /// A signing secret must be 24 to 64 bytes.
        Length => "secret_length", "the signing secret must hold 24 to 64 bytes";
    }
}

coded! {
    /// Why a request was not accepted. Answer 401 to each of these and say no more to the caller.
    VerifyError {
        /// `webhook-id` is missing.
        IdMissing => "id_missing", "webhook-id is missing";
        /// `webhook-id` stands more than once.
        IdDuplicate => "id_duplicate", "webhook-id stands more than once";
        /// `webhook-id` is not 1 to 64 of `A-Z a-z 0-9 _ -`.
        IdInvalid => "id_invalid", "webhook-id has a form that is never sent";
        /// `webhook-timestamp` is missing.
        TimestampMissing => "timestamp_missing", "webhook-timestamp is missing";
        /// `webhook-timestamp` stands more than once.
        TimestampDuplicate => "timestamp_duplicate", "webhook-timestamp stands more than once";
        /// `webhook-timestamp` is not a plain number of 1 to 12 digits.
        TimestampInvalid => "timestamp_invalid", "webhook-timestamp is not a plain number";
        /// More than 300 s old.
        TimestampTooOld => "timestamp_too_old", "webhook-timestamp is too old";
        /// More than 300 s ahead of this clock.
        TimestampTooNew => "timestamp_too_new", "webhook-timestamp lies in the future";
        /// `webhook-signature` is missing though a credential needs it.
        SignatureMissing => "signature_missing", "webhook-signature is missing";
        /// More than 16 signatures.
        TooManySignatures => "too_many_signatures", "webhook-signature holds too many signatures";
        /// More than 4 KiB of signature header.
        HeaderTooLong => "header_too_long", "an authentication header is too long";
        /// No signature matches.
        SignatureMismatch => "signature_mismatch", "no signature matches";
        /// `scale-callback-auth` is missing though a credential needs it.
        AuthMissing => "auth_missing", "scale-callback-auth is missing";
        /// `scale-callback-auth` stands more than once.
        AuthDuplicate => "auth_duplicate", "scale-callback-auth stands more than once";
        /// The `t=...,v1=...` form was expected and something else came.
        AuthMalformed => "auth_malformed", "scale-callback-auth is not in the hmac form";
        /// The `t` of the hmac form is not `webhook-timestamp`.
        AuthTimestampDiffers => "auth_timestamp_differs", "scale-callback-auth names another time";
        /// The key or its HMAC is not the expected one.
        AuthMismatch => "auth_mismatch", "scale-callback-auth does not match";
        /// The request is a test callback and the verifier requires live ones.
        TestRefused => "test_refused", "a test callback where only live ones are accepted";
    }
}

coded! {
    /// A verified body that is not a callback. Answer 400.
    ParseError {
        /// Not JSON, or not an object.
        NotJson => "not_json", "the body is not a JSON object";
        /// `task` or `task_id` is missing or has the wrong type.
        NotACallback => "not_a_callback", "the body lacks task or task_id";
    }
}
