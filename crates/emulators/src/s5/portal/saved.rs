//! What a portal keeps besides the blobs: accounts, tokens, pins, registry entries.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Maps by text; hashes in hexadecimal, keys as in the requests.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    /// Where it is written, if at all.
    #[serde(skip)]
    file: Option<PathBuf>,
    /// Public keys of the accounts.
    pub accounts: Vec<String>,
    /// Last challenge of each public key; it stays valid, as in the Dart node.
    pub challenges: BTreeMap<String, [u8; 32]>,
    /// Public key by token.
    pub tokens: BTreeMap<String, String>,
    /// Size by public key by hash.
    pub pins: BTreeMap<String, BTreeMap<String, u64>>,
    pub registry: BTreeMap<String, Entry>,
}

/// An entry of the registry as it is sent: base64url without padding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub pk: String,
    pub revision: u64,
    pub data: String,
    pub signature: String,
}

impl Saved {
    pub fn open(directory: Option<&Path>) -> io::Result<Self> {
        let file = directory.map(|directory| directory.join("portal.json"));
        let mut saved: Self = crate::s5::load(file.as_deref())?;
        saved.file = file;
        Ok(saved)
    }

    /// Writes it. A portal that cannot is of no use to a test, and says so.
    pub fn write(&self) {
        if let Err(error) = crate::s5::save(self.file.as_deref(), self) {
            eprintln!("portal: state not saved: {error}");
        }
    }

    pub fn clear(&mut self) {
        *self = Self { file: self.file.take(), ..Self::default() };
    }

    /// Bytes that an account pins.
    pub fn used(&self, account: &str) -> u64 {
        self.pins.values().filter_map(|by| by.get(account)).sum()
    }

    pub fn pin(&mut self, hash: String, account: &str, size: u64) {
        self.pins.entry(hash).or_default().insert(account.to_string(), size);
    }

    /// Removes a pin; whether the blob has none left.
    pub fn unpin(&mut self, hash: &str, account: &str) -> bool {
        if let Some(by) = self.pins.get_mut(hash) {
            by.remove(account);
            if !by.is_empty() {
                return false;
            }
        }
        self.pins.remove(hash);
        true
    }
}
