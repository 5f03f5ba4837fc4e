//! One floating-point number, read as C's `strtof` reads it: the longest prefix that is a number, rounded once.
//!
//! Accepts decimal and hexadecimal numbers, `inf`, `infinity` and `nan`, each with an optional sign. White space before
//! the number is the caller's business.

/// A number and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    pub value: f32,
    /// Bytes of the input that belong to the number.
    pub len: usize,
    /// The number is finite as written but not as a `f32`.
    pub overflow: bool,
}

/// Reads the number at the start of `input`, or `None` if there is none.
pub(crate) fn scan(input: &[u8]) -> Option<Number> {
    let sign_len = usize::from(matches!(input.first(), Some(b'+' | b'-')));
    let unsigned = &input[sign_len..];
    let number = match unsigned.first()? {
        b'0' if is_hexadecimal(unsigned) => hexadecimal(unsigned),
        b'0'..=b'9' | b'.' => decimal(unsigned)?,
        _ => named(unsigned)?,
    };
    let value = if input[0] == b'-' { -number.value } else { number.value };
    Some(Number { value, len: number.len + sign_len, ..number })
}

fn named(input: &[u8]) -> Option<Number> {
    const NAMES: [(&[u8], f32); 3] = [(b"infinity", f32::INFINITY), (b"inf", f32::INFINITY), (b"nan", f32::NAN)];
    let is_prefix = |name: &[u8]| input.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let (name, value) = NAMES.into_iter().find(|(name, _)| is_prefix(name))?;
    Some(Number { value, len: name.len(), overflow: false })
}

/// The digits of a decimal number while they are read.
#[derive(Default)]
struct Digits {
    /// Meaningful while `count` is at most [`Digits::MAX_EXACT`]; wraps beyond that.
    mantissa: u64,
    count: usize,
    len: usize,
}

impl Digits {
    /// Any number of so many decimal digits fits in an `u64`.
    const MAX_EXACT: usize = 19;

    #[inline]
    fn run(&mut self, input: &[u8]) {
        let start = self.len;
        while let Some(digit) = input.get(self.len).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
            self.mantissa = self.mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.len += 1;
        }
        self.count += self.len - start;
    }
}

#[inline]
fn decimal(input: &[u8]) -> Option<Number> {
    let mut digits = Digits::default();
    digits.run(input);
    let mut exponent = 0;
    if input.get(digits.len) == Some(&b'.') {
        let before = digits.count;
        digits.len += 1;
        digits.run(input);
        exponent = before as i64 - digits.count as i64;
    }
    if digits.count == 0 {
        return None;
    }
    let (suffix_exponent, suffix_len) = exponent_suffix(&input[digits.len..], b'e');
    let len = digits.len + suffix_len;
    let exact = (digits.count <= Digits::MAX_EXACT).then_some(digits.mantissa);
    let value = match exact.and_then(|mantissa| short_decimal(mantissa, exponent + suffix_exponent)) {
        Some(value) => value,
        None => std::str::from_utf8(&input[..len]).ok()?.parse().ok()?,
    };
    Some(Number { value, len, overflow: value.is_infinite() })
}

/// `mantissa * 10^exponent` where one `f64` operation and one rounding to `f32` give the correctly rounded result.
///
/// The `f64` is correctly rounded because both operands are exact. Rounding it again is harmless unless it lies exactly
/// half-way between two `f32`, where the digits lost by the first rounding would have decided.
#[inline]
fn short_decimal(mantissa: u64, exponent: i64) -> Option<f32> {
    const HALF_WAY: u64 = 1 << 28;
    let power = *POWERS_OF_TEN.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
    if mantissa > 1 << 53 {
        return None;
    }
    let wide = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    let is_normal = wide >= f64::from(f32::MIN_POSITIVE) && wide <= f64::from(f32::MAX);
    let is_tie = wide.to_bits() & (2 * HALF_WAY - 1) == HALF_WAY;
    (mantissa == 0 || (is_normal && !is_tie)).then_some(wide as f32)
}

/// Powers of ten that a `f64` holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Reads `e-12` or `p+3`: the exponent and its length, both zero if there is none. Huge exponents saturate.
#[inline]
fn exponent_suffix(input: &[u8], marker: u8) -> (i64, usize) {
    const LIMIT: i64 = 1 << 32;
    if !input.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&marker)) {
        return (0, 0);
    }
    let sign = input.get(1).copied().filter(|byte| matches!(byte, b'+' | b'-'));
    let start = 1 + usize::from(sign.is_some());
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit());
    let (value, count) =
        digits.fold((0, 0), |(value, count), &byte| (LIMIT.min(value * 10 + i64::from(byte - b'0')), count + 1));
    match (count, sign) {
        (0, _) => (0, 0),
        (_, Some(b'-')) => (-value, start + count),
        _ => (value, start + count),
    }
}

/// Whether `0x` is followed by at least one hexadecimal digit; otherwise the number is the `0` alone.
fn is_hexadecimal(input: &[u8]) -> bool {
    let digit_at = |at: usize| input.get(at).is_some_and(u8::is_ascii_hexdigit);
    matches!(input.get(1), Some(b'x' | b'X')) && (digit_at(2) || (input.get(2) == Some(&b'.') && digit_at(3)))
}

/// Keeps the leading bits and, in the lowest of them, whether any later bit was set; an `f64` with 52 such bits then
/// rounds to the `f32` that the whole number would round to.
fn hexadecimal(input: &[u8]) -> Number {
    const FULL: u64 = 1 << 48;
    let (mut mantissa, mut exponent, mut sticky, mut len) = (0_u64, 0_i64, false, 2);
    let mut after_point = false;
    while let Some(&byte) = input.get(len) {
        match char::from(byte).to_digit(16) {
            Some(digit) if mantissa < FULL => {
                mantissa = mantissa * 16 + u64::from(digit);
                exponent -= if after_point { 4 } else { 0 };
            }
            Some(digit) => {
                sticky |= digit != 0;
                exponent += if after_point { 0 } else { 4 };
            }
            None if byte == b'.' && !after_point => after_point = true,
            None => break,
        }
        len += 1;
    }
    let (suffix_exponent, suffix_len) = exponent_suffix(&input[len..], b'p');
    let value = scale(mantissa | u64::from(sticky), exponent + suffix_exponent);
    Number { value, len: len + suffix_len, overflow: value.is_infinite() }
}

/// `mantissa * 2^exponent`. The clamp keeps the `f64` normal and is far outside what a `f32` holds.
fn scale(mantissa: u64, exponent: i64) -> f32 {
    (mantissa as f64 * 2f64.powi(exponent.clamp(-400, 400) as i32)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<(f32, usize)> {
        scan(text.as_bytes()).map(|number| (number.value, number.len))
    }

    #[test]
    fn reads_the_longest_prefix() {
        for (text, expected, len) in [
            ("1", 1.0, 1),
            ("+1.5,", 1.5, 4),
            ("-.5", -0.5, 3),
            ("5.", 5.0, 2),
            ("1e5x", 1e5, 3),
            ("1e", 1.0, 1),
            ("1e+", 1.0, 1),
            ("1.2.3", 1.2, 3),
            ("0x", 0.0, 1),
            ("0x.", 0.0, 1),
            ("0x10", 16.0, 4),
            ("0X.8p1", 1.0, 6),
            ("0x1p", 1.0, 3),
            ("0x1.8p-1z", 0.75, 8),
            ("infinityx", f32::INFINITY, 8),
            ("-InF", f32::NEG_INFINITY, 4),
            ("1e-99", 0.0, 5),
        ] {
            assert_eq!(value(text), Some((expected, len)), "{text}");
        }
        for text in ["", "+", "-", ".", "e5", ".e5", "x", "--1", "+-1", "in", "_1"] {
            assert_eq!(value(text), None, "{text}");
        }
        assert!(scan(b"nan").unwrap().value.is_nan());
    }

    #[test]
    fn overflow_is_not_infinity() {
        for text in ["1e39", "4e38", "340282356779733661637539395458142568448", "0x1p128", "1e99999999999999999999"] {
            assert!(scan(text.as_bytes()).unwrap().overflow, "{text}");
        }
        for text in ["3.4028235e38", "inf", "0e99999999999999999999", "340282356779733661637539395458142568447"] {
            assert!(!scan(text.as_bytes()).unwrap().overflow, "{text}");
        }
    }

    #[test]
    fn hexadecimal_rounds_once() {
        assert_eq!(value("0x1.000001p0").unwrap().0, 1.0);
        assert_eq!(value("0x1.0000010000000000000000001p0").unwrap().0, 1.0 + f32::EPSILON);
        assert_eq!(value("0x1.000003p0").unwrap().0, 1.0 + 2.0 * f32::EPSILON);
        assert_eq!(value("0x0.00000000000000000000000000000000000000000001p24").unwrap().0, 2f32.powi(-148 - 4));
        assert_eq!(value("0x1p-149").unwrap().0, f32::from_bits(1));
        assert_eq!(value("0x1p-150").unwrap().0, 0.0);
        assert_eq!(value("0x1.0000000000000000001p-150").unwrap().0, f32::from_bits(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn agrees_with_the_standard_library(text in "[0-9]{0,12}(\\.[0-9]{0,12})?(e[+-]?[0-9]{1,2})?") {
            let expected = text.parse::<f32>().ok();
            let found = scan(text.as_bytes()).filter(|number| number.len == text.len()).map(|number| number.value);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn ties_are_decided_by_the_digits(bits in 0x0080_0000_u32..0x7f00_0000, tail in "[0-9]{1,6}") {
            let half_way = (f64::from(f32::from_bits(bits)) + f64::from(f32::from_bits(bits + 1))) / 2.0;
            for text in [format!("{half_way:e}"), format!("{half_way}.{tail}"), format!("{:.9e}", half_way)] {
                if let Ok(expected) = text.parse::<f32>() {
                    prop_assert_eq!(scan(text.as_bytes()).unwrap().value, expected);
                }
            }
        }
    }
}
