//! The text form: `[1,2,3]`, white space allowed around every part.

use crate::error::Error;
use crate::{MAX_DIM, check_dim, check_element, check_expected, number};

/// Most bytes that one number takes in the text form, and what a float writer may write.
pub const MAX_NUMBER_LEN: usize = 15;

/// Parses the text form; `expected` is the number of dimensions that the column declares.
///
/// # Errors
/// The first fault found from left to right; the number of dimensions is compared last.
pub fn parse(literal: &[u8], expected: Option<i32>) -> Result<Vec<f32>, Error> {
    let mut cursor = Cursor { literal, at: 0 };
    cursor.open()?;
    let mut values = Vec::with_capacity(literal.len().div_ceil(2).min(MAX_DIM));
    loop {
        if values.len() == MAX_DIM {
            return Err(Error::TooManyDimensions);
        }
        values.push(cursor.number()?);
        if cursor.number_is_last()? {
            break;
        }
    }
    cursor.end()?;
    check_dim(values.len())?;
    check_expected(expected, values.len())?;
    Ok(values)
}

/// The text form of `values`; `write` puts the shortest decimal form of a number in the buffer and returns its length.
///
/// The writer is a parameter because PostgreSQL's own (which the server side passes) differs from every crate's in
/// notation and, at some powers of two, in the last digit.
pub fn format(values: &[f32], write: impl Fn(f32, &mut [u8; MAX_NUMBER_LEN + 1]) -> usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(values.len() * (MAX_NUMBER_LEN + 1) + 2);
    let mut buffer = [0; MAX_NUMBER_LEN + 1];
    let mut separator = b'[';
    for &value in values {
        let len = write(value, &mut buffer).min(MAX_NUMBER_LEN);
        text.push(separator);
        text.extend_from_slice(&buffer[..len]);
        separator = b',';
    }
    text.push(b']');
    text
}

struct Cursor<'a> {
    literal: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn open(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.peek() != Some(b'[') {
            return Err(self.syntax(Some("Vector contents must start with \"[\".")));
        }
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b']') { Err(Error::Empty) } else { Ok(()) }
    }

    #[inline]
    fn number(&mut self) -> Result<f32, Error> {
        self.skip_space();
        let rest = &self.literal[self.at..];
        let number = number::scan(rest).ok_or_else(|| self.syntax(None))?;
        if number.overflow {
            return Err(Error::OutOfRange { number: String::from_utf8_lossy(&rest[..number.len]).into_owned() });
        }
        check_element(number.value)?;
        self.at += number.len;
        Ok(number.value)
    }

    #[inline]
    fn number_is_last(&mut self) -> Result<bool, Error> {
        self.skip_space();
        let is_last = match self.peek() {
            Some(b',') => false,
            Some(b']') => true,
            _ => return Err(self.syntax(None)),
        };
        self.at += 1;
        Ok(is_last)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.at < self.literal.len() { Err(self.syntax(Some("Junk after closing right brace."))) } else { Ok(()) }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.literal.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)) {
            self.at += 1;
        }
    }

    #[cold]
    fn syntax(&self, detail: Option<&'static str>) -> Error {
        Error::Syntax { literal: String::from_utf8_lossy(self.literal).into_owned(), detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::write_float;
    use proptest::prelude::*;

    fn fault(text: &str) -> Error {
        parse(text.as_bytes(), None).unwrap_err()
    }

    #[test]
    fn reads_what_pgvector_reads() {
        for (text, values) in [
            ("[1,2,3]", vec![1.0, 2.0, 3.0]),
            (" \t\n\r\x0b\x0c[ 1 ,\t2 ] ", vec![1.0, 2.0]),
            ("[+1.5,-.5,5.,1e2]", vec![1.5, -0.5, 5.0, 100.0]),
            ("[0x1p-2]", vec![0.25]),
            ("[1e-60]", vec![0.0]),
        ] {
            assert_eq!(parse(text.as_bytes(), None), Ok(values), "{text}");
        }
    }

    #[test]
    fn names_the_fault() {
        let syntax = |text: &str, detail| Error::Syntax { literal: text.into(), detail };
        for text in ["[", "[1", "[1,", "[1,]", "[1,,2]", "[,1]", "[1 2]", "[1e]", "[a]", "[1;2]", "[1_0]"] {
            assert_eq!(fault(text), syntax(text, None));
        }
        for text in ["", "1", "{1}", " (1)"] {
            assert_eq!(fault(text), syntax(text, Some("Vector contents must start with \"[\".")));
        }
        for text in ["[1]x", "[1]]", "[1],[2]"] {
            assert_eq!(fault(text), syntax(text, Some("Junk after closing right brace.")));
        }
        assert_eq!(fault("[]"), Error::Empty);
        assert_eq!(fault("[ ]"), Error::Empty);
        assert_eq!(fault("[nan]"), Error::NotANumber);
        assert_eq!(fault("[1,-Infinity]"), Error::Infinite);
        assert_eq!(fault("[ -1e39]"), Error::OutOfRange { number: "-1e39".into() });
    }

    #[test]
    fn counts_dimensions() {
        let text = |dim: usize| format!("[{}]", vec!["0"; dim].join(","));
        assert_eq!(parse(text(MAX_DIM).as_bytes(), Some(16_000)).unwrap().len(), MAX_DIM);
        assert_eq!(fault(&text(MAX_DIM + 1)), Error::TooManyDimensions);
        assert_eq!(parse(b"[1,2]", Some(3)), Err(Error::UnexpectedDimensions { expected: 3, dim: 2 }));
    }

    proptest! {
        #[test]
        fn round_trips(bits in prop::collection::vec(any::<u32>(), 1..100)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            prop_assume!(!values.is_empty());
            let parsed = parse(&format(&values, write_float), None).unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&parsed), bits(&values));
        }
    }
}
