//! Header maps of the `http` crate, version 1.

use http::{HeaderMap, HeaderValue};

use crate::Headers;

impl Headers for HeaderMap {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}
