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
use crate::{Result, Store};
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

/// Whether an answer says what the Dart node says of a blob that nobody has.
fn timed_out(answer: &Answer) -> bool {
    answer.status.as_u16() == 500 && String::from_utf8_lossy(&answer.body).contains("Timed out")
}
