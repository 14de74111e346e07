//! Choices made from bytes. The same bytes always lead to the same choices, so that an input can be kept and run again.

/// Reads choices from its bytes. After their end, every choice is the first one.
pub struct Source<'d> {
    data: &'d [u8],
}

impl<'d> Source<'d> {
    pub fn new(data: &'d [u8]) -> Self {
        Self { data }
    }

    pub fn byte(&mut self) -> u8 {
        match self.data.split_first() {
            Some((first, rest)) => {
                self.data = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        self.number() % bound.max(1)
    }

    /// True for one of `n` values.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// A small change of some bytes, such as a proxy, an attacker or a mistake makes.
pub fn change(bytes: &mut Vec<u8>, source: &mut Source<'_>) {
    let at = source.below(bytes.len() + 1);
    match source.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << source.below(8),
        1 => bytes.insert(at, source.pick(b" ,.=:+-_/0129azAZ\"\\{}[]\t\n\0\xff")),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        4 => {
            let tail = bytes[at..].to_vec();
            bytes.extend_from_slice(&tail);
        }
        _ if at < bytes.len() => bytes[at] = source.byte(),
        _ => bytes.push(source.byte()),
    }
}
