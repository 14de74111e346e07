//! Watches whether the clocks agree: tells each change once, and takes back the times of rows that were written while the
//! clock was ahead.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, ClockState, Timestamp};
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::store::{EngineStore, SetBack};

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct ClockWatch {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) metrics: Arc<Metrics>,
}

impl ClockWatch {
    /// Watches until `stop`.
    pub(super) async fn run(self, mut stop: Stop) {
        let mut told = Kind::Agrees;
        // Rows whose times are still to be taken back.
        let mut back: Option<(Duration, Timestamp)> = None;
        loop {
            let state = self.clock.state();
            self.metrics.clock_distance_seconds.set(distance(state));
            if Kind::of(state) != told {
                told = Kind::of(state);
                tell(state);
            }
            back = self.clock.take_set_back().or(back);
            if let Some((by, from)) = back {
                match self.store.set_back(SetBack { by, now: self.clock.now(), from }).await {
                    Ok(rows) => {
                        tracing::warn!(seconds = by.as_secs(), rows, "the store's clock was set back");
                        back = None;
                    }
                    Err(error) => tracing::debug!(%error, "times can't be taken back now; the next look tries again"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.stopped() => return,
            }
        }
    }
}

/// A state without its distance, which changes all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Agrees,
    Unconfirmed,
    WallAhead,
    WallBehind,
}

impl Kind {
    fn of(state: ClockState) -> Self {
        match state {
            ClockState::Agrees => Self::Agrees,
            ClockState::Unconfirmed(_) => Self::Unconfirmed,
            ClockState::WallAhead(_) => Self::WallAhead,
            ClockState::WallBehind(_) => Self::WallBehind,
        }
    }
}

/// The wall clock's distance from the store's, in seconds; below zero when it is behind.
fn distance(state: ClockState) -> f64 {
    match state {
        ClockState::Agrees | ClockState::Unconfirmed(_) => 0.0,
        ClockState::WallAhead(by) => by.as_secs_f64(),
        ClockState::WallBehind(by) => -by.as_secs_f64(),
    }
}

fn tell(state: ClockState) {
    match state {
        ClockState::Agrees => tracing::info!("the clocks agree: callbacks can end and old rows are pruned"),
        ClockState::Unconfirmed(pause) => tracing::warn!(
            seconds = pause.as_secs(),
            "the store was not written for long: nothing ends and nothing is pruned until a new record confirms the clock, or an operator: callbackd clock accept"
        ),
        ClockState::WallAhead(by) | ClockState::WallBehind(by) => tracing::error!(
            seconds = by.as_secs(),
            direction = if matches!(state, ClockState::WallAhead(_)) { "ahead" } else { "behind" },
            "the wall clock is away from the store's clock: nothing ends and nothing is pruned until they agree, or an operator says that the wall clock is right: callbackd clock accept"
        ),
    }
}
