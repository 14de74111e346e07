//! A strict look at the bytes of HTTP/1.1 request heads, before the library reads them.
//!
//! What two programs read differently is how one request is smuggled inside another: a bare line feed, two lengths, a
//! length beside chunks, a folded line. Libraries forgive some of it; here nothing of it passes. A head that breaks a
//! rule reaches the library as garbage, which answers 400 and ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest line whose begin is kept to look at; longer ones hold no length.
const KEPT: usize = 64;

/// No head and no method holds this byte: the library refuses it with 400, and reads the end then.
const REFUSED: &[u8] = &[0];

/// A stream whose request heads are looked at as they come in.
pub(crate) struct Strict<S> {
    stream: S,
    watch: Watch,
    /// The library is to read of a refused head next.
    refusal_due: bool,
}

impl<S> Strict<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, watch: Watch::default(), refusal_due: false }
    }
}

/// Where in the conversation the next byte stands.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// In a body, with this many bytes to come.
    Body(u64),
    /// Behind the head of a chunked request, which is the last one of its connection.
    Chunks,
    /// Behind a head that broke a rule.
    Refused,
}

#[derive(Debug)]
struct Watch {
    place: Place,
    /// The begin of the current line.
    line: Vec<u8>,
    line_bytes: usize,
    lines: usize,
    after_return: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            place: Place::Head,
            line: Vec::with_capacity(KEPT),
            line_bytes: 0,
            lines: 0,
            after_return: false,
            length: None,
            chunked: false,
        }
    }
}

impl Watch {
    /// Looks at bytes as they come.
    ///
    /// # Errors
    /// A head breaks a rule; gives how many of the bytes stand before it.
    fn see(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        let mut head = 0;
        while at < bytes.len() {
            match self.place {
                Place::Head => at += self.see_head(&bytes[at..]).map_err(|()| head)?,
                Place::Body(left) => {
                    let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                    at += usize::try_from(here).unwrap_or(usize::MAX);
                    self.place = if left > here { Place::Body(left - here) } else { Place::Head };
                }
                Place::Chunks => return Ok(()),
                Place::Refused => return Err(head),
            }
            if self.place == Place::Head && self.is_between() {
                head = at;
            }
        }
        Ok(())
    }

    /// Whether no byte of a head has come yet.
    fn is_between(&self) -> bool {
        self.lines == 0 && self.line_bytes == 0 && !self.after_return
    }

    /// Looks at a piece of a head; gives how much of it was looked at.
    fn see_head(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        if self.after_return {
            // A return that no line feed follows.
            if bytes.first() != Some(&b'\n') {
                return self.refuse();
            }
            self.after_return = false;
            self.end_line()?;
            return Ok(1);
        }
        let plain = memchr::memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len());
        let text = &bytes[..plain];
        // Libraries drop a fragment, which nobody sends: the target is compared as it is written.
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
            // A line feed alone, or a zero.
            Some(_) => self.refuse(),
        }
    }

    fn end_line(&mut self) -> Result<(), ()> {
        let empty = self.line_bytes == 0;
        if empty && self.lines == 0 {
            // A line end before a request is nobody's business to send.
            return self.refuse();
        }
        if empty {
            self.place = match (self.chunked, self.length.take()) {
                (true, Some(_)) => return self.refuse(),
                (true, None) => Place::Chunks,
                (false, length) => match length.unwrap_or(0) {
                    0 => Place::Head,
                    length => Place::Body(length),
                },
            };
            (self.chunked, self.lines) = (false, 0);
            return Ok(());
        }
        if self.lines > 0 && self.header().is_err() {
            return self.refuse();
        }
        self.lines += 1;
        self.line.clear();
        self.line_bytes = 0;
        Ok(())
    }

    fn header(&mut self) -> Result<(), ()> {
        let line = &self.line[..];
        // A folded line, or no name.
        if matches!(line.first(), None | Some(b' ' | b'\t' | b':')) {
            return Err(());
        }
        // White space before the colon does not make it another header.
        let ends = |at: usize| line.get(at).is_none_or(|byte| matches!(byte, b':' | b' ' | b'\t'));
        let begins = |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let named = |name: &[u8]| begins(name) && ends(name.len());
        let value = |name: &[u8]| line[name.len()..].strip_prefix(b":").map(<[u8]>::trim_ascii);
        let whole = self.line_bytes == line.len();
        if named(b"content-length") {
            let digits = value(b"content-length").filter(|_| whole).ok_or(())?;
            let plain = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| plain && self.length.is_none());
            self.length = Some(text.and_then(|text| text.parse().ok()).ok_or(())?);
        } else if named(b"transfer-encoding") {
            let coding = value(b"transfer-encoding").filter(|_| whole).ok_or(())?;
            if self.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(());
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn refuse<T>(&mut self) -> Result<T, ()> {
        self.place = Place::Refused;
        Err(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.refusal_due) {
            buf.put_slice(REFUSED);
            return Poll::Ready(Ok(()));
        }
        if self.watch.place == Place::Refused {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Err(good) = self.watch.see(&buf.filled()[before..]) {
            // What stands before it is another request's, and passes.
            buf.set_filled(before + good);
            self.refusal_due = good > 0;
            if good == 0 {
                buf.put_slice(REFUSED);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a conversation passes, whatever the pieces that it comes in.
    fn passes(bytes: &[u8]) -> bool {
        let whole = Watch::default().see(bytes).is_ok();
        let mut watch = Watch::default();
        let pieces = bytes.iter().all(|byte| watch.see(&[*byte]).is_ok());
        assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn what_can_be_read_in_one_way_alone_passes() {
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
    fn what_can_be_read_in_two_ways_does_not() {
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
            // The second request of a connection is looked at as well.
            "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\nHost: a\r\n\r\n",
        ] {
            assert!(!passes(bad.as_bytes()), "{bad:?}");
        }
        let long = format!("POST / HTTP/1.1\r\nContent-Length: {}3\r\n\r\n", "0".repeat(100));
        assert!(!passes(long.as_bytes()));
    }
}
