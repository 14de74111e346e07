//! Which names are changed, and that nothing else is.

use callbackd_bench::http2::{frame, head};
use proptest::prelude::*;

use super::*;

/// A header with its name and value as plain text, which enters the table or does not.
fn plain(first: u8, name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[first, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn changed(block: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    change_names(&mut block);
    block
}

#[test]
fn forbidden_names_are_changed_in_each_way_to_write_them() {
    for (name, code, first) in NAMES {
        let text = std::str::from_utf8(name).unwrap();
        for begin in [0x00, 0x10, 0x40] {
            let other = format!("x{}", &text[1..]);
            assert_eq!(changed(&plain(begin, text, "v")), plain(begin, &other, "v"));
            assert_eq!(changed(&plain(begin, &text.to_uppercase(), "v")), plain(begin, &other, "v"));
            let huffman = |name: &[u8]| [&[begin, 0x80 | u8::try_from(name.len()).unwrap()], name, b"\x01v"].concat();
            let new = [&[first], &code[1..]].concat();
            assert_eq!(changed(&huffman(code)), huffman(&new), "{text}");
        }
    }
    for (number, other) in [(28, 29), (57, 58)] {
        assert_eq!(changed(&[0x80 | number]), [0x80 | other]);
        assert_eq!(changed(&[0x40 | number, 1, b'v']), [0x40 | other, 1, b'v']);
        assert_eq!(changed(&[0x0f, number - 15, 1, b'v']), [0x0f, other - 15, 1, b'v']);
    }
}

#[test]
fn other_headers_stay_as_they_are() {
    let all = [
        vec![0x3f, 0xe1, 0x1f],
        vec![0x88],
        plain(0x40, "content-type", "connection"),
        plain(0x00, "connection-x", "te"),
        vec![0x40 | 29, 1, b'v'],
        vec![0x80 | 28, 0x80 | 62],
    ]
    .concat();
    let mut expected = all.clone();
    // The last line names number 28, `content-length`, without a value.
    let place = expected.len() - 2;
    assert_eq!(expected[place], 0x80 | 28);
    expected[place] += 1;
    assert_eq!(changed(&all), expected);
}

#[test]
fn heads_are_found_wherever_the_stream_is_cut() {
    let block = [&[0x88][..], &plain(0x40, "connection", "keep-alive")].concat();
    let padded = [&[3][..], &[0; 5], &block, &[0; 3]].concat();
    let long = vec![b'd'; 20_000];
    let stream = |block: &[u8], padded: &[u8]| {
        [
            frame(4, 0, 0, &[0; 6]),
            head(1, false, block),
            // The bytes of a body look like a head here.
            frame(0, 0, 1, &head(1, false, &plain(0x40, "connection", "close"))),
            frame(0, 0, 1, &long),
            frame(1, 0x4 | PADDED | PRIORITY, 3, padded),
            frame(1, 0x4, 5, &[]),
            vec![0, 0, 9],
        ]
        .concat()
    };
    let (sent, seen) = (
        stream(&block, &padded),
        stream(&changed(&block), &{
            let inner = changed(&block);
            [&[3][..], &[0; 5], &inner, &[0; 3]].concat()
        }),
    );
    assert_ne!(sent, seen);
    for size in [1, 2, 8, 9, 10, 33, 1_000, 100_000] {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for piece in sent.chunks(size) {
            frames.take(piece, &mut out);
            assert!(frames.held.len() <= FRAME_HEAD + MAX_FRAME);
        }
        frames.end(&mut out);
        assert!(out == seen, "in pieces of {size}");
    }
}

proptest! {
    #[test]
    fn any_bytes_pass_with_their_length(bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1..50_usize) {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for piece in bytes.chunks(size) {
            frames.take(piece, &mut out);
        }
        frames.end(&mut out);
        prop_assert_eq!(out.len(), bytes.len());
    }

    #[test]
    fn any_block_is_gone_through_once_and_changing_it_again_changes_nothing(
        block in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let once = changed(&block);
        prop_assert_eq!(changed(&once), once);
    }
}
