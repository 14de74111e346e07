//! Signals that stop a command.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::error::CommandError;

/// Turns true at the first SIGTERM or Ctrl-C. The second one ends the process at once.
pub(super) fn stop_on_signals() -> Result<watch::Receiver<bool>, CommandError> {
    let listen =
        |kind| signal(kind).map_err(|error| CommandError::failed(format!("signals can't be received: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(130);
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}
