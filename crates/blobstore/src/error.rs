//! What can go wrong with a store, in words that may be shown to anybody: no secret is ever part of them.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// Failures. Texts name the object and what was wrong with it; secrets are redacted where an error is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An option of the server or user mapping is missing or wrong; `hint` says what to write.
    Option { option: String, message: String, hint: Option<String> },
    /// The object is not there, as far as the store can tell.
    NotFound { object: String },
    /// What was read is not what was stored.
    Corrupt { object: String, what: String },
    /// The other side answered and will not do it: rights, quota, a limit. `status` is the HTTP status, if any.
    Refused { status: Option<u16>, message: String },
    /// No answer, or only answers that say "later", after all repeats.
    Unreachable { message: String },
    /// A time limit of the store or of the session passed.
    TimedOut,
    /// The session wants the work to end.
    Cancelled,
    /// This kind of store cannot do it.
    Unsupported { what: &'static str },
    /// The other side breaks its own rules, e.g. a blob id that is not that of the bytes.
    Protocol { message: String },
    /// A file of ours could not be read or written.
    File { path: String, message: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { option, message, .. } => write!(f, "option \"{option}\": {message}"),
            Self::NotFound { object } => write!(f, "object \"{}\" is not in the store", Shown(object)),
            Self::Corrupt { object, what } => write!(f, "object \"{}\" is damaged: {what}", Shown(object)),
            Self::Refused { status: Some(status), message } => {
                write!(f, "the store refused (HTTP {status}): {message}")
            }
            Self::Refused { status: None, message } => write!(f, "the store refused: {message}"),
            Self::Unreachable { message } => write!(f, "the store cannot be reached: {message}"),
            Self::TimedOut => f.write_str("the store did not answer in time"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Unsupported { what } => write!(f, "this kind of store cannot {what}"),
            Self::Protocol { message } => write!(f, "unexpected answer from the store: {message}"),
            Self::File { path, message } => write!(f, "file \"{path}\": {message}"),
        }
    }
}

impl std::error::Error for Error {}

/// A name that may come from a hostile manifest: one line, not long, without secrets.
struct Shown<'a>(&'a str);

/// Characters of a name that are shown.
const SHOWN: usize = 150;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.0.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
        f.write_str(&crate::redact::redact(&start))?;
        if start.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_one_short_line() {
        let shown = |object: &str| Error::NotFound { object: object.to_owned() }.to_string();
        assert_eq!(shown("objects/ab/x-1.bin"), "object \"objects/ab/x-1.bin\" is not in the store");
        assert_eq!(shown("a\r\nLOG: b"), "object \"a??LOG: b\" is not in the store");
        assert_eq!(shown("https://me:pw@x/"), "object \"https://[hidden]@x/\" is not in the store");
        assert!(shown(&"ü".repeat(100_000)).len() < 400);
    }
}
