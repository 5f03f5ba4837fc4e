//! S5.

use crate::options::S5Options;
use crate::{Error, Result, Store};
use std::sync::Arc;

/// # Errors
/// As the store.
pub fn open(options: S5Options) -> Result<Arc<dyn Store>> {
    drop(options);
    Err(Error::Unsupported { what: "be opened yet" })
}
