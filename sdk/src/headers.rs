//! How a request's headers are read: every value of a name, as bytes.

/// The headers of a request. Slices of (name, value) pairs implement it; upper and lower case in names are the same.
///
/// An implementation must return *every* value of a name. If a verifier saw only the first value and the receiver's
/// code the second, an attacker could show each of them a different value.
pub trait Headers {
    /// All values of `name`, in order. `name` is in lower case.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a;
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        // Most names arrive in lower case, and then the faster exact comparison is enough.
        let is_named = move |given: &str| given == name || given.eq_ignore_ascii_case(name);
        self.iter().filter(move |(n, _)| is_named(n.as_ref())).map(|(_, v)| v.as_ref())
    }
}

impl<H: Headers + ?Sized> Headers for &H {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        (**self).values(name)
    }
}
