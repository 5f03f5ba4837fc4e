//! What was sent where, and what came of it: kept so that nothing is paid for twice and nothing paid for is forgotten.
//!
//! One journal for each place that was paid (see docs/stores.md for its bytes), shared by all sessions. A container (a
//! blob, a quilt, an object at a path) is announced before it is sent ([`Receipts::begin`]), and its fate is written
//! before anybody believes it ([`Receipts::settle`]). Both are on disk when the call returns. A container that was
//! announced and never settled may be there: whoever uploads next asks the store ([`Receipts::pending`]).
//!
//! Invariants: a record, once read by anybody, stays valid or is replaced by a later one of the same container; only
//! who holds the lock writes, cuts a torn tail or replaces the file; who reads takes no lock.

mod journal;

use crate::{Context, Error, Hash, Result};
use journal::Journal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub name: String,
    #[serde(with = "hex")]
    pub hash: Hash,
    pub length: u64,
    /// Where it will be, as far as that is known before the answer; see [`Placed`](crate::Placed).
    pub locator: String,
}

/// What is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Computed here, before anything is sent: blob id, path, CID. The key of all later calls.
    pub container: String,
    pub contents: Vec<Content>,
    /// What else the store wants to remember, e.g. how long it asked for. No secrets.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The object that owns the container (Walrus: object id on Sui).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// The epoch at whose beginning it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_epoch: Option<u64>,
    /// The same in microseconds since 2000-01-01 UTC, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// Smallest coins that were paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coins: Option<u64>,
    /// Places of objects that were not known before, by name of the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locators: BTreeMap<String, String>,
    /// As in [`Intent::details`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// A container as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub intent: Intent,
    /// Of the last time that it was stored; `None`: it never was, as far as is known.
    pub outcome: Option<Outcome>,
    /// It was announced and not settled since.
    pub pending: bool,
}

/// An object that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// With the final locator.
    pub content: Content,
    pub container: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Record {
    /// The first record of a journal, for a person: whose it is.
    #[serde(rename = "place")]
    Place(String),
    #[serde(rename = "intent")]
    Intent(Intent),
    #[serde(rename = "outcome")]
    Outcome { container: String, outcome: Outcome },
    #[serde(rename = "forget")]
    Forget { container: String },
}

/// While it lives, no other session changes what is at the place.
pub struct Turn {
    _held: std::fs::File,
}

/// The journal of one place. Clones share it; nothing is read before it is needed.
#[derive(Clone)]
pub struct Receipts {
    shared: Arc<Mutex<Shared>>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipts").finish_non_exhaustive()
    }
}

struct Shared {
    place: String,
    journal: Journal,
    state: State,
}

/// What the records read so far say.
#[derive(Default)]
struct State {
    /// Entries with the number of their last record.
    entries: HashMap<String, (u64, Entry)>,
    holders: HashMap<Hash, HashSet<String>>,
    records: u64,
}

impl State {
    fn apply(&mut self, record: Record) {
        self.records += 1;
        let number = self.records;
        match record {
            Record::Place(_) => {}
            Record::Intent(intent) => {
                for content in &intent.contents {
                    self.holders.entry(content.hash).or_default().insert(intent.container.clone());
                }
                let outcome = self.entries.remove(&intent.container).and_then(|(_, entry)| entry.outcome);
                let container = intent.container.clone();
                self.entries.insert(container, (number, Entry { intent, outcome, pending: true }));
            }
            Record::Outcome { container, outcome } => {
                if let Some((last, entry)) = self.entries.get_mut(&container) {
                    *last = number;
                    entry.outcome = Some(outcome);
                    entry.pending = false;
                }
            }
            Record::Forget { container } => {
                if let Some((_, entry)) = self.entries.remove(&container) {
                    for content in &entry.intent.contents {
                        if let Some(holders) = self.holders.get_mut(&content.hash) {
                            holders.remove(&container);
                        }
                    }
                }
            }
        }
    }

    /// The shortest list of records that says the same.
    fn records(&self, place: &str) -> Vec<Record> {
        let mut entries: Vec<&(u64, Entry)> = self.entries.values().collect();
        entries.sort_by_key(|(number, _)| *number);
        let mut records = vec![Record::Place(place.to_owned())];
        for (_, entry) in entries {
            let outcome = entry.outcome.clone();
            let outcome = outcome.map(|outcome| Record::Outcome { container: entry.intent.container.clone(), outcome });
            records.push(Record::Intent(entry.intent.clone()));
            records.extend(outcome);
            if entry.outcome.is_some() && entry.pending {
                records.push(Record::Intent(entry.intent.clone()));
            }
        }
        records
    }
}

impl Receipts {
    /// The journal of `place` in `directory`; both come into being with the first record.
    pub fn new(directory: &Path, place: &str) -> Self {
        let digest = blake3::hash(place.as_bytes()).to_hex();
        let kind: String = place.chars().take_while(char::is_ascii_alphanumeric).collect();
        let journal = Journal::new(directory, &format!("{kind}-{}", &digest[..16]));
        let shared = Shared { place: place.to_owned(), journal, state: State::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Waits until no other session, of whatever database of the server, has its turn at this place. The turn ends when
    /// it is dropped, or with the process.
    ///
    /// # Errors
    /// [`Error::File`]; as [`Context::check`].
    pub fn turn(&self, context: &Context) -> Result<Turn> {
        // Others go on to read and write receipts meanwhile.
        let journal = self.shared().journal.clone();
        journal.turn(context).map(|file| Turn { _held: file })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a container, before it is sent. May be repeated, e.g. to store it again for longer.
    ///
    /// # Errors
    /// [`Error::File`]: then it must not be sent. As [`Context::check`].
    pub fn begin(&self, intent: &Intent, context: &Context) -> Result<()> {
        self.shared().append(Record::Intent(intent.clone()), context)
    }

    /// Writes down what came of an announced container, before anybody believes it. Not stopped by a session that wants
    /// to end: what was paid for is known by then.
    ///
    /// # Errors
    /// [`Error::File`]: then the container is still announced, and the next upload asks the store.
    pub fn settle(&self, container: &str, outcome: &Outcome) -> Result<()> {
        let record = Record::Outcome { container: container.to_owned(), outcome: outcome.clone() };
        self.shared().append(record, &Context::default())
    }

    /// Strikes out a container that is gone, or was never stored.
    ///
    /// # Errors
    /// [`Error::File`], and as [`Context::check`].
    pub fn forget(&self, container: &str, context: &Context) -> Result<()> {
        self.shared().append(Record::Forget { container: container.to_owned() }, context)
    }

    /// Where an object was stored, the latest first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn find(&self, hash: &Hash) -> Result<Vec<Found>> {
        let mut shared = self.shared();
        shared.refresh()?;
        let state = &shared.state;
        let mut found: Vec<(u64, Found)> = Vec::new();
        for container in state.holders.get(hash).into_iter().flatten() {
            let Some((number, Entry { intent, outcome: Some(outcome), .. })) = state.entries.get(container) else {
                continue;
            };
            let Some(content) = intent.contents.iter().find(|content| content.hash == *hash) else { continue };
            let mut content = content.clone();
            if let Some(locator) = outcome.locators.get(&content.name) {
                content.locator.clone_from(locator);
            }
            found.push((*number, Found { content, container: container.clone(), outcome: outcome.clone() }));
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }

    /// A container.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn get(&self, container: &str) -> Result<Option<Entry>> {
        let mut shared = self.shared();
        shared.refresh()?;
        Ok(shared.state.entries.get(container).map(|(_, entry)| entry.clone()))
    }

    /// All containers, those first that were not written of for longest.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn all(&self) -> Result<Vec<Entry>> {
        let mut shared = self.shared();
        shared.refresh()?;
        let mut entries: Vec<&(u64, Entry)> = shared.state.entries.values().collect();
        entries.sort_by_key(|(number, _)| *number);
        Ok(entries.into_iter().map(|(_, entry)| entry.clone()).collect())
    }

    /// Containers that were announced and not settled: they may be stored, being stored by another session, or lost.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn pending(&self) -> Result<Vec<Intent>> {
        let entries = self.all()?.into_iter();
        Ok(entries.filter(|entry| entry.pending).map(|entry| entry.intent).collect())
    }
}

impl Shared {
    /// Reads what other sessions wrote since.
    fn refresh(&mut self) -> Result<()> {
        let read = self.journal.read()?;
        self.take(read)
    }

    fn take(&mut self, read: journal::Read) -> Result<()> {
        if read.from_start {
            self.state = State::default();
        }
        for payload in read.records {
            let record = serde_json::from_slice(&payload).map_err(|error| Error::File {
                path: self.journal.path().display().to_string(),
                message: format!("a receipt was written by a newer release: {error}"),
            })?;
            self.state.apply(record);
        }
        Ok(())
    }

    fn append(&mut self, record: Record, context: &Context) -> Result<()> {
        let mut lock = self.journal.lock(context)?;
        let read = self.journal.read_locked(&mut lock)?;
        self.take(read)?;
        if self.state.records == 0 {
            let first = encode(&Record::Place(self.place.clone()));
            self.journal.append(&mut lock, &first)?;
            self.state.records += 1;
        }
        self.journal.append(&mut lock, &encode(&record))?;
        self.state.apply(record);
        if self.journal.length() > SMALLEST_REWRITE && self.state.records > 3 * self.state.entries.len() as u64 {
            let records = self.state.records(&self.place);
            self.journal.replace(lock, records.iter().map(encode))?;
            self.state = State::default();
            records.into_iter().for_each(|record| self.state.apply(record));
        }
        Ok(())
    }
}

/// A journal below this length is never rewritten.
const SMALLEST_REWRITE: u64 = 1 << 20;

fn encode(record: &Record) -> Vec<u8> {
    // Strings, numbers and maps with string keys cannot fail to be written.
    serde_json::to_vec(record).unwrap_or_default()
}

/// Hashes as hexadecimal digits.
mod hex {
    use crate::Hash;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(*hash).to_hex().as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(text).map(Into::into).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
