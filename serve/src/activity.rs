//! What the requests of one connection are doing: how many are open, whether anything moves, until when a refusal holds the
//! connection's place, and whether the connection must give way to another one. It decides nothing; the streams, the service,
//! the connection and the places around it do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::refusal_pace::{RefusalPace, Refused};

#[derive(Default)]
pub(crate) struct Activity {
    open: AtomicUsize,
    /// A whole request head came, or one that was refused.
    had_head: AtomicBool,
    /// Told once the connection must end because another one needs its place.
    give_way: Notify,
    #[cfg(test)]
    gave_way: AtomicBool,
    /// Rises with every request that begins or ends, and when a write that waited goes on.
    progress: AtomicUsize,
    /// The bytes that are written next belong to the answer of a request.
    answering: AtomicBool,
    refusals: Option<Arc<RefusalPace>>,
    /// When the last delayed refusal goes out.
    last_refusal: Mutex<Option<Instant>>,
}

impl Activity {
    pub(crate) fn new(refusals: Option<Arc<RefusalPace>>) -> Self {
        Self { refusals, ..Self::default() }
    }

    pub(crate) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    pub(crate) fn has_open_requests(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Whether a whole request head came, or one that was refused.
    pub(crate) fn had_head(&self) -> bool {
        self.had_head.load(Ordering::Relaxed)
    }

    /// Whether nothing is open, nothing is still to be written, and no refusal waits.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        !self.has_open_requests() && !self.is_answering() && self.last_refusal().is_none_or(|due| due <= now)
    }

    /// Ends the connection, because another one needs its place.
    pub(crate) fn give_way(&self) {
        #[cfg(test)]
        self.gave_way.store(true, Ordering::Relaxed);
        self.give_way.notify_one();
    }

    /// Waits until the connection must end because another one needs its place.
    pub(crate) async fn must_give_way(&self) {
        self.give_way.notified().await;
    }

    #[cfg(test)]
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way.load(Ordering::Relaxed)
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_answer(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// Everything that was written so far has gone out. Without an open request, the next bytes belong to no answer.
    pub(crate) fn flushed(&self) {
        if !self.has_open_requests() {
            self.answering.store(false, Ordering::Relaxed);
        }
    }

    /// When this refusal may go out; `None` if at once.
    pub(crate) fn delay(&self, refused: Refused) -> Option<Instant> {
        self.had_head.store(true, Ordering::Relaxed);
        let pace = self.refusals.as_ref()?;
        let now = Instant::now();
        let due = Some(pace.reserve(now, refused)).filter(|due| *due > now)?;
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(due);
        Some(due)
    }

    /// When the last delayed refusal goes out, or would have.
    pub(crate) fn last_refusal(&self) -> Option<Instant> {
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request from its head to the end of its answer; dropping it counts it as ended.
pub(crate) struct OpenRequest(Arc<Activity>);

impl OpenRequest {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.had_head.store(true, Ordering::Relaxed);
        activity.note_progress();
        activity.begin_answer();
        Self(Arc::clone(activity))
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.note_progress();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_flush_unless_another_request_is_open() {
        let activity = Arc::new(Activity::default());
        assert!(!activity.is_answering());
        let (first, second) = (OpenRequest::new(&activity), OpenRequest::new(&activity));
        drop(first);
        activity.flushed();
        assert!(activity.is_answering(), "the second answer is still to come");
        drop(second);
        assert!(activity.is_answering(), "its bytes are not written yet");
        activity.flushed();
        assert!(!activity.is_answering() && !activity.has_open_requests());
        assert_eq!(activity.progress(), 4, "two requests began and ended");
    }

    #[test]
    fn only_a_refusal_that_waits_holds_the_place() {
        let activity = Activity::new(Some(Arc::new(RefusalPace::new(1))));
        assert_eq!((activity.delay(Refused(0)), activity.last_refusal()), (None, None), "the first goes at once");
        let second = activity.delay(Refused(0));
        assert!(second.is_some() && second == activity.last_refusal());
        assert_eq!(Activity::new(None).delay(Refused(0)), None, "a server without a pace delays nothing");
    }
}
