//! Where an index may come from: a server, or one manifest on it. The form of `hybrid.import_from` and of `source`.

/// `server`, or `server manifest`. A server's name with spaces stands in double quotes, a double quote in it twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub server: String,
    pub manifest: Option<String>,
}

impl Source {
    /// `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (server, rest) = match text.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => {
                let end = text.find(char::is_whitespace).unwrap_or(text.len());
                (text[..end].to_string(), &text[end..])
            }
        };
        let manifest = rest.trim();
        let separated = rest.is_empty() || rest.starts_with(char::is_whitespace);
        let plain = manifest.bytes().all(|b| b.is_ascii_graphic());
        let complete = !server.is_empty() && !server.contains('\0') && separated && plain;
        complete.then(|| Self { server, manifest: (!manifest.is_empty()).then(|| manifest.to_string()) })
    }
}

/// A name up to its closing quote, and what follows.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod source_tests {
    use super::Source;

    #[test]
    fn forms() {
        let of = |server: &str, manifest: Option<&str>| {
            Some(Source { server: server.into(), manifest: manifest.map(Into::into) })
        };
        assert_eq!(Source::parse("testnet"), of("testnet", None));
        assert_eq!(Source::parse("  testnet \n"), of("testnet", None));
        assert_eq!(Source::parse("testnet manifest-0.cbor"), of("testnet", Some("manifest-0.cbor")));
        assert_eq!(Source::parse("Testnet\t a/b "), of("Testnet", Some("a/b")));
        assert_eq!(Source::parse(r#""my attic" m"#), of("my attic", Some("m")));
        assert_eq!(Source::parse(r#""a""b""#), of("a\"b", None));
        assert_eq!(Source::parse("größe m"), of("größe", Some("m")));
        for wrong in ["", " ", "\"\"", "\"a", "\"a\"m", "a b c", "a m\u{e4}", "a b\"c d\""] {
            assert_eq!(Source::parse(wrong), None, "{wrong}");
        }
    }
}
