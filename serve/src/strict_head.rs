//! A strict check of HTTP/1.1 request heads, byte by byte, before the HTTP library reads them.
//!
//! A request is smuggled inside another where two programs read the same bytes differently: a bare line feed, two lengths,
//! a length beside chunks, a folded line. HTTP libraries forgive some of these; this check forgives none. It never looks
//! into a body, and it changes no byte.

/// The check keeps this much of each line. Longer lines hold no header that it needs to understand.
const KEPT: usize = 64;

/// A head breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// Which part of the conversation the next byte belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// A body with this many bytes to come.
    Body(u64),
    /// The body of a chunked request, which is the last request of its connection.
    Chunks,
    /// What follows a head that broke a rule.
    Refused,
}

/// The check of one connection's requests.
#[derive(Debug)]
pub(crate) struct HeadCheck {
    part: Part,
    /// The first bytes of the current line.
    line: Vec<u8>,
    line_bytes: usize,
    lines: usize,
    after_return: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Default for HeadCheck {
    fn default() -> Self {
        Self {
            part: Part::Head,
            line: Vec::with_capacity(KEPT),
            line_bytes: 0,
            lines: 0,
            after_return: false,
            length: None,
            chunked: false,
        }
    }
}

impl HeadCheck {
    /// Looks at bytes as they come.
    ///
    /// # Errors
    /// A head breaks a rule; the error is how many of `bytes` stand before that head.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        let mut head = 0;
        while at < bytes.len() {
            match self.part {
                Part::Head => at += self.look_at_head(&bytes[at..]).map_err(|Broken| head)?,
                Part::Body(left) => {
                    let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                    at += usize::try_from(here).unwrap_or(usize::MAX);
                    self.part = if left > here { Part::Body(left - here) } else { Part::Head };
                }
                Part::Chunks => return Ok(()),
                Part::Refused => return Err(head),
            }
            if self.part == Part::Head && self.is_between_requests() {
                head = at;
            }
        }
        Ok(())
    }

    /// Whether a head broke a rule; no byte behind it may pass.
    pub(crate) fn is_refused(&self) -> bool {
        self.part == Part::Refused
    }

    /// Whether no byte of a head has come yet.
    fn is_between_requests(&self) -> bool {
        self.lines == 0 && self.line_bytes == 0 && !self.after_return
    }

    /// Looks at a piece of a head; gives how many bytes of it were looked at.
    fn look_at_head(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.after_return {
            // A carriage return must be followed by a line feed.
            if bytes.first() != Some(&b'\n') {
                return self.refuse();
            }
            self.after_return = false;
            self.end_line()?;
            return Ok(1);
        }
        let plain = memchr::memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len());
        let text = &bytes[..plain];
        // Libraries drop a fragment, and no client sends one: the target is compared as it is written.
        if self.lines == 0 && text.contains(&b'#') {
            return self.refuse();
        }
        self.line_bytes += text.len();
        let room = KEPT - self.line.len();
        self.line.extend_from_slice(&text[..room.min(text.len())]);
        match bytes.get(plain) {
            None => Ok(plain),
            Some(b'\r') => {
                self.after_return = true;
                Ok(plain + 1)
            }
            // A bare line feed, or a zero byte.
            Some(_) => self.refuse(),
        }
    }

    fn end_line(&mut self) -> Result<(), Broken> {
        let is_empty = self.line_bytes == 0;
        if is_empty && self.lines == 0 {
            // No client has a reason to send an empty line before a request.
            return self.refuse();
        }
        if is_empty {
            return self.end_head();
        }
        if self.lines > 0 && self.look_at_header().is_err() {
            return self.refuse();
        }
        self.lines += 1;
        self.line.clear();
        self.line_bytes = 0;
        Ok(())
    }

    /// The head is whole: its length or its chunks say what comes next.
    fn end_head(&mut self) -> Result<(), Broken> {
        self.part = match (self.chunked, self.length.take()) {
            (true, Some(_)) => return self.refuse(),
            (true, None) => Part::Chunks,
            (false, None | Some(0)) => Part::Head,
            (false, Some(length)) => Part::Body(length),
        };
        (self.chunked, self.lines) = (false, 0);
        Ok(())
    }

    fn look_at_header(&mut self) -> Result<(), Broken> {
        let line = &self.line[..];
        // A folded line, or a line without a name.
        if matches!(line.first(), None | Some(b' ' | b'\t' | b':')) {
            return Err(Broken);
        }
        // White space before the colon does not make it another header.
        let ends = |at: usize| line.get(at).is_none_or(|byte| matches!(byte, b':' | b' ' | b'\t'));
        let begins = |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let is_named = |name: &[u8]| begins(name) && ends(name.len());
        let value = |name: &[u8]| line[name.len()..].strip_prefix(b":").map(<[u8]>::trim_ascii);
        let is_whole = self.line_bytes == line.len();
        if is_named(b"content-length") {
            let digits = value(b"content-length").filter(|_| is_whole).ok_or(Broken)?;
            let plain = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| plain && self.length.is_none());
            self.length = Some(text.and_then(|text| text.parse().ok()).ok_or(Broken)?);
        } else if is_named(b"transfer-encoding") {
            let coding = value(b"transfer-encoding").filter(|_| is_whole).ok_or(Broken)?;
            if self.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(Broken);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn refuse<T>(&mut self) -> Result<T, Broken> {
        self.part = Part::Refused;
        Err(Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a conversation passes. The verdict must not depend on the pieces that it comes in.
    fn passes(bytes: &[u8]) -> bool {
        let whole = HeadCheck::default().look(bytes).is_ok();
        let mut check = HeadCheck::default();
        let pieces = bytes.iter().all(|byte| check.look(&[*byte]).is_ok());
        assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn heads_that_can_be_read_in_only_one_way_pass() {
        for good in [
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na\nbPOST / HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length-Of: x\r\n\r\n",
        ] {
            assert!(passes(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn heads_that_can_be_read_in_two_ways_do_not_pass() {
        for bad in [
            "POST / HTTP/1.1\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n\n",
            "POST / HTTP/1.1\r\nHost: a\rx\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "POST / HTTP/1.1\r\n: no name\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "POST /callbacks#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
            // The second request of a connection is checked as well.
            "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\nHost: a\r\n\r\n",
        ] {
            assert!(!passes(bad.as_bytes()), "{bad:?}");
        }
        let long = format!("POST / HTTP/1.1\r\nContent-Length: {}3\r\n\r\n", "0".repeat(100));
        assert!(!passes(long.as_bytes()));
    }
}
