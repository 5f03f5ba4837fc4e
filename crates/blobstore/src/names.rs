//! Names of objects, and what they say of the bytes.

use crate::{Error, Hash, LARGEST_OBJECT, Object, Result};

/// Bytes of the longest name.
const LONGEST_NAME: usize = 100;

/// Hexadecimal digits of the hash that are in a name.
const DIGITS: usize = 32;

/// Whether this may be the name of an object: see [`Object::name`].
pub fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(plain)
        && (name.ends_with(".bin") || name.ends_with(".cbor"))
        && digits(name).is_some()
}

/// The first 32 hexadecimal digits of the hash, as they stand in the name: behind the last hyphen.
pub fn digits(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let digits = stem.rsplit_once('-').map_or(stem, |(_, digits)| digits);
    let hexadecimal = digits.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    (digits.len() == DIGITS && hexadecimal).then_some(digits)
}

/// The name of an object of this kind with these bytes, e.g. `segment`, `bin`.
pub fn name_of(kind: &str, extension: &str, hash: &Hash) -> String {
    format!("{kind}-{}.{extension}", &blake3::Hash::from_bytes(*hash).to_hex()[..DIGITS])
}

/// # Errors
/// [`Error::Corrupt`] if the name tells of other bytes than these.
pub fn check_content(name: &str, hash: &Hash) -> Result<()> {
    match digits(name) {
        Some(digits) if blake3::Hash::from_bytes(*hash).to_hex().starts_with(digits) => Ok(()),
        _ => Err(Error::Corrupt { object: name.to_owned(), what: "its name belongs to other content".to_owned() }),
    }
}

/// Checks what is given to a store, and tells its hash.
///
/// # Errors
/// [`Error::Refused`] for an object that no store takes: empty, too large, or without a proper name;
/// [`Error::Corrupt`] if its name tells of other bytes.
pub fn check_object(object: &Object) -> Result<Hash> {
    let refused = |message: String| Err(Error::Refused { status: None, message });
    if !is_name(&object.name) {
        return refused(format!("{:?} cannot be the name of an object", object.name));
    }
    if object.bytes.is_empty() {
        return refused(format!("object \"{}\" is empty", object.name));
    }
    if object.bytes.len() > LARGEST_OBJECT {
        return refused(format!("object \"{}\" is longer than {LARGEST_OBJECT} bytes", object.name));
    }
    let hash = blake3::hash(&object.bytes).into();
    check_content(&object.name, &hash)?;
    Ok(hash)
}

/// Checks what was fetched.
///
/// # Errors
/// [`Error::Corrupt`], naming `object`.
pub fn check_bytes(object: &str, bytes: &[u8], expected: &crate::Expected) -> Result<()> {
    let corrupt = |what: String| Err(Error::Corrupt { object: object.to_owned(), what });
    if bytes.len() as u64 != expected.length {
        return corrupt(format!("it has {} bytes instead of {}", bytes.len(), expected.length));
    }
    if *blake3::hash(bytes).as_bytes() != expected.hash {
        return corrupt("its hash is another than when it was stored".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let hex = "0123456789abcdef0123456789abcdef";
        for (name, good) in [
            (format!("segment-{hex}.bin"), true),
            (format!("manifest-{hex}.cbor"), true),
            (format!("a.b_c-d-{hex}.bin"), true),
            (format!("{hex}.bin"), true),
            (format!("segment-{hex}.json"), false),
            (format!("segment-{hex}"), false),
            (format!("segment-{}.bin", hex.to_uppercase()), false),
            (format!("segment-{}.bin", &hex[1..]), false),
            (format!("-{hex}.bin"), false),
            (format!(".{hex}.bin"), false),
            (format!("../x-{hex}.bin"), false),
            (format!("x/y-{hex}.bin"), false),
            (format!("x y-{hex}.bin"), false),
            (format!("{}-{hex}.bin", "x".repeat(64)), false),
            ("..".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_name(&name), good, "{name}");
        }
    }

    #[test]
    fn names_tell_of_bytes() {
        let bytes = b"bytes".to_vec();
        let hash: Hash = blake3::hash(&bytes).into();
        let object = |name: &str, bytes: &[u8]| Object { name: name.to_owned(), bytes: bytes.to_vec() };
        let name = name_of("segment", "bin", &hash);
        assert_eq!(check_object(&object(&name, &bytes)).unwrap(), hash);
        assert!(matches!(check_object(&object(&name, b"other")), Err(Error::Corrupt { .. })));
        assert!(matches!(check_object(&object(&name, b"")), Err(Error::Refused { .. })));
        assert!(matches!(check_object(&object("segment.bin", &bytes)), Err(Error::Refused { .. })));
        let large = vec![1; LARGEST_OBJECT + 1];
        let name = name_of("segment", "bin", &blake3::hash(&large).into());
        assert!(matches!(check_object(&object(&name, &large)), Err(Error::Refused { .. })));
    }
}
