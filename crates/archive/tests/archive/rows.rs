//! Chunks of rows.

use archive::{Error, LARGEST_RAW, RowsDecoder, RowsEncoder, RowsText};
use proptest::prelude::*;

fn encode(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut encoder = RowsEncoder::new();
    let chunks = pieces.iter().map(|piece| encoder.chunk(piece).unwrap()).collect();
    encoder.finish().unwrap();
    chunks
}

proptest! {
    #[test]
    fn pieces_come_back(
        pieces in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 1..40), 1..6)
    ) {
        let mut encoder = RowsEncoder::new();
        let chunks: Result<Vec<_>, Error> = pieces.iter().map(|piece| encoder.chunk(piece)).collect();
        let whole = pieces.concat();
        prop_assert_eq!(chunks.is_err(), whole.split(|&byte| byte == b'\n').any(|line| line == br"\."));
        let Ok(chunks) = chunks else { return Ok(()) };
        prop_assert_eq!(encoder.finish().is_ok(), whole.ends_with(b"\n"));
        let mut decoder = RowsDecoder::new();
        for (piece, chunk) in pieces.iter().zip(&chunks) {
            let lines = piece.iter().filter(|&&byte| byte == b'\n').count() as u32;
            prop_assert_eq!(decoder.chunk(chunk).unwrap(), RowsText { text: piece, lines });
        }
        prop_assert_eq!(decoder.finish().is_ok(), whole.ends_with(b"\n"));
    }
}

#[test]
fn a_chunk_is_text_for_copy_after_its_head() {
    assert_eq!(encode(&[b"1\ta\n2\t\\N\n"]), [b"\0\0\0\0\x02\0\0\x001\ta\n2\t\\N\n"]);
}

#[test]
fn chunks_are_read_in_their_order() {
    let chunks = encode(&[b"short\nlo", b"ooo", b"ng\nend\n", b"more\n"]);
    for (i, first) in chunks.iter().enumerate() {
        assert_eq!(RowsDecoder::new().chunk(first).is_ok(), i == 0 || i == 3);
    }
    let mut decoder = RowsDecoder::new();
    decoder.chunk(&chunks[0]).unwrap();
    decoder.chunk(&chunks[3]).unwrap_err();
    let mut decoder = RowsDecoder::new();
    decoder.chunk(&chunks[0]).unwrap();
    decoder.finish().unwrap_err();
}

#[test]
fn rows_that_are_none_are_refused() {
    for text in [&b""[..], b"\\.\n", b"a\n\\.\nb\n"] {
        assert!(matches!(RowsEncoder::new().chunk(text), Err(Error::Unfit { .. })));
    }
    assert!(matches!(RowsEncoder::new().chunk(&vec![b'a'; LARGEST_RAW]), Err(Error::TooLarge { .. })));
    // The mark of the end, in two pieces.
    let mut encoder = RowsEncoder::new();
    encoder.chunk(b"a\n\\").unwrap();
    encoder.chunk(b".\n").unwrap_err();
    for raw in [
        &b"\x04\0\0\0\x01\0\0\0a\n"[..],
        b"\0\x01\0\0\x01\0\0\0a\n",
        b"\0\0\0\0\x02\0\0\0a\n",
        b"\0\0\0\0\x01\0\0\0a",
        b"\x02\0\0\0\x01\0\0\0a\n",
        b"\x01\0\0\0\x01\0\0\0a\n",
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\x01\0\0\0\\.\n",
    ] {
        RowsDecoder::new().chunk(raw).unwrap_err();
    }
}
