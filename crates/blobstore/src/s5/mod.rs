//! S5: path services ([`path`]) and portals ([`portal`]).
//!
//! There is no single contract of either; what is sent is what all known servers understand, and what comes back is
//! believed only after the hash of the bytes was compared. docs/stores-s5.md says what a person sees of it.

pub mod account;
pub mod cid;
mod listing;
pub mod path;
pub mod phrase;
pub mod portal;
mod tus;
mod upload;

use crate::http::Answer;
use crate::options::{S5Api, S5Options};
use crate::{Error, Hash, Object, Result, Store};
use data_encoding::HEXLOWER;
use std::sync::Arc;

/// How often bytes are fetched again that are not what was stored: the fault may be one of the way.
const READS: u32 = 3;

/// The store that the options describe. Nothing is sent.
///
/// # Errors
/// [`Error::Option`].
pub fn open(options: S5Options) -> Result<Arc<dyn Store>> {
    match options.api {
        S5Api::Path => Ok(Arc::new(path::PathStore::new(options)?)),
        S5Api::Portal => Ok(Arc::new(portal::PortalStore::new(options)?)),
    }
}

/// Whether a name may be a segment of a path: `[a-z0-9][a-z0-9._-]*`, at most 100 bytes. `.` and `..` are none.
fn is_segment(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    first && name.len() <= 100 && name.bytes().all(inner)
}

/// The 32 hexadecimal digits in the name of an object, which are the beginning of its hash.
fn digits(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".bin").or_else(|| name.strip_suffix(".cbor"))?;
    let digits = stem.get(stem.len().checked_sub(32)?..)?;
    digits.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)).then_some(digits)
}

/// The hash of an object that is to be stored.
///
/// # Errors
/// [`Error::Protocol`] if it is empty, or its name is not one that every store takes and that says the hash.
fn check_object(object: &Object) -> Result<Hash> {
    let bad = |what: &str| Error::Protocol { message: format!("object \"{}\" {what}", object.name) };
    if object.bytes.is_empty() {
        return Err(bad("is empty"));
    }
    let hash = *blake3::hash(&object.bytes).as_bytes();
    match digits(&object.name).filter(|_| is_segment(&object.name)) {
        None => Err(bad("has a name that not every store takes")),
        Some(digits) if HEXLOWER.encode(&hash).starts_with(digits) => Ok(hash),
        Some(_) => Err(bad("has the name of other bytes")),
    }
}

/// Whether an answer says what the Dart node says of a blob that nobody has.
fn timed_out(answer: &Answer) -> bool {
    answer.status.as_u16() == 500 && String::from_utf8_lossy(&answer.body).contains("Timed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, good) in [
            ("graph-0a.bin", true),
            ("0", true),
            ("", false),
            (".", false),
            ("..", false),
            ("-a", false),
            ("A", false),
            ("a/b", false),
            ("a b", false),
            ("a%2e", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(is_segment(name), good, "{name}");
        }
        assert!(!is_segment(&"a".repeat(101)));
        let digits32 = "0123456789abcdef0123456789abcdef";
        assert_eq!(digits(&format!("manifest-{digits32}.cbor")), Some(digits32));
        assert_eq!(digits(&format!("{digits32}.bin")), Some(digits32));
        for name in ["a.bin", "\u{e9}0123456789abcdef0123456789abcdef", &format!("x-{digits32}.json")] {
            assert_eq!(digits(name), None, "{name}");
        }
        assert_eq!(digits(&format!("x-{}.bin", digits32.to_uppercase())), None);
    }

    #[test]
    fn objects_are_named_after_their_bytes() {
        let bytes = b"hello world".to_vec();
        let name = |stem: &str| Object { name: format!("{stem}.bin"), bytes: bytes.clone() };
        assert!(check_object(&name("graph-d74981efa70a0c880b8d8c1985d075db")).is_ok());
        assert!(check_object(&name("graph-e74981efa70a0c880b8d8c1985d075db")).is_err());
        assert!(check_object(&name("graph")).is_err());
        assert!(check_object(&name("../d74981efa70a0c880b8d8c1985d075db")).is_err());
        let empty = Object { name: "x-af1349b9f5f9a1a6a0404dea36dcc949.bin".to_owned(), bytes: Vec::new() };
        assert!(check_object(&empty).is_err());
    }
}
