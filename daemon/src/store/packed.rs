//! Bodies as they are kept after their callbacks have ended: compressed, if that makes them smaller.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    /// Making one of these takes longer than a small body does, so each thread keeps its own.
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The first byte says how the rest is written.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The library's default: JSON shrinks to about a fifth.
const LEVEL: i32 = 3;

pub(super) fn pack(body: &[u8]) -> Vec<u8> {
    let compressed = compressed(body).ok().filter(|bytes| bytes.len() < body.len());
    let (form, bytes) = match &compressed {
        Some(bytes) => (ZSTD, &bytes[..]),
        None => (PLAIN, body),
    };
    [&[form], bytes].concat()
}

/// The body, which has `size` bytes. `None` where this is nothing that [`pack`] has written.
pub(super) fn unpack(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let body = match packed.split_first()? {
        (&PLAIN, bytes) => bytes.to_vec(),
        (&ZSTD, bytes) => decompressed(bytes, size).ok()?,
        _ => return None,
    };
    (body.len() == size).then_some(body)
}

fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    PACKER.with_borrow_mut(|packer| match packer {
        Some(packer) => packer.compress(body),
        none => none.insert(Compressor::new(LEVEL)?).compress(body),
    })
}

fn decompressed(bytes: &[u8], size: usize) -> io::Result<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(bytes, size),
        none => none.insert(Decompressor::new()?).decompress(bytes, size),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_byte_for_byte() {
        let json = br#"{"task":{"task_id":"a","status":"completed"}}"#.repeat(100);
        let random: Vec<u8> = (0..1_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for body in [&json[..], &random, b"{}", b""] {
            assert_eq!(unpack(&pack(body), body.len()).as_deref(), Some(body));
        }
        assert!(pack(&json).len() < json.len() / 5);
        assert!(pack(&random).len() <= random.len() + 1);
    }

    #[test]
    fn what_was_damaged_is_noticed() {
        let packed = pack(&[b'x'; 1_000]);
        assert_eq!(unpack(&packed, 999), None);
        assert_eq!(unpack(&packed[..packed.len() - 1], 1_000), None);
        // What comes after it is read as ever.
        assert_eq!(unpack(&packed, 1_000).as_deref(), Some(&[b'x'; 1_000][..]));
        assert_eq!((unpack(&[], 0), unpack(&[7, 1], 1)), (None, None));
    }
}
