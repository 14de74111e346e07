//! Bodies as they are kept after their callbacks have ended: compressed, if that makes them smaller.

/// The first byte says how the rest is written.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The library's default: JSON shrinks to about a fifth.
const LEVEL: i32 = 3;

pub(super) fn pack(body: &[u8]) -> Vec<u8> {
    let compressed = zstd::bulk::compress(body, LEVEL).ok().filter(|bytes| bytes.len() < body.len());
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
        (&ZSTD, bytes) => zstd::bulk::decompress(bytes, size).ok()?,
        _ => return None,
    };
    (body.len() == size).then_some(body)
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
        assert_eq!((unpack(&[], 0), unpack(&[7, 1], 1)), (None, None));
    }
}
