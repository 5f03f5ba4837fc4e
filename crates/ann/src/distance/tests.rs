//! Every set of kernels against sums in f64 and exact integers.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// What a sum must be: its value, and the sum of the magnitudes that took part, for the rounding bound.
#[derive(Clone, Copy, Default)]
struct Expected {
    value: f64,
    magnitude: f64,
}

impl Expected {
    fn sum(terms: impl Iterator<Item = (f64, f64)>) -> Self {
        terms.fold(Self::default(), |sum, (term, magnitude)| Self {
            value: sum.value + term,
            magnitude: sum.magnitude + magnitude,
        })
    }

    /// A term takes at most four roundings and the sum at most `len` more, each of 2^-24 of what it rounds;
    /// products below the normal range lose at most 2^-149 each.
    fn check(self, got: f32, len: usize, what: &str) -> Result<(), TestCaseError> {
        let bound = (len + 5) as f64 * (self.magnitude * f64::from(f32::EPSILON) + 2f64.powi(-149));
        let error = (f64::from(got) - self.value).abs();
        prop_assert!(error <= bound, "{what}: {got} is not within {bound:e} of {} at {len} values", self.value);
        Ok(())
    }
}

fn product(a: &[f64], b: &[f64]) -> Expected {
    Expected::sum(a.iter().zip(b).map(|(x, y)| (x * y, (x * y).abs())))
}

fn check_floats(a: &[f32], b: &[f32]) -> Result<(), TestCaseError> {
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let half = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    let from_half = |x: &[f16]| x.iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>();
    let (ha, hb) = (half(a), half(b));
    let (wide_a, wide_b, wide_ha, wide_hb) = (wide(a), wide(b), from_half(&ha), from_half(&hb));
    for k in all_kernels() {
        let full = [(k.l2_squared)(a, b), (k.l1)(a, b), (k.dot)(a, b)];
        check_set(k.name, full, (k.cosine_parts)(a, b), &wide_a, &wide_b)?;
        let half = [(k.l2_squared_f16)(&ha, &hb), (k.l1_f16)(&ha, &hb), (k.dot_f16)(&ha, &hb)];
        check_set(k.name, half, (k.cosine_parts_f16)(&ha, &hb), &wide_ha, &wide_hb)?;
    }
    Ok(())
}

fn check_set(
    name: &str,
    [l2, l1, dot]: [f32; 3],
    parts: (f32, f32, f32),
    a: &[f64],
    b: &[f64],
) -> Result<(), TestCaseError> {
    let len = a.len();
    let pairs = || a.iter().zip(b);
    let squares = pairs().map(|(x, y)| ((x - y).powi(2), (x - y).powi(2)));
    Expected::sum(squares).check(l2, len, &format!("{name} l2_squared"))?;
    let differences = pairs().map(|(x, y)| ((x - y).abs(), (x - y).abs()));
    Expected::sum(differences).check(l1, len, &format!("{name} l1"))?;
    product(a, b).check(dot, len, &format!("{name} dot"))?;
    product(a, b).check(parts.0, len, &format!("{name} cosine a·b"))?;
    product(a, a).check(parts.1, len, &format!("{name} cosine a·a"))?;
    product(b, b).check(parts.2, len, &format!("{name} cosine b·b"))
}

fn check_codes(a: &[u8], b: &[u8], query: &[(i8, i8)]) -> Result<(), TestCaseError> {
    let (hi, lo): (Vec<i8>, Vec<i8>) = query.iter().copied().unzip();
    let scalar = &scalar::KERNELS;
    for k in all_kernels() {
        prop_assert_eq!((k.dot_u8)(a, b), (scalar.dot_u8)(a, b), "{} dot_u8 at {}", k.name, a.len());
        let expected = (scalar.dot_u8_i15)(a, &hi, &lo);
        prop_assert_eq!((k.dot_u8_i15)(a, &hi, &lo), expected, "{} dot_u8_i15 at {}", k.name, a.len());
    }
    Ok(())
}

fn check_l1_codes(a: &[u8], b: &[u8], query: &[f32], scales: [f32; 2], offsets: [f32; 2]) -> Result<(), TestCaseError> {
    let decode = |c: u8, i: usize| {
        let (offset, scaled) = (f64::from(offsets[i]), f64::from(scales[i]) * f64::from(c));
        (offset + scaled, offset.abs() + scaled.abs())
    };
    let to_query = Expected::sum(a.iter().zip(query).map(|(&c, &q)| {
        let (value, magnitude) = decode(c, 0);
        ((f64::from(q) - value).abs(), magnitude + f64::from(q.abs()))
    }));
    let pair = Expected::sum(a.iter().zip(b).map(|(&x, &y)| {
        let ((x, x_magnitude), (y, y_magnitude)) = (decode(x, 0), decode(y, 1));
        ((x - y).abs(), x_magnitude + y_magnitude)
    }));
    for k in all_kernels() {
        to_query.check((k.l1_sq8)(a, scales[0], offsets[0], query), a.len(), &format!("{} l1_sq8", k.name))?;
        let got = (k.l1_sq8_pair)((a, scales[0], offsets[0]), (b, scales[1], offsets[1]));
        pair.check(got, a.len(), &format!("{} l1_sq8_pair", k.name))?;
    }
    Ok(())
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), Just(0), Just(255)]
}

fn planes() -> impl Strategy<Value = (i8, i8)> {
    (prop_oneof![-127i8..=127, Just(-127), Just(127)], prop_oneof![any::<i8>(), Just(-128), Just(127)])
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -1f32..1.0, 1 => -100f32..100.0, 1 => Just(0.0), 1 => Just(-0.0), 1 => -1e-6f32..1e-6]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![60 => 1usize..=1100, 1 => Just(2000), 1 => Just(4096), 1 => Just(16_000)]
}

/// Vectors of one length, and how many values to cut off in front to move the alignment.
fn vectors<T: std::fmt::Debug>(item: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = (Vec<T>, usize)> {
    let item = item.boxed();
    (length(), 0usize..4)
        .prop_flat_map(move |(len, skip)| (proptest::collection::vec(item.clone(), len + skip), Just(skip)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn float_kernels_stay_within_the_rounding_bound((pairs, skip) in vectors((value(), value()))) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        check_floats(&a[skip..], &b[skip..])?;
    }

    #[test]
    fn integer_kernels_are_exact((items, skip) in vectors((byte(), byte(), planes()))) {
        let a: Vec<u8> = items.iter().map(|i| i.0).collect();
        let b: Vec<u8> = items.iter().map(|i| i.1).collect();
        let query: Vec<(i8, i8)> = items.iter().map(|i| i.2).collect();
        check_codes(&a[skip..], &b[skip..], &query[skip..])?;
    }

    #[test]
    fn l1_of_codes_stays_within_the_rounding_bound(
        (items, skip) in vectors((byte(), byte(), value())),
        scales in [0f32..0.1, 0f32..0.1],
        offsets in [-10f32..10.0, -10f32..10.0],
    ) {
        let a: Vec<u8> = items.iter().map(|i| i.0).collect();
        let b: Vec<u8> = items.iter().map(|i| i.1).collect();
        let query: Vec<f32> = items.iter().map(|i| i.2).collect();
        check_l1_codes(&a[skip..], &b[skip..], &query[skip..], scales, offsets)?;
    }
}

fn check_scan(codes: &[u8], tables: &[u8]) -> Result<(), TestCaseError> {
    let mut expected: [u32; 32] = std::array::from_fn(|i| i as u32 * 1000);
    let before = expected;
    (scalar::KERNELS.fast_scan)(codes, tables, &mut expected);
    for k in all_kernels() {
        let mut sums = before;
        (k.fast_scan)(codes, tables, &mut sums);
        prop_assert_eq!(sums, expected, "{} fast_scan at {} and {}", k.name, codes.len(), tables.len());
    }
    Ok(())
}

fn check_panel(rows: &[f32], dimensions: usize, panel: &[f32]) -> Result<(), TestCaseError> {
    for k in all_kernels() {
        let mut out = vec![[f32::NAN; 32]; rows.len() / dimensions];
        (k.dot_panel)(rows, dimensions, panel, &mut out);
        for (row, out) in rows.chunks_exact(dimensions).zip(&out) {
            for (i, &got) in out.iter().enumerate() {
                let pairs = row.iter().zip(panel[i..].iter().step_by(32));
                let terms = pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).map(|term| (term, term.abs()));
                Expected::sum(terms).check(got, dimensions, &format!("{} dot_panel", k.name))?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn look_ups_are_exact(bytes in proptest::collection::vec((any::<u8>(), byte()), 0..9000), skip in 0usize..20) {
        let (codes, tables): (Vec<u8>, Vec<u8>) = bytes.into_iter().unzip();
        check_scan(&codes, &tables)?;
        check_scan(&codes[codes.len().min(skip)..], &tables)?;
        check_scan(&codes, &tables[codes.len().min(skip)..])?;
    }

    #[test]
    fn panels_stay_within_the_rounding_bound(
        (dimensions, rows, panel) in (1usize..70, 0usize..30).prop_flat_map(|(dimensions, rows)| {
            let values = |len| proptest::collection::vec(value(), len);
            (Just(dimensions), values(rows * dimensions), values(32 * dimensions))
        }),
    ) {
        check_panel(&rows, dimensions, &panel)?;
    }
}

proptest! {
    // Compiled from the same source without fused operations, they are the same to the bit.
    #[test]
    fn least_scores_are_the_same_everywhere(
        values in proptest::collection::vec(
            (value(), value(), prop_oneof![9 => value(), 1 => Just(f32::INFINITY), 1 => Just(f32::NAN)]), 32 * 5),
        [along, weight] in [value(), value()],
    ) {
        let values: Vec<[f32; 3]> = values.into_iter().map(<[f32; 3]>::from).collect();
        let lanes = |i: usize, column: usize| -> [f32; 32] { std::array::from_fn(|lane| values[32 * i + lane][column]) };
        let [mut expected, mut expected_second] = [[Least::NONE; 5]; 2];
        for (nth, k) in all_kernels().into_iter().rev().enumerate() {
            let [mut least, mut second] = [[Least::NONE; 5]; 2];
            for panel in 0..5 {
                let dots: [[f32; 32]; 5] = std::array::from_fn(|i| lanes(i, panel as usize % 2));
                (k.least_distance)(panel, &lanes(panel as usize, 2), &dots, &mut least);
                for (i, second) in second.iter_mut().enumerate() {
                    let values = [&lanes(panel as usize, 2), &dots[i], &lanes(i, 1)];
                    (k.least_second)(panel, values, along, weight, second);
                }
            }
            if nth == 0 {
                (expected, expected_second) = (least, second);
                prop_assert!(least.iter().flat_map(|l| l.score).all(|score| !score.is_nan()));
            }
            prop_assert_eq!(least, expected, "{}", k.name);
            prop_assert_eq!(second, expected_second, "{}", k.name);
        }
    }
}

proptest! {
    #[test]
    fn estimates_are_the_same_everywhere(
        rows in proptest::collection::vec((0u32..1 << 24, any::<u16>(), 0u16..0x7f80, value()), 32),
        [add, distance, step, offset, table_error] in [value(), value(), value(), value(), value()],
    ) {
        let terms = Estimate { add, distance, step, offset, table_error };
        let sums: [u32; 32] = std::array::from_fn(|i| rows[i].0);
        // Scales of ordinary size.
        let scale: [u16; 32] = std::array::from_fn(|i| rows[i].1 & 0xbfff);
        let error: [u16; 32] = std::array::from_fn(|i| rows[i].2);
        let base: [f32; 32] = std::array::from_fn(|i| rows[i].3);
        let run = |k: &Kernels| {
            let [mut est, mut bound] = [[0.0; 32]; 2];
            (k.estimate)(&terms, &sums, [&scale, &error], &base, &mut est, &mut bound);
            [est, bound].map(|values| values.map(f32::to_bits))
        };
        for k in all_kernels() {
            prop_assert_eq!(run(k), run(&scalar::KERNELS), "{}", k.name);
        }
    }
}

#[test]
fn the_largest_look_ups_do_not_overflow() {
    for groups in [0, 1, 2, 3, 5, 255, 256, 257, 258, 512, 4000, 4001] {
        for code in [0u8, 15, 0xf0, 0xff] {
            check_scan(&vec![code; 16 * groups], &vec![255; 16 * groups]).unwrap();
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    for len in [1, 63, 64, 100, 1536, 2047, 2048, 2049, 4096, 16_000, 65_536, 65_537, 200_001] {
        for query in [(127, 127), (-127, -128), (-127, 127), (127, -128)] {
            check_codes(&vec![255; len], &vec![255; len], &vec![query; len]).unwrap();
        }
    }
}

#[test]
fn every_length_has_its_tail() {
    for len in 0..=330 {
        let a: Vec<f32> = (0..len).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let b: Vec<f32> = (0..len).map(|i| ((i * 53) % 103) as f32 / 50.0 - 1.0).collect();
        let code: Vec<u8> = (0..len).map(|i| (i * 29) as u8).collect();
        let other: Vec<u8> = (0..len).map(|i| (i * 31 + 7) as u8).collect();
        let query: Vec<(i8, i8)> = code.iter().map(|&c| ((c as i8).max(-127), c as i8 ^ 3)).collect();
        check_floats(&a, &b).unwrap();
        check_codes(&code, &other, &query).unwrap();
        check_l1_codes(&code, &other, &b, [0.01, 0.02], [-1.0, 1.5]).unwrap();
    }
}

#[test]
fn the_shorter_slice_counts() {
    let (long, short) = (vec![1f32; 300], vec![1f32; 77]);
    let (long_half, short_half) = (vec![f16::ONE; 300], vec![f16::ONE; 77]);
    for k in all_kernels() {
        assert_eq!(((k.dot)(&long, &short), (k.dot)(&short, &long)), (77.0, 77.0), "{}", k.name);
        assert_eq!((k.cosine_parts)(&long, &short), (77.0, 77.0, 77.0), "{}", k.name);
        assert_eq!((k.dot_f16)(&long_half, &short_half), 77.0, "{}", k.name);
        assert_eq!((k.cosine_parts_f16)(&short_half, &long_half), (77.0, 77.0, 77.0), "{}", k.name);
        assert_eq!(((k.l1)(&long, &short), (k.l2_squared)(&short, &long)), (0.0, 0.0), "{}", k.name);
        assert_eq!((k.dot_u8)(&[2; 300], &[3; 77]), 6 * 77, "{}", k.name);
        assert_eq!((k.dot_u8_i15)(&[2; 300], &[1; 90], &[1; 77]), 2 * 257 * 77, "{}", k.name);
        assert_eq!((k.dot_u8_i15)(&[2; 3000], &[1; 2500], &[1; 2100]), 2 * 257 * 2100, "{}", k.name);
        assert_eq!((k.l1_sq8)(&[1; 300], 1.0, 0.0, &short), 0.0, "{}", k.name);
        assert_eq!((k.l1_sq8_pair)((&[1; 300], 1.0, 0.0), (&[3; 77], 1.0, 0.0)), 154.0, "{}", k.name);
    }
}
