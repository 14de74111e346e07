//! What can be wrong with a key, with a request, or with a body.

use core::fmt;

/// Defines an error enum whose variants each have a stable code and a sentence.
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
    /// Why a key or secret can't be used. No variant quotes the key.
    KeyError {
        /// The text is empty.
        Empty => "key_empty", "the key is empty";
        /// There is white space around or inside the key. Often it is the line end of a file.
        Whitespace => "key_whitespace", "the key contains white space";
        /// The text does not begin with the prefix of this kind of key.
        Prefix => "key_prefix", "the key does not begin with the prefix of its kind";
        /// The part after the prefix has the wrong length or alphabet.
        Malformed => "key_malformed", "the part after the key's prefix has the wrong length or alphabet";
        /// A signing secret must hold 24 to 64 bytes after decoding.
        Length => "secret_length", "the signing secret must hold 24 to 64 bytes";
    }
}

coded! {
    /// Why a request was refused. Answer 401 to each of these, without the reason: it would help an attacker.
    VerifyError {
        /// There is no `webhook-id`.
        IdMissing => "id_missing", "webhook-id is missing";
        /// There is more than one `webhook-id`.
        IdDuplicate => "id_duplicate", "webhook-id occurs more than once";
        /// `webhook-id` is not 1 to 64 characters of `A-Z a-z 0-9 _ -`.
        IdInvalid => "id_invalid", "webhook-id is not a valid id";
        /// There is no `webhook-timestamp`.
        TimestampMissing => "timestamp_missing", "webhook-timestamp is missing";
        /// There is more than one `webhook-timestamp`.
        TimestampDuplicate => "timestamp_duplicate", "webhook-timestamp occurs more than once";
        /// `webhook-timestamp` is not a number of 1 to 12 digits, without sign, leading zero or fraction.
        TimestampInvalid => "timestamp_invalid", "webhook-timestamp is not a plain number";
        /// `webhook-timestamp` is more than 300 s before now.
        TimestampTooOld => "timestamp_too_old", "webhook-timestamp is too old";
        /// `webhook-timestamp` is more than 300 s after now.
        TimestampTooNew => "timestamp_too_new", "webhook-timestamp is in the future";
        /// There is no `webhook-signature`, but a credential needs it.
        SignatureMissing => "signature_missing", "webhook-signature is missing";
        /// There are more than 16 signatures.
        TooManySignatures => "too_many_signatures", "webhook-signature holds too many signatures";
        /// The `webhook-signature` headers have more than 4 KiB, or `scale-callback-auth` has more than 256 bytes.
        HeaderTooLong => "header_too_long", "an authentication header is too long";
        /// None of the signatures is the expected one.
        SignatureMismatch => "signature_mismatch", "no signature matches";
        /// There is no `scale-callback-auth`, but a credential needs it.
        AuthMissing => "auth_missing", "scale-callback-auth is missing";
        /// There is more than one `scale-callback-auth`.
        AuthDuplicate => "auth_duplicate", "scale-callback-auth occurs more than once";
        /// `scale-callback-auth` does not have the expected form `t=...,v1=...`.
        AuthMalformed => "auth_malformed", "scale-callback-auth is not in the hmac form";
        /// The `t` of the `hmac` form differs from `webhook-timestamp`.
        AuthTimestampDiffers => "auth_timestamp_differs", "the time in scale-callback-auth is not webhook-timestamp";
        /// The key, or the HMAC made with it, is not the expected one.
        AuthMismatch => "auth_mismatch", "scale-callback-auth does not match";
        /// This is a test callback, and the verifier accepts only live ones.
        TestRefused => "test_refused", "this is a test callback, and only live ones are accepted";
    }
}

coded! {
    /// Why a verified body is not a callback. Answer 400.
    ParseError {
        /// The body is not JSON, or not an object.
        NotJson => "not_json", "the body is not a JSON object";
        /// `task` or `task_id` is missing or has the wrong type.
        NotACallback => "not_a_callback", "the body lacks task or task_id";
    }
}
