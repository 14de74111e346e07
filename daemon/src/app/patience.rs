//! A start asks a store again that was open just now and does not answer.

use std::time::{Duration, Instant};

use crate::base::pace::Pace;
use crate::store::{Answer, StoreError};

/// How long a start asks a store again that was open just now and does not answer: a server may be full, or restart.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the store, and asks again while it is away.
pub(super) async fn patiently<'s, T: Send + 's>(ask: impl Fn() -> Answer<'s, T>) -> Result<T, StoreError> {
    let end = Instant::now() + PATIENCE;
    let mut pace = Pace::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match ask().await {
            Err(StoreError::Unavailable(why) | StoreError::Uncertain(why)) if Instant::now() < end => {
                tracing::warn!(why, "the store does not answer the start; it is asked again");
                tokio::time::sleep(pace.next_wait()).await;
            }
            answer => return answer,
        }
    }
}
