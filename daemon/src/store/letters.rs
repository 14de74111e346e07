//! The headers of dead letters, as they are stored in every database.

use crate::model::dead_letter::IdentityHeaders;

pub(super) fn written(headers: &IdentityHeaders) -> String {
    serde_json::to_string(headers).expect("texts and bytes can be written")
}

/// `None` where no headers were written like this.
pub(super) fn read(text: &str) -> Option<IdentityHeaders> {
    serde_json::from_str(text).ok()
}
