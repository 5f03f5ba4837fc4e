//! What can be wrong with an archive, in words that may be shown to anybody: no secret is ever part of them.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// Failures. Each names the object and says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes are not what an archive holds there.
    Damaged { object: String, what: String },
    /// A later release wrote it.
    Newer { object: String, version: u64 },
    /// It is encrypted and there is no key, or not this one; or the other way round.
    Key { object: String, what: String },
    /// What was given to an encoder has no form in an archive.
    Unfit { what: String },
    /// What was given to an encoder is more than an archive holds in one place.
    TooLarge { what: String, size: u64, limit: u64 },
    /// The caller of a decoder had enough, for a reason of its own.
    Stopped { why: String },
}

impl Error {
    /// Something is wrong with the bytes; [`Self::of`] names the object later, where its name is known.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { object: String::new(), what: what.into() }
    }

    pub(crate) fn unfit(what: impl Into<String>) -> Self {
        Self::Unfit { what: what.into() }
    }

    /// What is damage where it is read is unfit where it is written.
    pub(crate) fn into_unfit(self) -> Self {
        match self {
            Self::Damaged { what, .. } => Self::Unfit { what },
            other => other,
        }
    }

    /// The same error, about the object of this name unless it has one already.
    #[must_use]
    pub fn of(mut self, name: &str) -> Self {
        if let Self::Damaged { object, .. } | Self::Newer { object, .. } | Self::Key { object, .. } = &mut self
            && object.is_empty()
        {
            name.clone_into(object);
        }
        self
    }
}

/// `object "name"`, or `the object` while the name is not known.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("the object") } else { write!(f, "object \"{}\"", self.0) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { object, what } => write!(f, "{} is damaged: {what}", Named(object)),
            Self::Newer { object, version } => {
                write!(f, "{} was written by a newer release: its format has version {version}", Named(object))
            }
            Self::Key { object, what } => write!(f, "{} cannot be decrypted: {what}", Named(object)),
            Self::Unfit { what } => write!(f, "this cannot be archived: {what}"),
            Self::TooLarge { what, size, limit } => {
                write!(f, "{what} would have {size} bytes; an archive holds at most {limit}")
            }
            Self::Stopped { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}
