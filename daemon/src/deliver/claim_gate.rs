//! Whether due rows may be claimed. It is closed until it is known that no other daemon runs on a copy of this store, which
//! would claim the same rows.

use tokio::sync::watch;

#[derive(Clone)]
pub struct ClaimGate(watch::Sender<bool>);

impl ClaimGate {
    pub(super) fn closed() -> Self {
        Self(watch::channel(false).0)
    }

    pub fn set_open(&self, open: bool) {
        self.0.send_if_modified(|is_open| std::mem::replace(is_open, open) != open);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
