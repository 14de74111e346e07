//! One POST: from a target and a signed body to a response head, a capped body, or a typed failure of the phase that
//! failed. Knows nothing of teams' keys, retries or stores.

pub mod check;
pub mod conn;
pub mod dial;
pub mod dns;
pub mod egress;
pub mod exchange;
pub mod probe;
pub mod target;
pub mod tls;
mod watched;
