//! The one kind of hash that is stored and compared.

/// A SHA-256.
pub type Hash = [u8; 32];
