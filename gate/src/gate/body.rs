//! Reading a body within its size, its time, a least rate, its sender's places, and the room that all bodies share. Where room
//! is short, the body that comes most slowly gives way. Nothing here looks at what a body says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use scale_callback_serve::nets::Sender;
use scale_callback_serve::refusal_pace::RefusalPace;
use tokio::time::{Instant, timeout};

use super::admission::Refusal;
use super::awake::{AwakeClock, NEXT_LOOK};
use super::pieces::{PieceError, Pieces, SMALL};
use super::room::{NoRoom, Room, Share};
use super::waiting::{Relief, TooMany, Waiting, WaitingBody};

/// Bytes of a large body that are read, or verified, without a rest.
pub(super) const STRETCH: usize = 64 * 1024;
/// How many frames are read in one go, without a timer.
const FRAMES_AT_ONCE: usize = 64;
/// The least rate, in bytes a second, once [`GRACE`] has passed.
const LEAST_RATE: u64 = 4096;
const GRACE: Duration = Duration::from_secs(3);
/// How long a body waits for room while others give way.
const ROOM_TIME: Duration = Duration::from_secs(2);
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
    /// The bodies that have not arrived whole.
    pub(super) waiting: Arc<Waiting>,
    /// What every time of a body is measured with.
    pub(super) clock: AwakeClock,
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
    /// What arrived and found no room yet.
    stuck: Option<Bytes>,
    /// More arrived than a small body has.
    is_large: bool,
    announced: Option<usize>,
    last_frame: Option<Instant>,
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
        Ok(Self {
            body,
            bounds,
            share: Share::default(),
            pieces: Pieces::new(announced.unwrap_or(bounds.most)),
            stuck: None,
            is_large: false,
            announced,
            last_frame: None,
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
            if self.needs_rest() || self.stuck.is_some() {
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

    /// Waits for the rest of the body, which `sender` sends.
    pub(super) async fn finish(&mut self, sender: Sender) -> Result<(), Refusal> {
        let began = self.bounds.clock.now();
        let waiting = self.bounds.waiting.enter(sender, began).map_err(|TooMany| Refusal::SenderOverloaded)?;
        let finished = tokio::select! {
            biased;
            () = waiting.must_give_way() => Err(Refusal::GaveWay),
            finished = self.finish_counted(&waiting, began) => finished,
        };
        if finished.is_err() {
            // Its room is free before it is waited for no longer: those who ask for room then find it.
            self.pieces = Pieces::new(0);
            self.share = Share::default();
        }
        finished
    }

    async fn finish_counted(&mut self, waiting: &WaitingBody, began: Instant) -> Result<(), Refusal> {
        // The head waits with the body and takes room as well.
        self.wait_for_room(waiting, 0).await?;
        let mut noted = 0;
        while !self.is_complete().await? {
            let now = self.bounds.clock.now();
            waiting.note(self.pieces.len() - noted, now);
            noted = self.pieces.len();
            if let Some(data) = self.stuck.take() {
                if self.pieces.len() + data.len() > SMALL {
                    waiting.become_large(now).map_err(|TooMany| Refusal::SenderOverloaded)?;
                }
                self.wait_for_room(waiting, data.len()).await?;
                self.keep(data)?;
            } else if self.needs_rest() {
                self.bounds.pace.rest().await;
                self.rested_at = self.pieces.len();
            } else {
                self.wait_for_frame(waiting, began).await?;
            }
        }
        Ok(())
    }

    /// Waits for bytes until the body is too slow.
    async fn wait_for_frame(&mut self, waiting: &WaitingBody, began: Instant) -> Result<(), Refusal> {
        let rate = began + GRACE + Duration::from_secs(self.pieces.len() as u64 / LEAST_RATE);
        let due = (began + self.bounds.time).min(rate).min(self.last_frame.unwrap_or(began) + GRACE);
        loop {
            let now = self.bounds.clock.now();
            if now >= due || waiting.is_slower_than(self.bounds.room.least_rate(), GRACE, now) {
                return Err(Refusal::TooSlow);
            }
            if let Ok(frame) = timeout(NEXT_LOOK.min(due - now), self.body.frame()).await {
                self.last_frame = Some(self.bounds.clock.now());
                return self.push(frame);
            }
        }
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
        if self.pieces.len() + data.len() > SMALL && !self.is_large {
            // It waits for a place among the large bodies of its sender.
            self.is_large = true;
            self.stuck = Some(data);
            return Ok(());
        }
        match self.take_room(data.len()) {
            Ok(()) => self.keep(data),
            Err(NoRoom) => {
                self.stuck = Some(data);
                Ok(())
            }
        }
    }

    /// Keeps bytes that have room.
    fn keep(&mut self, data: Bytes) -> Result<(), Refusal> {
        self.pieces.push(data).map_err(|error| match error {
            PieceError::TooMuch => Refusal::Broken,
            PieceError::NoMemory => Refusal::Overloaded,
        })
    }

    /// Takes room for what arrived and `more` bytes.
    fn take_room(&mut self, more: usize) -> Result<(), NoRoom> {
        self.bounds.room.grow(&mut self.share, self.pieces.len() + more)
    }

    /// Takes room for what arrived and `more` bytes. Where there is none, the slowest of the other bodies gives way.
    async fn wait_for_room(&mut self, waiting: &WaitingBody, more: usize) -> Result<(), Refusal> {
        if self.take_room(more).is_ok() {
            return Ok(());
        }
        let end = self.bounds.clock.now() + ROOM_TIME;
        loop {
            let now = self.bounds.clock.now();
            let room = self.bounds.room.clone();
            let freed = room.freed();
            if now >= end || waiting.ask_for_room(now) == Relief::Nobody {
                // The last one that had room may have left just now.
                return self.take_room(more).map_err(|NoRoom| Refusal::Overloaded);
            }
            // Whether room came or not, the next look shows.
            timeout(NEXT_LOOK, freed).await.ok();
            if self.take_room(more).is_ok() {
                let now = self.bounds.clock.now();
                waiting.begin_anew(now);
                self.last_frame = Some(now);
                return Ok(());
            }
        }
    }
}
