//! Values of options: how they are written, and what is wrong with them.
//!
//! Invariant: no text made here repeats a value, so that a secret written into the wrong option is not shown.

use crate::Hash;
use crate::http::{Url, check_base};
use std::path::{Component, Path};
use std::time::Duration;

/// What is wrong with a value, going on after `option "..": `.
pub type Checked<T> = Result<T, String>;

/// `true`, `false`, and what else PostgreSQL takes for them.
pub fn boolean(text: &str) -> Checked<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub fn number(text: &str, low: u64, high: u64) -> Checked<u64> {
    match text.parse::<u64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {low} to {high}")),
    }
}

/// A time: a number with `ms`, `s` or `min`; seconds if there is no unit. From 1 ms to an hour.
pub fn duration(text: &str) -> Checked<Duration> {
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "min" => Some(60_000),
        _ => None,
    };
    match digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor)) {
        Some(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("must be a time from 1ms to 60min".to_owned()),
    }
}

/// Bytes: a number with `kB`, `MB` or `GB` (powers of 1024); bytes if there is no unit.
pub fn bytes(text: &str, low: u64, high: u64) -> Checked<u64> {
    let (digits, unit) = split_unit(text);
    let shift = match unit {
        "" | "B" => Some(0),
        "kB" => Some(10),
        "MB" => Some(20),
        "GB" => Some(30),
        _ => None,
    };
    match digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift)) {
        Some(bytes) if (low..=high).contains(&bytes) => Ok(bytes),
        _ => Err(format!("must be from {low} to {high} bytes, as a number with kB, MB, GB or nothing")),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim())
}

/// An absolute path without `.`, `..` and empty components (but for one slash at the end).
pub fn path(text: &str) -> Checked<&Path> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let body = text.strip_suffix('/').unwrap_or(text);
    if !path.is_absolute() {
        return Err("must be an absolute path".to_owned());
    }
    if !plain || body.contains("//") || body.ends_with("/.") || body.contains("/./") || text.contains('\0') {
        return Err("must be a path without \"..\", \".\" and doubled slashes".to_owned());
    }
    Ok(path)
}

pub fn url(text: &str) -> Checked<Url> {
    check_base(text)
}

/// URLs between commas, at least one.
pub fn urls(text: &str) -> Checked<Vec<Url>> {
    let urls: Vec<Url> = list(text).map(check_base).collect::<Checked<_>>()?;
    if urls.is_empty() { Err("names no URL".to_owned()) } else { Ok(urls) }
}

/// `host` or `host:port` between commas.
pub fn hosts(text: &str) -> Checked<Vec<String>> {
    let bad = || "must be host names, or host:port, between commas, without https:// and paths".to_owned();
    list(text)
        .map(|host| {
            let url = Url::parse(&format!("https://{host}/")).map_err(|_| bad())?;
            let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !host.ends_with('/');
            let written = url.port().map_or(url.host_str().unwrap_or("").to_owned(), |port| {
                format!("{}:{port}", url.host_str().unwrap_or(""))
            });
            let port_443 = format!("{written}:443");
            let lower = host.to_ascii_lowercase();
            match lower == written || lower == port_443 {
                true if plain && url.username().is_empty() && !host.contains('*') => Ok(lower),
                _ => Err(bad()),
            }
        })
        .collect()
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// 64 hexadecimal digits.
pub fn hash(text: &str) -> Checked<Hash> {
    let bad = || "must be 64 hexadecimal digits (32 bytes)".to_owned();
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        // from_str_radix takes a sign.
        *byte = match digits.starts_with('+') {
            true => return Err(bad()),
            false => u8::from_str_radix(digits, 16).map_err(|_| bad())?,
        };
    }
    Ok(bytes)
}

/// An address of Sui: `0x` and 64 hexadecimal digits.
pub fn sui_address(text: &str) -> Checked<&str> {
    match text.strip_prefix("0x") {
        Some(digits) if hash(digits).is_ok() => Ok(text),
        _ => Err("must be 0x and 64 hexadecimal digits".to_owned()),
    }
}

/// Something that can stand in a header.
pub fn token(text: &str) -> Checked<&str> {
    match !text.is_empty() && text.len() <= 8192 && text.bytes().all(|c| c.is_ascii_graphic()) {
        true => Ok(text),
        false => Err("must be printable ASCII characters without spaces".to_owned()),
    }
}

pub fn not_empty(text: &str) -> Checked<&str> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

/// A directory of S5's path service: `home/..` or `archive/..`, at most 8 components of `[a-z0-9][a-z0-9._-]*`.
pub fn s5_prefix(text: &str) -> Checked<&str> {
    let mut parts = text.split('/');
    let root = parts.next().is_some_and(|root| matches!(root, "home" | "archive"));
    let component = |part: &str| {
        part.len() <= 64
            && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-'))
    };
    let count = parts.clone().count();
    match root && (1..=8).contains(&count) && parts.all(component) {
        true => Ok(text),
        false => {
            Err("must be a path such as home/hybridvec: home or archive, then components of a-z 0-9 . _ -".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        for (text, ms) in [
            ("1ms", Some(1)),
            ("30", Some(30_000)),
            ("30 s", Some(30_000)),
            ("2min", Some(120_000)),
            ("60min", Some(3_600_000)),
            ("61min", None),
            ("0", None),
            ("-1", None),
            ("1h", None),
            ("", None),
            ("99999999999999999999", None),
            ("18446744073709551615min", None),
            ("١s", None),
        ] {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
        for (text, size) in [("1", Some(1)), ("1kB", Some(1024)), ("3 MB", Some(3 << 20)), ("1TB", None), ("5GB", None)]
        {
            assert_eq!(bytes(text, 1, 4 << 30).ok(), size, "{text}");
        }
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for (text, good) in [
            ("/srv/attic", true),
            ("/srv/attic/", true),
            ("/", true),
            ("srv", false),
            ("", false),
            ("/srv/../etc", false),
            ("/srv/..", false),
            ("/srv/./x", false),
            ("/srv//x", false),
            ("//srv", false),
            ("/srv/.", false),
            ("/srv/..x", true),
            ("/a\0b", false),
        ] {
            assert_eq!(path(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn hosts_are_only_hosts() {
        for (text, good) in [
            ("cdn.example.org", true),
            ("cdn.example.org:8443, 127.0.0.1:81", true),
            ("[::1]:80", true),
            ("example.org:443", true),
            ("https://example.org", false),
            ("example.org/", false),
            ("example.org/x", false),
            ("*.example.org", false),
            ("me@example.org", false),
            ("example.org?x", false),
        ] {
            assert_eq!(hosts(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn keys_addresses_and_prefixes() {
        let digits = "0123456789abcdefABCDEF00112233445566778899aabbccddeeff0011223344";
        assert_eq!(hash(digits).unwrap()[..4], [0x01, 0x23, 0x45, 0x67]);
        assert!(hash(&digits[1..]).is_err() && hash(&format!("+{}", &digits[1..])).is_err());
        assert!(sui_address(&format!("0x{digits}")).is_ok() && sui_address(digits).is_err());
        for (text, good) in [
            ("home/hybridvec", true),
            ("archive/a/b", true),
            ("home", false),
            ("home/", false),
            ("home//x", false),
            ("home/../x", false),
            ("/home/x", false),
            ("home/X", false),
            ("else/x", false),
        ] {
            assert_eq!(s5_prefix(text).is_ok(), good, "{text}");
        }
    }
}
