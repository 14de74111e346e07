//! [`Headers`] for the header maps of the `http` crate, version 1.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Headers, header};

// The names that a verifier asks for, so that they are not parsed for every request.
static ID: HeaderName = HeaderName::from_static(header::ID);
static TIMESTAMP: HeaderName = HeaderName::from_static(header::TIMESTAMP);
static SIGNATURE: HeaderName = HeaderName::from_static(header::SIGNATURE);
static AUTH: HeaderName = HeaderName::from_static(header::AUTH);

impl Headers for HeaderMap {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let values = match name {
            header::ID => self.get_all(&ID),
            header::TIMESTAMP => self.get_all(&TIMESTAMP),
            header::SIGNATURE => self.get_all(&SIGNATURE),
            header::AUTH => self.get_all(&AUTH),
            _ => self.get_all(name),
        };
        values.iter().map(HeaderValue::as_bytes)
    }
}
