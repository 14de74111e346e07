//! Reading a body with a limit. No body is read whole in any other way, so no sender can fill the memory.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;

/// The whole body, if it has at most `limit` bytes.
///
/// # Errors
/// The body is longer, or it broke off.
pub async fn whole<B>(body: B, limit: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let collected = Limited::new(body, limit).collect().await?;
    Ok(collected.to_bytes())
}
