//! Reading a body with a limit: the only way a body is read whole.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;

/// The whole body, if it has at most `limit` bytes.
///
/// # Errors
/// It is longer, or broke off.
pub async fn whole<B>(body: B, limit: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    #[expect(clippy::disallowed_methods, reason = "it is limited")]
    let collected = Limited::new(body, limit).collect().await?;
    Ok(collected.to_bytes())
}
