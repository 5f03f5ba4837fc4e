//! Identifiers as the servers of S5 read and write them. Written apart from the client's, so that each checks the other.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use s5_core::{BlobId, Hash};

/// An identifier that came in a request.
pub struct Given {
    /// `26 ..` rather than `5b 82 ..`.
    pub legacy: bool,
    pub hash: Hash,
    pub size: u64,
}

/// Reads an identifier of either form, with multihash byte `1e` or `1f`.
pub fn read(text: &str) -> Option<Given> {
    let (base, digits) = text.split_at_checked(1)?;
    let bytes = match base {
        "b" => base32().decode(digits.as_bytes()).ok()?,
        "z" => bs58::decode(digits).into_vec().ok()?,
        "u" => BASE64URL_NOPAD.decode(digits.as_bytes()).ok()?,
        "f" => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?,
        _ => return None,
    };
    let (legacy, rest) = match bytes.as_slice() {
        [0x26, 0x1e | 0x1f, rest @ ..] => (true, rest),
        [0x5b, 0x82, 0x1e | 0x1f, rest @ ..] => (false, rest),
        _ => return None,
    };
    let (hash, size) = rest.split_first_chunk::<32>()?;
    let mut little = [0; 8];
    little.get_mut(..size.len())?.copy_from_slice(size);
    Some(Given { legacy, hash: Hash::from_bytes(*hash), size: u64::from_le_bytes(little) })
}

/// The hash in a multihash as base64url text.
pub fn read_multihash(text: &str) -> Option<Hash> {
    match BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.as_slice() {
        [0x1e | 0x1f, hash @ ..] => Some(Hash::from_bytes(hash.try_into().ok()?)),
        _ => None,
    }
}

/// Legacy form, base58.
pub fn legacy(hash: Hash, size: u64) -> String {
    let mut bytes = [&[0x26, 0x1f][..], hash.as_bytes(), &size.to_le_bytes()].concat();
    while bytes.len() > 35 && bytes.last() == Some(&0) {
        bytes.pop();
    }
    format!("z{}", bs58::encode(bytes).into_string())
}

/// New form, base32. For size 0 as s5.js writes it, with a byte for the size.
pub fn new(id: BlobId) -> String {
    if id.size > 0 {
        return id.to_base32();
    }
    let bytes = [&id.to_bytes()[..], &[0]].concat();
    format!("b{}", base32().encode(&bytes))
}

pub fn multihash(hash: Hash) -> String {
    BASE64URL_NOPAD.encode(&tagged(hash))
}

/// Path of a blob in the local store of the Dart node, below the store's URL.
pub fn node_path(hash: Hash) -> String {
    let name = base32().encode(&tagged(hash));
    let (directories, rest) = name.split_at(8);
    let directories: Vec<&str> = (0..4).filter_map(|i| directories.get(2 * i..2 * i + 2)).collect();
    format!("1/{}/{rest}", directories.join("/"))
}

/// The hash of the blob that is stored at such a path.
pub fn read_node_path(path: &str) -> Option<Hash> {
    let name: String = path.strip_prefix("1/")?.split('/').collect();
    match base32().decode(name.as_bytes()).ok()?.as_slice() {
        [0x1f, hash @ ..] => Some(Hash::from_bytes(hash.try_into().ok()?)),
        _ => None,
    }
}

fn tagged(hash: Hash) -> Vec<u8> {
    [&[0x1f][..], hash.as_bytes()].concat()
}

pub fn base32() -> data_encoding::Encoding {
    let mut specification = data_encoding::Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_vectors_say() {
        let hash = Hash::new(b"hello world");
        assert_eq!(legacy(hash, 11), "z4odpG7DykwpqRfgykXzSL5UEZQXMEHtjwGJQdg3FyS7KzcAE");
        let id = BlobId::new(hash, 11);
        assert_eq!(new(id), "blobb5v2jqhx2ocqmrafy3dazqxihlw6l6z43tgs7tekolkxznobrvhrebm");
        let empty = BlobId::new(Hash::EMPTY, 0);
        assert_eq!(new(empty), "blobb5lytjg47l6nbu2qeatpkg3omssm3zms4tlobck34zgutzlsb6mtcaa");
        assert_eq!(legacy(Hash::EMPTY, 0), "z4odcKGuRgu79HrcRbREEf3iHq61et87EYKEiE3qPivmQAyEP");
        assert_eq!(multihash(hash), "H9dJge-nCgyIC42MGYXQddvL9nm5ml-ZFOWq-WuDGp4k");
        assert_eq!(node_path(hash), "1/d7/lu/ta/pp/u4fazcalrwgbtboqoxn4x5tzxgnf7giu4wvps24ddkpci");
        assert_eq!(read_node_path(&node_path(hash)), Some(hash));
        for text in [legacy(hash, 11), new(id), id.to_base58(), id.to_base64url(), id.to_base16()] {
            let given = read(&text).expect("our own text");
            assert_eq!((given.hash, given.size), (hash, 11), "{text}");
        }
        assert!(read("nonsense").is_none());
    }
}
