//! What must not reach a log, an error or a person: tokens, keys, passwords in URLs.
//!
//! Architecture invariant: every text of another server passes [`Redactor::clean`] before it becomes part of an
//! [`Error`](crate::Error), and every secret is a [`Secret`], which cannot be printed.

use std::fmt;

/// What stands where a secret stood.
const HIDDEN: &str = "[hidden]";

/// Names after which `=`, `:` or white space leads to a secret, in URLs, headers and JSON.
const MARKS: [&str; 8] =
    ["auth_token", "authtoken", "s5-auth-token", "access_token", "jwt_secret", "password", "authorization", "secret"];

/// A value that has no printed form.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends or uses it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Removes what looks like a secret, and the secrets that it was told of.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    known: Vec<Secret>,
}

impl Redactor {
    /// `known`: values that are removed wherever they occur. Shorter than four bytes they are not looked for: that
    /// would tear texts apart and hide nothing.
    pub fn new(known: impl IntoIterator<Item = Secret>) -> Self {
        let mut known: Vec<Secret> = known.into_iter().filter(|secret| secret.0.len() >= 4).collect();
        // The longest first: a secret may contain another.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.0.len()));
        Self { known }
    }

    /// One that knows this secret too.
    #[must_use]
    pub fn and(&self, secret: Secret) -> Self {
        Self::new(self.known.iter().cloned().chain([secret]))
    }

    /// `text` without secrets.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(&secret.0, HIDDEN);
        }
        redact(&text)
    }

    /// At most `limit` bytes of an answer's body as one line without secrets and control characters.
    pub fn excerpt(&self, body: &[u8], limit: usize) -> String {
        let text = String::from_utf8_lossy(body);
        let clean = self.clean(&text);
        let mut line = String::with_capacity(limit.min(clean.len()));
        for word in clean.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            if line.len() > limit {
                let cut = (0..=limit).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
                line.truncate(cut);
                line.push_str("...");
                break;
            }
        }
        line
    }
}

/// `text` without what looks like a secret: `Bearer ..`, `auth_token=..` and its like, `fs5://..`, S5 tokens,
/// `user:password@` in URLs.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((skip, keep)) = secret_at(rest, out.chars().next_back()) {
            out.push_str(&rest[..keep]);
            out.push_str(HIDDEN);
            rest = &rest[skip..];
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    out
}

/// If a secret begins here: bytes up to its end, and bytes of them that may stay (the mark).
fn secret_at(text: &str, before: Option<char>) -> Option<(usize, usize)> {
    let at_word = !before.is_some_and(|c| c.is_ascii_alphanumeric());
    if let Some(rest) = text.strip_prefix("://") {
        // Credentials of a URL end at the last @ before the path.
        let authority = rest.find(['/', '?', '#', ' ', '"', '\'', '<', '>']).unwrap_or(rest.len());
        return rest[..authority].rfind('@').map(|at| (3 + at, 3));
    }
    if !at_word {
        return None;
    }
    if starts_with(text, "fs5://") {
        return Some((value_end(text, 6), 6));
    }
    for scheme in ["bearer ", "basic "] {
        if starts_with(text, scheme) {
            let begin = scheme.len() + text[scheme.len()..].find(|c| c != ' ').unwrap_or(0);
            let end = value_end(text, begin);
            // "bearer of bad news" is prose.
            return (end >= begin + 8).then_some((end, scheme.len()));
        }
    }
    if text.starts_with("S5A") {
        let end = value_end(text, 3);
        return (end >= 24).then_some((end, 3));
    }
    MARKS.iter().find(|mark| starts_with(text, mark)).and_then(|mark| marked_value(text, mark.len()))
}

/// The value after a mark of `mark` bytes and one of `=`, `:`, `%3d` with quotes and blanks around.
fn marked_value(text: &str, mark: usize) -> Option<(usize, usize)> {
    let after = text[mark..].trim_start_matches(['"', '\'', '\\', ' ']);
    let after = match after.as_bytes() {
        [b'=' | b':', ..] => &after[1..],
        _ if starts_with(after, "%3d") => &after[3..],
        _ => return None,
    };
    let value = after.trim_start_matches(['"', '\'', '\\', ' ']);
    let mut begin = text.len() - value.len();
    for scheme in ["bearer ", "basic "] {
        if starts_with(value, scheme) {
            begin += scheme.len();
        }
    }
    let end = value_end(text, begin);
    (end > begin).then_some((end, begin))
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Where the value that begins at byte `from` ends.
fn value_end(text: &str, from: usize) -> usize {
    let stop =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '&' | ',' | ';' | ')' | '}' | ']' | '\\');
    match text.get(from..) {
        // What was hidden before is as long as it looks.
        Some(rest) if rest.starts_with(HIDDEN) => from + HIDDEN.len(),
        Some(rest) => rest.find(stop).map_or(text.len(), |at| from + at),
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, clean) in [
            ("no secret here: 12 objects", "no secret here: 12 objects"),
            ("Authorization: Bearer abc.def-123 sent", "Authorization: Bearer [hidden] sent"),
            ("use Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "use Bearer [hidden]"),
            ("the bearer of news", "the bearer of news"),
            ("PATCH http://h/x?auth_token=S5Aabc&n=1 failed", "PATCH http://h/x?auth_token=[hidden]&n=1 failed"),
            (r#"{"authToken":"S5Azzz","cid":"z1"}"#, r#"{"authToken":"[hidden]","cid":"z1"}"#),
            (r#"Directory "fs5://write:uAbc@key" does not exist"#, r#"Directory "fs5://[hidden]" does not exist"#),
            ("https://me:pw@example.org/a@b", "https://[hidden]@example.org/a@b"),
            ("https://example.org/a@b", "https://example.org/a@b"),
            ("token S5A1234567890abcdefghijklmnop ok", "token S5A[hidden] ok"),
            ("s5-auth-token=abc; Path=/", "s5-auth-token=[hidden]; Path=/"),
            ("schlüssel: ünïcode ://ü@x/", "schlüssel: ünïcode ://[hidden]@x/"),
        ] {
            assert_eq!(redact(text), clean);
            assert_eq!(redact(clean), clean, "cleaning twice changes nothing");
        }
    }

    #[test]
    fn known_secrets_go_wherever_they_are() {
        let redactor = Redactor::new([Secret::new("hush-hush"), Secret::new("hush"), Secret::new("ab")]);
        assert_eq!(redactor.clean("xhush-hushx hush ab"), "x[hidden]x [hidden] ab");
        assert_eq!(format!("{redactor:?}"), "Redactor { known: [[hidden], [hidden]] }");
        assert_eq!(redactor.excerpt(b"<html>\n\x07 hush \xff</html>", 12), "<html> [hidd...");
    }
}
