//! The network as a table: blobs, the objects that pay for them, and the ledger.
//!
//! With a directory, blobs are files `blobs/<id>`, and everything else is `state.json`, replaced by renaming before a
//! change is answered: what a killed process has answered is there at the next start.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};
use walrus::BlobId;

/// A storage object on the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// 0x and 64 hexadecimal digits.
    pub id: String,
    pub start_epoch: u32,
    /// First epoch in which the blob is no longer kept for this object.
    pub end_epoch: u32,
    pub deletable: bool,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub blob: String,
    /// The object that was made for it.
    pub object: String,
    pub quilt: bool,
    pub epoch: u32,
    pub end_epoch: u32,
    pub deletable: bool,
    /// FROST.
    pub cost: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    objects: Vec<Stored>,
    invalid: bool,
}

/// All but the bytes of blobs.
#[derive(Default, Serialize, Deserialize)]
struct Table {
    epoch: u32,
    blobs: BTreeMap<String, Entry>,
    ledger: Vec<Payment>,
    /// Tokens that were used, by their `jti`.
    tokens: Vec<String>,
    next_object: u64,
}

pub struct Network {
    directory: Option<PathBuf>,
    table: Table,
    bytes: BTreeMap<BlobId, Arc<Vec<u8>>>,
}

/// What a store does to the table.
pub struct Registration {
    pub blob: BlobId,
    pub bytes: Arc<Vec<u8>>,
    pub quilt: bool,
    pub epochs: u32,
    pub deletable: bool,
    pub cost: u64,
}

impl Network {
    pub fn open(directory: Option<&Path>, epoch: u32) -> io::Result<Self> {
        let mut network = Self {
            directory: directory.map(Path::to_path_buf),
            table: Table { epoch, ..Table::default() },
            bytes: BTreeMap::new(),
        };
        let Some(directory) = directory else { return Ok(network) };
        fs::create_dir_all(directory.join("blobs"))?;
        match fs::read(directory.join("state.json")) {
            Ok(json) => network.table = serde_json::from_slice(&json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for text in network.table.blobs.keys() {
            let blob: BlobId = text.parse().map_err(io::Error::other)?;
            network.bytes.insert(blob, Arc::new(fs::read(directory.join("blobs").join(text))?));
        }
        Ok(network)
    }

    pub fn epoch(&self) -> u32 {
        self.table.epoch
    }

    pub fn ledger(&self) -> &[Payment] {
        &self.table.ledger
    }

    pub fn blobs(&self) -> Vec<BlobId> {
        self.bytes.keys().copied().collect()
    }

    pub fn set_epoch(&mut self, epoch: u32) {
        self.table.epoch = epoch;
        self.save();
    }

    pub fn forget(&mut self, blob: BlobId) {
        self.table.blobs.remove(&blob.to_string());
        self.bytes.remove(&blob);
        self.save();
    }

    pub fn mark_invalid(&mut self, blob: BlobId) {
        self.table.blobs.entry(blob.to_string()).or_default().invalid = true;
        if let (Some(directory), false) = (&self.directory, self.bytes.contains_key(&blob)) {
            write(&directory.join("blobs").join(blob.to_string()), &[]);
        }
        self.bytes.entry(blob).or_default();
        self.save();
    }

    pub fn is_invalid(&self, blob: BlobId) -> bool {
        self.table.blobs.get(&blob.to_string()).is_some_and(|entry| entry.invalid)
    }

    /// Objects whose end has not come.
    fn alive(&self, blob: BlobId) -> impl Iterator<Item = &Stored> {
        let objects = self.table.blobs.get(&blob.to_string()).map_or(&[][..], |entry| &entry.objects);
        objects.iter().filter(|object| object.end_epoch > self.table.epoch)
    }

    /// The latest end epoch of a permanent object.
    pub fn permanent_until(&self, blob: BlobId) -> Option<u32> {
        self.alive(blob).filter(|object| !object.deletable).map(|object| object.end_epoch).max()
    }

    /// The bytes of a blob that somebody still pays for.
    pub fn read(&self, blob: BlobId) -> Option<Arc<Vec<u8>>> {
        if self.is_invalid(blob) || self.alive(blob).next().is_none() {
            return None;
        }
        self.bytes.get(&blob).cloned()
    }

    /// The blob of an object.
    pub fn blob_of(&self, object: &str) -> Option<BlobId> {
        let owns = |entry: &Entry| entry.objects.iter().any(|stored| stored.id == object);
        self.table.blobs.iter().find(|(_, entry)| owns(entry)).and_then(|(text, _)| text.parse().ok())
    }

    /// Registers and certifies a blob, and writes what was paid.
    pub fn register(&mut self, registration: Registration) -> Stored {
        let Registration { blob, bytes, quilt, epochs, deletable, cost } = registration;
        self.table.next_object += 1;
        let digest = blake3::hash(format!("object {} {blob}", self.table.next_object).as_bytes());
        let object = Stored {
            id: format!("0x{}", digest.to_hex()),
            start_epoch: self.table.epoch,
            end_epoch: self.table.epoch + epochs,
            deletable,
        };
        self.table.ledger.push(Payment {
            blob: blob.to_string(),
            object: object.id.clone(),
            quilt,
            epoch: object.start_epoch,
            end_epoch: object.end_epoch,
            deletable,
            cost,
        });
        self.table.blobs.entry(blob.to_string()).or_default().objects.push(object.clone());
        if let Some(directory) = &self.directory {
            write(&directory.join("blobs").join(blob.to_string()), &bytes);
        }
        self.bytes.insert(blob, bytes);
        self.save();
        object
    }

    /// Notes a token; `false` if it was used before.
    pub fn use_token(&mut self, jti: &str) -> bool {
        if self.table.tokens.iter().any(|used| used == jti) {
            return false;
        }
        self.table.tokens.push(jti.to_string());
        self.save();
        true
    }

    /// Takes a token back: its claims did not fit the request.
    pub fn spare_token(&mut self, jti: &str) {
        self.table.tokens.retain(|used| used != jti);
        self.save();
    }

    fn save(&self) {
        if let Some(directory) = &self.directory {
            let json = serde_json::to_vec(&self.table).expect("a table of texts and numbers is JSON");
            write(&directory.join("state.json"), &json);
        }
    }
}

/// The emulator cannot go on without its state.
fn write(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path)).expect("the state directory is writable");
}
