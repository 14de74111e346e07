//! Reading a body: within its size, its time, a least rate, and the room that all bodies share.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use memmap2::MmapMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::Refusal;
use super::{Bounds, Inner};

/// Room is counted in pieces of this many bytes.
pub(super) const UNIT: usize = 4096;
/// A head that waits with its body, or the buffer that both came in.
const HEAD: usize = 12 * 1024;
/// Bytes of a large body that are read, or verified, without a rest.
pub(super) const STRETCH: usize = 64 * 1024;
/// How many pieces are taken without a look at the time.
const AT_ONCE: usize = 64;
/// The least rate, in bytes a second, once [`GRACE`] has passed.
const LEAST: u64 = 4096;
const GRACE: Duration = Duration::from_secs(3);
/// For the rest of a body that nobody reads.
const A_MOMENT: Duration = Duration::from_millis(500);
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

/// A body as it comes in.
pub(super) struct Reading<'r> {
    body: Incoming,
    gate: &'r Inner,
    held: Option<OwnedSemaphorePermit>,
    whole: Pieces,
    announced: Option<usize>,
    began: Instant,
    last: Instant,
    /// How much came in all, also where it was too much.
    taken: &'r mut usize,
    /// How much had come at the last rest.
    rested: usize,
    ended: bool,
}

impl<'r> Reading<'r> {
    /// # Errors
    /// More was announced than a body may hold.
    pub(super) fn new(
        body: Incoming,
        announced: Option<usize>,
        taken: &'r mut usize,
        gate: &'r Inner,
    ) -> Result<Self, Refusal> {
        if announced.is_some_and(|length| length > gate.bounds.body) {
            return Err(Refusal::TooLarge);
        }
        let began = Instant::now();
        let whole = Pieces::new(announced.unwrap_or(gate.bounds.body));
        Ok(Self { body, gate, taken, held: None, whole, announced, began, last: began, rested: 0, ended: false })
    }

    /// Takes what is there without waiting, and says whether that was all: most bodies need no timer.
    pub(super) async fn is_there(&mut self) -> Result<bool, Refusal> {
        for _ in 0..AT_ONCE {
            if self.ended {
                return Ok(true);
            }
            if self.whole.len() - self.rested >= STRETCH {
                break;
            }
            let at_once = poll_fn(|cx| match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => Poll::Ready(None),
            });
            match at_once.await {
                Some(frame) => self.push(frame)?,
                None => return Ok(false),
            }
        }
        Ok(self.ended)
    }

    /// Waits for the rest.
    pub(super) async fn finish(&mut self) -> Result<(), Refusal> {
        let end = self.began + self.gate.bounds.whole_body;
        while !self.is_there().await? {
            if self.whole.len() - self.rested >= STRETCH {
                self.gate.refusals.rest().await;
                self.rested = self.whole.len();
                continue;
            }
            // Its head waits with it.
            self.take(0)?;
            let rate = self.began + GRACE + Duration::from_secs(self.whole.len() as u64 / LEAST);
            let due = end.min(rate).min(self.last + GRACE);
            let frame = timeout_at(due, self.body.frame()).await.map_err(|_| Refusal::TooSlow)?;
            self.push(frame)?;
            self.last = Instant::now();
        }
        Ok(())
    }

    /// What came.
    pub(super) fn into_held(self) -> Held {
        Held { bytes: self.whole.into_bytes(), _room: self.held }
    }

    /// Reads on for a moment and keeps nothing: clients that still send lose an answer that comes before they are done.
    pub(super) async fn discard(mut self) {
        let rest = async {
            let mut left = SMALL;
            while let Some(Ok(frame)) = self.body.frame().await {
                left = match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(left) => left,
                    None => break,
                };
            }
        };
        let _ = timeout(A_MOMENT, rest).await;
    }

    fn push(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Result<(), Refusal> {
        let frame = match frame {
            None => {
                self.ended = true;
                // A stream of HTTP/2 may end early and say that nothing is wrong.
                let is_whole = self.announced.is_none_or(|length| length == self.whole.len());
                return if is_whole { Ok(()) } else { Err(Refusal::Broken) };
            }
            Some(frame) => frame.map_err(|_| Refusal::Broken)?,
        };
        // Trailers are nobody's: nothing signs them.
        let Ok(data) = frame.into_data() else { return Ok(()) };
        *self.taken += data.len();
        if self.whole.len() + data.len() > self.gate.bounds.body {
            return Err(Refusal::TooLarge);
        }
        self.take(data.len())?;
        self.whole.push(data)
    }

    /// Takes room for so much more than is there. It is taken for what came, not for what was announced: an
    /// announcement costs its sender nothing.
    fn take(&mut self, more: usize) -> Result<(), Refusal> {
        take(&mut self.held, &self.gate.room, HEAD + self.whole.len() + more, &self.gate.bounds)
    }
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
    if bytes > HEAD + SMALL && left < bounds.bodies / UNIT / 4 {
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

/// What came of a body: most come in one piece, which is not copied. A large one has pages of its own, which go back
/// to the system at once.
struct Pieces {
    /// As long as it may become.
    longest: usize,
    first: Bytes,
    rest: Vec<u8>,
    pages: Option<MmapMut>,
    /// How much of the pages is filled.
    filled: usize,
}

impl Pieces {
    fn new(longest: usize) -> Self {
        Self { longest, first: Bytes::new(), rest: Vec::new(), pages: None, filled: 0 }
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len() + self.filled
    }

    fn push(&mut self, data: Bytes) -> Result<(), Refusal> {
        if self.len() + data.len() > self.longest {
            return Err(Refusal::Broken);
        }
        if let Some(pages) = &mut self.pages {
            pages[self.filled..self.filled + data.len()].copy_from_slice(&data);
            self.filled += data.len();
            return Ok(());
        }
        if self.len() == 0 && data.len() <= SMALL {
            self.first = data;
            return Ok(());
        }
        if self.len() + data.len() > SMALL {
            self.pages = Some(pages(self.longest).map_err(|_| Refusal::Overloaded)?);
            for piece in [std::mem::take(&mut self.first), std::mem::take(&mut self.rest).into(), data] {
                self.push(piece)?;
            }
            return Ok(());
        }
        // No more than what came, and a little: it is room that was counted.
        let first = std::mem::take(&mut self.first);
        self.rest.reserve_exact((first.len() + data.len()).max(UNIT));
        self.rest.extend_from_slice(&first);
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        match self.pages {
            Some(pages) => Bytes::from_owner(pages).slice(..self.filled),
            None if self.rest.is_empty() => self.first,
            None => self.rest.into(),
        }
    }
}

/// Pages that take memory as they are written to, one small one after another.
fn pages(length: usize) -> std::io::Result<MmapMut> {
    let pages = MmapMut::map_anon(length)?;
    // Without this the first byte may cost 2 MiB. A kernel that knows no huge pages refuses, and needs it not.
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::NoHugePage);
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_whatever_the_pieces_it_comes_in() {
        for length in [0, 1, 2_048, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL, 300_000] {
            let body: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            for size in [1, 7, 4_096, SMALL - 1, SMALL, SMALL + 1, 1 << 20] {
                let mut pieces = Pieces::new(length);
                for piece in body.chunks(size) {
                    assert!(pieces.push(Bytes::copy_from_slice(piece)).is_ok());
                }
                assert_eq!(pieces.len(), length);
                assert!(pieces.push(Bytes::from_static(b"x")).is_err(), "more than was announced");
                assert!(pieces.into_bytes() == body, "{length} bytes in pieces of {size}");
            }
        }
    }
}
