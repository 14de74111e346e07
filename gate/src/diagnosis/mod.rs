//! Why a captured request does not verify, explained to the customer who holds its secret. This is for files on the
//! customer's own disk only: what is said here would help a forger, so no server ever answers with it.

mod capture;
mod explain;
mod rewritten;

pub use capture::{Capture, CaptureError, Finding, text_of};

#[cfg(test)]
mod tests;
