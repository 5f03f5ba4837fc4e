//! What can go wrong below the access method.

use crate::page::BlockNumber;
use std::fmt;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Failures that the caller must tell a person about; none of them leaves a half-done change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A page, `block`, is not what the page that points to it says; `what` it is, in words for a person.
    Corrupt { block: BlockNumber, what: String },
    /// The index was written by a newer release.
    TooNew { found: u16, newest: u16 },
    /// The relation cannot address more pages with elements of this size.
    Full,
    /// The store stopped: a cancelled build, or a crash that a test asked for.
    Stopped,
    /// A limit of the index was exceeded, in words for a person.
    Limit(String),
    /// An archived structure that cannot be, in words for a person.
    Structure(String),
}

impl Error {
    /// [`Error::Corrupt`]; `what` goes on after "block n: ", in words for a person.
    pub fn corrupt(block: BlockNumber, what: impl Into<String>) -> Self {
        Self::Corrupt { block, what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { block, what } => write!(f, "block {block}: {what}"),
            Self::TooNew { found, newest } => {
                write!(f, "index format {found} is newer than this library reads ({newest})")
            }
            Self::Full => write!(f, "index has no more block numbers"),
            Self::Stopped => write!(f, "stopped"),
            Self::Limit(what) | Self::Structure(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
