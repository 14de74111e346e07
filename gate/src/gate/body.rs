//! Reading a body: within its size, its time, a least rate, and the room that all bodies share.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Bounds;
use super::admission::Refusal;

/// Room is counted in pieces of this many bytes.
pub(super) const UNIT: usize = 4096;
/// The least rate, in bytes a second, once [`GRACE`] has passed.
const LEAST: u64 = 4096;
const GRACE: Duration = Duration::from_secs(3);
/// Bodies up to this size find room that larger ones leave to them.
const SMALL: usize = 64 * 1024;

/// A body, and the room that it takes until it is dropped.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// The length that was announced.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) async fn read(
    mut body: Incoming,
    announced: Option<usize>,
    room: &Arc<Semaphore>,
    bounds: &Bounds,
) -> Result<Held, Refusal> {
    if announced.is_some_and(|length| length > bounds.body) {
        return Err(Refusal::TooLarge);
    }
    // Room is taken for what came, not for what was announced: an announcement costs its sender nothing.
    let mut held = None;
    let began = Instant::now();
    let end = began + bounds.whole_body;
    let mut last = began;
    let mut whole = Pieces::default();
    loop {
        let rate = began + GRACE + Duration::from_secs(whole.len() as u64 / LEAST);
        let due = end.min(rate).min(last + GRACE);
        let frame = match at_once(&mut body).await {
            Some(frame) => frame,
            None => {
                // Its head waits with it.
                take(&mut held, room, UNIT + whole.len(), bounds)?;
                timeout_at(due, body.frame()).await.map_err(|_| Refusal::TooSlow)?
            }
        };
        let frame = match frame {
            None => break,
            Some(Err(_)) => return Err(Refusal::Broken),
            Some(Ok(frame)) => frame,
        };
        // Trailers are nobody's: nothing signs them.
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > bounds.body {
            return Err(Refusal::TooLarge);
        }
        take(&mut held, room, UNIT + whole.len() + data.len(), bounds)?;
        whole.push(data);
        last = Instant::now();
    }
    Ok(Held { bytes: whole.into_bytes(), _room: held })
}

/// What is there without waiting: most often the whole body, which needs no timer then.
async fn at_once(body: &mut Incoming) -> Option<Option<Result<Frame<Bytes>, hyper::Error>>> {
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Takes room for `bytes` in all.
fn take(
    held: &mut Option<OwnedSemaphorePermit>,
    room: &Arc<Semaphore>,
    bytes: usize,
    bounds: &Bounds,
) -> Result<(), Refusal> {
    let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = bytes.div_ceil(UNIT).saturating_sub(has);
    if more == 0 {
        return Ok(());
    }
    // A quarter of the room is for small bodies: few large ones do not keep everybody out.
    let left = room.available_permits().saturating_sub(more);
    if bytes > UNIT + SMALL && left < bounds.bodies / UNIT / 4 {
        return Err(Refusal::Overloaded);
    }
    let more = u32::try_from(more).map_err(|_| Refusal::TooLarge)?;
    let permit = Arc::clone(room).try_acquire_many_owned(more).map_err(|_| Refusal::Overloaded)?;
    match held {
        Some(held) => held.merge(permit),
        None => *held = Some(permit),
    }
    Ok(())
}

/// A body as it comes: most come in one piece, which is not copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    rest: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = data;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.rest.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
