//! How a request's headers are read: all values of a name, as bytes.

/// The headers of a request. Implemented for slices of (name, value) pairs; names compare without case.
///
/// An implementation must give *every* value of a name: a verifier that sees only the first one can be told
/// two stories.
pub trait Headers {
    /// All values of `name` (in lower case), in order.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a;
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        // Most come in lower case, where one comparison of the whole does.
        let is_named = move |given: &str| given == name || given.eq_ignore_ascii_case(name);
        self.iter().filter(move |(n, _)| is_named(n.as_ref())).map(|(_, v)| v.as_ref())
    }
}

impl<H: Headers + ?Sized> Headers for &H {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        (**self).values(name)
    }
}
