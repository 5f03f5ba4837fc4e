//! Chunks of rows.

use crate::data::Random;
use archive::{CHUNK_BYTES, LARGEST_RAW, LinesChunk, RowsDecoder, RowsEncoder};
use std::collections::HashSet;

fn encode<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<LinesChunk> {
    let (mut encoder, mut chunks) = (RowsEncoder::new(), Vec::new());
    for line in lines {
        encoder
            .push(line, &mut |chunk| {
                chunks.push(chunk);
                Ok(())
            })
            .unwrap();
    }
    chunks.extend(encoder.flush());
    assert!(chunks.iter().all(|chunk| chunk.raw.len() <= LARGEST_RAW));
    chunks
}

fn decode(chunks: &[LinesChunk]) -> Vec<Vec<u8>> {
    let (mut decoder, mut lines) = (RowsDecoder::new(), Vec::new());
    for chunk in chunks {
        let count = decoder.chunk(&chunk.raw, &mut |line| {
            lines.push(line.to_vec());
            Ok(())
        });
        assert_eq!(count, Ok(chunk.lines));
    }
    decoder.finish().unwrap();
    lines
}

/// Lines as of a table with vectors of 100 dimensions.
fn table(rows: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random(seed);
    let line = |i: usize| {
        let values: Vec<String> =
            (0..100).map(|_| format!("{:.3}", random.below(2000) as f32 / 1000.0 - 1.0)).collect();
        format!("{i}\t[{}]", values.join(",")).into_bytes()
    };
    (0..rows).map(line).collect()
}

fn refs(lines: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    lines.iter().map(Vec::as_slice)
}

#[test]
fn lines_come_back() {
    let lines = table(40_000, 1);
    let chunks = encode(refs(&lines));
    assert!((7..=14).contains(&chunks.len()), "{} chunks", chunks.len());
    assert_eq!(chunks, encode(refs(&lines)));
    assert_eq!(decode(&chunks), lines);
    assert_eq!(encode([]), []);
    assert_eq!(decode(&encode([&b""[..], b"x", b""])), [&b""[..], b"x", b""]);
}

#[test]
fn a_chunk_is_text_for_copy_after_its_head() {
    let chunks = encode([&b"1\ta"[..], b"2\t\\N"]);
    assert_eq!(chunks[0].raw, b"\0\0\0\0\x02\0\0\x001\ta\n2\t\\N\n");
}

#[test]
fn few_changes_make_few_new_chunks() {
    let mut lines = table(100_000, 2);
    let before: HashSet<Vec<u8>> = encode(refs(&lines)).into_iter().map(|chunk| chunk.raw).collect();
    lines.insert(30_000, b"a new row".to_vec());
    lines.drain(70_000..70_010);
    lines.push(b"the last row".to_vec());
    let after = encode(refs(&lines));
    let new = after.iter().filter(|chunk| !before.contains(&chunk.raw)).count();
    assert!(after.len() > 16 && new <= 8, "{new} of {} chunks are new", after.len());
    assert_eq!(decode(&after), lines);
}

#[test]
fn long_lines_go_over_several_chunks() {
    let long =
        Random(3).bytes(3 * CHUNK_BYTES).into_iter().map(|byte| if byte == b'\n' { b'n' } else { byte }).collect();
    let lines: Vec<Vec<u8>> = vec![b"short".to_vec(), long, vec![b'x'; CHUNK_BYTES], b"end".to_vec()];
    let chunks = encode(refs(&lines));
    assert_eq!(chunks.iter().map(|chunk| chunk.lines).sum::<u32>(), 4);
    assert_eq!(decode(&chunks), lines);

    // Out of order, or with one missing, they are refused.
    let mut each = |_: &[u8]| Ok(());
    RowsDecoder::new().chunk(&chunks[2].raw, &mut each).unwrap_err();
    let mut decoder = RowsDecoder::new();
    decoder.chunk(&chunks[0].raw, &mut each).unwrap();
    decoder.chunk(&chunks[1].raw, &mut each).unwrap();
    decoder.chunk(&chunks[0].raw, &mut each).unwrap_err();
    decoder.finish().unwrap_err();
}

#[test]
fn lines_that_are_none_are_refused() {
    let mut each = |_| Ok(());
    let mut encoder = RowsEncoder::new();
    encoder.push(b"a\nb", &mut each).unwrap_err();
    encoder.push(br"\.", &mut each).unwrap_err();
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
        RowsDecoder::new().chunk(raw, &mut |_| Ok(())).unwrap_err();
    }
}
