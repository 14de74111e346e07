//! Reading a body within its size, its time, a least rate, and the room that all bodies share. Nothing here looks at what
//! a body says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use scale_callback_serve::refusal_pace::RefusalPace;
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::Refusal;
use super::pieces::{PieceError, Pieces, SMALL};
use super::room::{NoRoom, Room, Share};

/// Bytes of a large body that are read, or verified, without a rest.
pub(super) const STRETCH: usize = 64 * 1024;
/// How many frames are read in one go, without a timer.
const FRAMES_AT_ONCE: usize = 64;
/// The least rate, in bytes a second, once [`GRACE`] has passed.
const LEAST_RATE: u64 = 4096;
const GRACE: Duration = Duration::from_secs(3);
/// How long the rest of a refused body is read.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// What bounds the reading of every body.
pub(super) struct BodyBounds {
    /// Bytes of one body.
    pub(super) most: usize,
    /// The time for a whole body.
    pub(super) time: Duration,
    /// The room that all bodies share.
    pub(super) room: Room,
    /// Large bodies rest between their stretches as this pace says.
    pub(super) pace: Arc<RefusalPace>,
}

/// A whole body, with the room that it holds until it is dropped.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _share: Share,
}

/// The length that a request announces.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body while it is read.
pub(super) struct Reading<'r> {
    body: Incoming,
    bounds: &'r BodyBounds,
    share: Share,
    pieces: Pieces,
    announced: Option<usize>,
    began: Instant,
    last_frame: Instant,
    /// How many bytes arrived, also where they were too many.
    bytes_read: &'r mut usize,
    /// How many had arrived at the last rest.
    rested_at: usize,
    ended: bool,
}

impl<'r> Reading<'r> {
    /// # Errors
    /// The request announces more than a body may hold.
    pub(super) fn new(
        body: Incoming,
        announced: Option<usize>,
        bytes_read: &'r mut usize,
        bounds: &'r BodyBounds,
    ) -> Result<Self, Refusal> {
        if announced.is_some_and(|length| length > bounds.most) {
            return Err(Refusal::TooLarge);
        }
        let began = Instant::now();
        Ok(Self {
            body,
            bounds,
            share: Share::default(),
            pieces: Pieces::new(announced.unwrap_or(bounds.most)),
            announced,
            began,
            last_frame: began,
            bytes_read,
            rested_at: 0,
            ended: false,
        })
    }

    /// Takes what has arrived, without waiting, and says whether that is all of it. Most bodies need no timer.
    pub(super) async fn is_complete(&mut self) -> Result<bool, Refusal> {
        for _ in 0..FRAMES_AT_ONCE {
            if self.ended {
                return Ok(true);
            }
            if self.needs_rest() {
                break;
            }
            let arrived = poll_fn(|cx| match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => Poll::Ready(None),
            });
            match arrived.await {
                Some(frame) => self.push(frame)?,
                None => return Ok(false),
            }
        }
        Ok(self.ended)
    }

    /// Waits for the rest of the body.
    pub(super) async fn finish(&mut self) -> Result<(), Refusal> {
        let end = self.began + self.bounds.time;
        while !self.is_complete().await? {
            if self.needs_rest() {
                self.bounds.pace.rest().await;
                self.rested_at = self.pieces.len();
                continue;
            }
            // The head waits with the body and takes room as well.
            self.take_room(0)?;
            let rate = self.began + GRACE + Duration::from_secs(self.pieces.len() as u64 / LEAST_RATE);
            let due = end.min(rate).min(self.last_frame + GRACE);
            let frame = timeout_at(due, self.body.frame()).await.map_err(|_| Refusal::TooSlow)?;
            self.push(frame)?;
            self.last_frame = Instant::now();
        }
        Ok(())
    }

    /// The body that was read.
    pub(super) fn into_held(self) -> Held {
        Held { bytes: self.pieces.into_bytes(), _share: self.share }
    }

    /// Reads on for a moment and keeps nothing: a client that still sends loses an answer that comes before it is done.
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
        // Whether the rest came in time makes no difference to the refusal.
        timeout(DISCARD_TIME, rest).await.ok();
    }

    fn needs_rest(&self) -> bool {
        self.pieces.len() - self.rested_at >= STRETCH
    }

    fn push(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Result<(), Refusal> {
        let frame = match frame {
            None => {
                self.ended = true;
                // A stream of HTTP/2 may end early without an error.
                let is_whole = self.announced.is_none_or(|length| length == self.pieces.len());
                return if is_whole { Ok(()) } else { Err(Refusal::Broken) };
            }
            Some(frame) => frame.map_err(|_| Refusal::Broken)?,
        };
        // Trailers are dropped: nothing signs them.
        let Ok(data) = frame.into_data() else { return Ok(()) };
        *self.bytes_read += data.len();
        if self.pieces.len() + data.len() > self.bounds.most {
            return Err(Refusal::TooLarge);
        }
        self.take_room(data.len())?;
        self.pieces.push(data).map_err(|error| match error {
            PieceError::TooMuch => Refusal::Broken,
            PieceError::NoMemory => Refusal::Overloaded,
        })
    }

    /// Takes room for what arrived and `more` bytes.
    fn take_room(&mut self, more: usize) -> Result<(), Refusal> {
        self.bounds.room.grow(&mut self.share, self.pieces.len() + more).map_err(|NoRoom| Refusal::Overloaded)
    }
}
