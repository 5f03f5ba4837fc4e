//! Walrus.

use crate::options::WalrusOptions;
use crate::{Error, Result, Store};
use std::sync::Arc;

/// # Errors
/// As the store.
pub fn open(options: WalrusOptions) -> Result<Arc<dyn Store>> {
    drop(options);
    Err(Error::Unsupported { what: "be opened yet" })
}
