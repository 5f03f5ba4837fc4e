//! Entry points for a fuzzer: each takes any bytes and panics if the codec breaks a promise.

use crate::text::MAX_NUMBER_LEN;
use crate::{MAX_DIM, binary, text};
use std::io::Write;

/// What parses is a vector, and prints as text that parses to the same bits.
///
/// # Panics
/// If the promise is broken.
pub fn fuzz_text(data: &[u8]) {
    let Ok(values) = text::parse(data, None) else { return };
    check_vector(&values);
    let again = text::parse(&text::format(&values, write_float), None).expect("own text form does not parse");
    assert!(values.iter().map(|value| value.to_bits()).eq(again.iter().map(|value| value.to_bits())));
}

/// What decodes is a vector, and encodes to the same bytes.
///
/// # Panics
/// If the promise is broken.
pub fn fuzz_binary(data: &[u8]) {
    let Ok(values) = binary::decode(data, None) else { return };
    check_vector(&values);
    assert_eq!(binary::encode(&values), &data[..binary::encoded_len(values.len())]);
}

fn check_vector(values: &[f32]) {
    assert!((1..=MAX_DIM).contains(&values.len()));
    assert!(values.iter().all(|value| value.is_finite()));
}

/// A stand-in for PostgreSQL's float writer: shortest digits, other notation.
pub(crate) fn write_float(value: f32, buffer: &mut [u8; MAX_NUMBER_LEN + 1]) -> usize {
    let mut rest = &mut buffer[..MAX_NUMBER_LEN];
    write!(rest, "{value:e}").expect("a shortest f32 fits");
    MAX_NUMBER_LEN - rest.len()
}
