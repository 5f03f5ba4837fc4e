//! Drives the fuzz entry points with bytes from a fixed generator: half noise, half near misses of valid input.

use vectext::fuzz::{fuzz_binary, fuzz_text};

const CASES: usize = 50_000;

/// xorshift64*, so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn bytes(&mut self, alphabet: &[u8]) -> Vec<u8> {
        (0..self.below(40)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

#[test]
fn text_keeps_its_promises() {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..=255).collect();
    for _ in 0..CASES {
        fuzz_text(&random.bytes(&noise));
        let body = random.bytes(b"0123456789,,..eE+-xXpaninfty[] \t");
        fuzz_text(&[b"[", body.as_slice(), b"]"].concat());
    }
}

#[test]
fn binary_keeps_its_promises() {
    let mut random = Random(2);
    let noise: Vec<u8> = (0..=255).collect();
    for _ in 0..CASES {
        fuzz_binary(&random.bytes(&noise));
        let body = random.bytes(&noise);
        let header = [0, (body.len() / 4) as u8, 0, 0];
        fuzz_binary(&[header.as_slice(), &body].concat());
    }
}
