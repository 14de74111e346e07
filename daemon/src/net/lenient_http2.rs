//! Lets answers over HTTP/2 through whose head has a header that HTTP/2 forbids, such as `connection: keep-alive` from a
//! proxy that copied it, or a `content-length` that is no number. The library gives up such an answer together with its
//! status, and has no switch for it. Nothing depends on these headers: frames say where an answer ends.
//!
//! So the name of such a header is changed before the library sees it, into a name of the same length that nobody uses.
//! Nothing is added or removed, so the receiver's table of headers (RFC 7541) stays the same on both sides.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;

/// Every frame begins with its length, kind, flags and stream (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;
/// The longest frame that we take, which is the default. The library refuses a longer one.
const MAX_FRAME: usize = 16 * 1024;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Much of an answer is read at once.
const PIECE: usize = 8 * 1024;

/// The headers whose name is changed: as plain text, as Huffman code, and the first byte of that code for the name with
/// another first letter.
const NAMES: [(&[u8], &[u8], u8); 7] = [
    (b"connection", b"\x21\xea\xa8\xa4\x49\x8f\x57", 0x39),
    (b"keep-alive", b"\xea\x52\xd6\xb0\xe8\x37\x72\xff", 0xf6),
    (b"proxy-connection", b"\xae\xc3\xf9\xf4\xb1\x0f\x55\x45\x22\x4c\x7a\xbf", 0x8e),
    (b"transfer-encoding", b"\x4d\x83\xa9\x12\x96\xc5\x8b\x51\x0f\x21\xaa\x9b", 0x3d),
    (b"upgrade", b"\xb6\xb9\xac\x1c\x85", 0x8e),
    (b"te", b"\x49\x7f", 0x39),
    (b"content-length", b"\x21\xea\x49\x6a\x4a\xd4\x16\xa9\x93\x3f", 0x39),
];
/// Their numbers in the table that both sides know: `content-length` and `transfer-encoding`. The numbers after them are
/// `content-location` and `user-agent`, which say nothing to us in an answer.
const NUMBERS: [usize; 2] = [28, 57];

/// Finds the heads in a stream of frames.
#[derive(Debug, Default)]
struct Frames {
    /// A frame with a head, or the beginning of any frame, of which not everything has come.
    held: Vec<u8>,
    /// How much of a frame without a head is still to come.
    passing: usize,
    /// How many heads have come since this was asked.
    heads: u64,
}

impl Frames {
    /// Takes what was received, and appends what the library may see.
    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (pass, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(pass);
                self.passing -= pass.len();
                bytes = rest;
                continue;
            }
            let wanted = self.wanted().saturating_sub(self.held.len());
            let (more, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.held.extend_from_slice(more);
            bytes = rest;
            if self.held.len() == self.wanted() {
                self.release(out);
            }
        }
    }

    /// How many bytes must be held until something can be decided.
    fn wanted(&self) -> usize {
        match frame_length(&self.held) {
            Some(length) if self.held[3] == HEADERS && length <= MAX_FRAME => FRAME_HEAD + length,
            _ => FRAME_HEAD,
        }
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        let length = frame_length(&self.held).unwrap_or_default();
        if self.held.len() == FRAME_HEAD {
            self.passing = length;
        } else {
            self.heads += 1;
            let flags = self.held[4];
            change_names(fragment(flags, &mut self.held[FRAME_HEAD..]));
        }
        out.append(&mut self.held);
    }

    /// The end of the stream: what is held is all that will come.
    fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

fn frame_length(held: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = held else { return None };
    (held.len() >= FRAME_HEAD).then(|| usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

/// The part of a frame's payload that holds headers. It may end within one that goes on in the next frame; such a header
/// is not changed.
fn fragment(flags: u8, payload: &mut [u8]) -> &mut [u8] {
    let (mut begin, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        begin = 1;
        end = end.saturating_sub(payload.first().map_or(0, |length| usize::from(*length)));
    }
    if flags & PRIORITY != 0 {
        begin += 5;
    }
    payload.get_mut(begin..end).unwrap_or_default()
}

/// Goes through the representations of headers (RFC 7541, section 6).
fn change_names(block: &mut [u8]) {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let next = match first {
            0x80.. => change_number(block, at, 7),
            0x40..0x80 => literal(block, at, 6),
            // The new size of the table.
            0x20..0x40 => number(block, at, 5).map(|(_, next)| next),
            _ => literal(block, at, 4),
        };
        match next {
            Some(next) => at = next,
            None => return,
        }
    }
}

/// A header with its value. Returns where the next one begins.
fn literal(block: &mut [u8], at: usize, bits: u32) -> Option<usize> {
    let (name, _) = number(block, at, bits)?;
    let next = change_number(block, at, bits)?;
    let value = if name == 0 {
        let (begin, end, is_huffman) = string(block, next)?;
        change_name(&mut block[begin..end], is_huffman);
        end
    } else {
        next
    };
    string(block, value).map(|(_, end, _)| end)
}

fn change_name(name: &mut [u8], is_huffman: bool) {
    if is_huffman {
        if let Some((_, _, first)) = NAMES.iter().find(|(_, code, _)| *code == name) {
            name[0] = *first;
        }
        return;
    }
    // Some servers send names as they write them in HTTP/1.1.
    name.make_ascii_lowercase();
    if NAMES.iter().any(|(plain, _, _)| *plain == name) {
        name[0] = b'x';
    }
}

/// Changes a name's number in the common table, if it is one of those. Returns the place after it.
fn change_number(block: &mut [u8], at: usize, bits: u32) -> Option<usize> {
    let (value, next) = number(block, at, bits)?;
    if NUMBERS.contains(&value) && next <= at + 2 {
        // It has one byte, or a second one that does not overflow by this.
        block[next - 1] += 1;
    }
    Some(next)
}

/// An integer (RFC 7541, section 5.1), and the place after it.
fn number(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let full = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & full;
    let mut next = at + 1;
    if value < full {
        return Some((value, next));
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(next)?;
        next += 1;
        value = value.checked_add(usize::from(byte & 0x7f) << shift)?;
        if byte & 0x80 == 0 {
            return Some((value, next));
        }
    }
    None
}

/// The places where a string begins and ends, and whether it is Huffman code.
fn string(block: &[u8], at: usize) -> Option<(usize, usize, bool)> {
    let is_huffman = block.get(at)? & 0x80 != 0;
    let (length, begin) = number(block, at, 7)?;
    let end = begin.checked_add(length)?;
    (end <= block.len()).then_some((begin, end, is_huffman))
}

/// A stream whose received frames are changed so.
pub(crate) struct LenientStream<S> {
    stream: S,
    meter: Arc<Meter>,
    frames: Frames,
    /// What the library may read, and how much of it was read.
    ready: Vec<u8>,
    read: usize,
}

impl<S> LenientStream<S> {
    pub(crate) fn new(stream: S, meter: Arc<Meter>) -> Self {
        Self { stream, meter, frames: Frames::default(), ready: Vec::new(), read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.ready.len() {
            this.ready.clear();
            this.read = 0;
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                this.frames.end(&mut this.ready);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.frames.take(piece.filled(), &mut this.ready);
                this.meter.heads(std::mem::take(&mut this.frames.heads));
            }
        }
        let unread = &this.ready[this.read..];
        let count = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..count]);
        this.read += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "lenient_http2_tests.rs"]
mod tests;
