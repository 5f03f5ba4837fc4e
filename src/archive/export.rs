//! `hybrid_export`, `hybrid_archive_cost`: an index as objects in a store.

use super::read::{Failure, Result, or_raise};
use super::record::{self, ArchiveKind, ArchiveRecord, hex};
use super::segments::{Maker, Out, UNPLACED};
use super::server::{self, Caching, OpenServer};
use super::thread::Upload;
use super::{identity_of, record_identity, table};
use crate::error::Fault;
use crate::pg::buffer::IndexStore;
use crate::pg::encoding::{explaining, from_server};
use crate::pg::fdw;
use crate::pg::relation::{OpenIndex, OpenTable};
use crate::pg::rights;
use crate::pg::settings::{now, timestamp};
use crate::pg::thread::Pool;
use ann::index::{self, Directory, Head, SegmentEntry, SegmentKind};
use archive::{ArchivedIndex, Identity, Manifest, ManifestKind, Packed, SegmentObjects, Source};
use blobstore::{Object, Placed, Price, Receipt, resolve};
use pgrx::prelude::*;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;

/// Elements from which on an export seals the active graph, so that the next one finds it unchanged.
const WORTH_SEALING: u64 = 1000;

/// An archive of the same thing that was made before, in the same store.
pub(super) struct Previous {
    /// With locators that another manifest may name.
    manifest: Manifest,
    /// Names of objects that need not be sent again.
    present: HashSet<String>,
}

impl Previous {
    /// The last archive of this kind and source that the store still has, if it has one that the session can read.
    pub fn find(server: &OpenServer, kind: ManifestKind, source: &Source, identity: &Identity) -> Option<Self> {
        let is_same = |record: &&ArchiveRecord| {
            let same_kind = (record.kind == ArchiveKind::Export) == (kind == ManifestKind::Export);
            let names = (&record.database, &record.table_schema, &record.table_name, &record.index_name);
            let same_set = record.identity.set == identity.set;
            same_kind && same_set && names == (&source.database, &source.schema, &source.table, &source.index)
        };
        let locator = record::list(&server.name).iter().find(is_same)?.manifest.clone();
        // Without it everything is sent again, where the store does not find it by itself: slower, and no error.
        let mut manifest = server.manifest(&locator).ok()?;
        if manifest.encryption != server.write_key().map(archive::Key::id) {
            return None;
        }
        manifest.objects_mut().for_each(|object| object.locator = resolve(&object.locator, &locator));
        let mut placed: Vec<Placed> = manifest.objects().map(placed).collect();
        placed.sort_by(|a, b| a.name.cmp(&b.name));
        placed.dedup();
        let names: Vec<String> = placed.iter().map(|placed| placed.name.clone()).collect();
        let present = server.session.run(move |store, context| store.present(&placed, context)).ok()?;
        let present = names.into_iter().zip(present).filter_map(|(name, present)| present.then_some(name)).collect();
        Some(Self { manifest, present })
    }

    /// What a segment was exported as, if all of it is there.
    fn segment(&self, origin: &[u8; 16]) -> Option<&SegmentObjects> {
        let segments = self.manifest.indexes.iter().flat_map(|index| &index.segments);
        let mut same = segments.filter(|segment| segment.origin.as_ref() == Some(origin));
        same.find(|segment| {
            segment.objects.iter().chain(&segment.centroids).chain(&segment.vectors).all(|o| self.has(&o.name))
        })
    }

    /// Where an object with this content is.
    pub fn object(&self, content: &archive::Hash) -> Option<&archive::ObjectRef> {
        self.manifest.objects().find(|object| object.content == *content && self.has(&object.name))
    }

    fn has(&self, name: &str) -> bool {
        self.present.contains(name)
    }
}

fn placed(object: &archive::ObjectRef) -> Placed {
    Placed {
        name: object.name.clone(),
        hash: object.stored,
        length: object.stored_length,
        locator: object.locator.clone(),
        reused: true,
    }
}

impl Out for Upload<'_> {
    fn put(&mut self, packed: Packed) -> Result<()> {
        Ok(Upload::put(self, Object { name: packed.name, bytes: packed.bytes })?)
    }
}

/// Tells how large objects would be.
#[derive(Default)]
struct Sizes {
    names: HashSet<String>,
    lengths: Vec<u64>,
}

impl Out for Sizes {
    fn put(&mut self, packed: Packed) -> Result<()> {
        if self.names.insert(packed.name) {
            self.lengths.push(packed.bytes.len() as u64);
        }
        Ok(())
    }
}

/// An index that is exported, alone or with its table.
pub(super) struct Exported {
    opened: OpenIndex,
    table: OpenTable,
}

impl Exported {
    /// Opens the index if the caller may read all its rows.
    ///
    /// # Errors
    /// 42501, and as [`OpenIndex::open_to_write`].
    pub fn open(oid: pg_sys::Oid) -> Self {
        let (opened, table) = OpenIndex::open_to_write(oid);
        rights::check_may_inspect(&opened, false);
        Self { opened, table }
    }

    /// What it is, by name.
    fn source(&self) -> Source {
        let definition = table::describe_index(self.opened.index().oid());
        let (schema, table, index) = (definition.table_schema, definition.table, Some(definition.name));
        Source { database: table::database(), schema, table, index }
    }

    /// Seals the active graph if it is worth it.
    fn seal(&self, store: &IndexStore) -> ann::error::Result<()> {
        let (meta, directory) = Directory::read(store)?;
        let active = directory.active()?;
        let pages = Head::read(store, &active)?.element_pages;
        let elements = u64::from(pages) * u64::from(meta.parameters.shape().element.per_page);
        if elements >= WORTH_SEALING { index::seal(store, &meta, &directory, now()) } else { Ok(()) }
    }

    /// What tells a sealed segment from all others.
    fn origin(&self, entry: &SegmentEntry) -> Option<[u8; 16]> {
        let mut hasher = blake3::Hasher::new_derive_key("hybridvec 2026 segment of an index");
        hasher.update(&crate::pg::identity::system_identifier().to_le_bytes());
        let (space, database, number) = self.opened.index().storage_key();
        [space, database, number, entry.id].iter().for_each(|n| _ = hasher.update(&n.to_le_bytes()));
        hasher.update(&entry.created.to_le_bytes());
        let mut origin = [0; 16];
        hasher.finalize_xof().fill(&mut origin);
        (!entry.active).then_some(origin)
    }

    /// Makes the objects of the index, but for those of segments that are in the store as they are.
    pub fn objects(
        &self,
        out: &mut dyn Out,
        (key, vectors): (Option<&archive::Key>, bool),
        previous: Option<&Previous>,
        seal: bool,
    ) -> Result<ArchivedIndex> {
        let index = self.opened.index();
        let definition = table::describe_index(index.oid());
        let store = IndexStore::new(index);
        if seal {
            self.seal(&store)?;
        }
        // What the directory lists now is not given up while the statement's snapshot is active.
        let (meta, directory) = Directory::read(&store)?;
        let pool = Pool::new();
        let mut maker = Maker { store: &store, meta: &meta, index, table: &self.table, pool: &pool, out, key, vectors };
        let mut segments = Vec::new();
        for entry in directory.segments.iter().filter(|entry| entry.kind != SegmentKind::Pending) {
            let origin = self.origin(entry);
            let before = origin.and_then(|origin| previous?.segment(&origin));
            let before = before.filter(|before| !vectors || !before.vectors.is_empty() || before.rows == 0);
            let again = match before {
                Some(before) => maker.again(entry, before)?,
                None => None,
            };
            let made = match again {
                Some(mut made) => {
                    if !vectors {
                        made.vectors.clear();
                    }
                    Some(made)
                }
                None => maker.segment(entry)?,
            };
            segments.extend(made.map(|made| SegmentObjects { origin, created: entry.created, ..made }));
        }
        Ok(ArchivedIndex { definition, segments })
    }
}

/// Makes the object of a manifest once the store has told where its objects are.
///
/// # Errors
/// If the manifest is too large.
pub(super) fn finish(upload: Upload<'_>, manifest: Manifest, key: Option<archive::Key>) -> Result<Receipt> {
    // No locator is longer than this, so the manifest will fit when they are known.
    let mut largest = manifest.clone();
    largest.objects_mut().for_each(|object| object.locator = "x".repeat(object.locator.len().max(160)));
    largest.pack(key.as_ref())?;
    let receipt = upload.finish(move |placed| {
        let places: HashMap<&str, &str> = placed.iter().map(|p| (p.name.as_str(), p.locator.as_str())).collect();
        let mut manifest = manifest.clone();
        let unplaced = manifest.objects_mut().filter(|object| object.locator == UNPLACED);
        for object in unplaced {
            object.locator = places.get(object.name.as_str()).copied().unwrap_or(UNPLACED).to_string();
        }
        let packed = manifest.pack(key.as_ref()).expect("it fitted with longer locators");
        Object { name: packed.name, bytes: packed.bytes }
    })?;
    Ok(receipt)
}

/// What an upload came to, for the person and for `hybrid_archives`.
pub(super) struct Done {
    pub manifest: String,
    pub objects: u64,
    pub bytes: u64,
    pub reused: u64,
    pub rows: u64,
    pub price: Option<Price>,
    pub expires: Option<blobstore::Expiry>,
}

/// Records an archive that was stored, and tells the person what the store warned of.
pub(super) fn recorded(server: &OpenServer, manifest: &Manifest, receipt: &Receipt, definition_hash: String) -> Done {
    for warning in &receipt.warnings {
        Fault::new(PgSqlErrorCode::ERRCODE_WARNING, format!("server \"{}\": {warning}", server.name))
            .report(PgLogLevel::WARNING);
    }
    let mut lengths: BTreeMap<&str, u64> = BTreeMap::new();
    manifest.objects().for_each(|object| _ = lengths.insert(&object.name, object.stored_length));
    let sent: HashSet<&str> = receipt.objects.iter().filter(|p| !p.reused).map(|p| p.name.as_str()).collect();
    let done = Done {
        manifest: receipt.manifest.locator.clone(),
        objects: lengths.len() as u64 + 1,
        bytes: lengths.values().sum::<u64>() + receipt.manifest.length,
        reused: lengths.keys().filter(|name| !sent.contains(*name)).count() as u64,
        rows: rows_of(manifest),
        price: receipt.price.clone(),
        expires: receipt.expires,
    };
    record::record(&ArchiveRecord {
        server: server.name.clone(),
        manifest: done.manifest.clone(),
        kind: if manifest.kind == ManifestKind::Export { ArchiveKind::Export } else { ArchiveKind::Backup },
        identity: record_identity(&manifest.identity),
        database: manifest.source.database.clone(),
        table_schema: manifest.source.schema.clone(),
        table_name: manifest.source.table.clone(),
        index_name: manifest.source.index.clone(),
        definition_hash,
        created_at: manifest.created,
        rows: done.rows,
        objects: done.objects,
        bytes: done.bytes,
        reused: done.reused,
        units: done.price.as_ref().map(|price| price.units),
        cost: done.price.as_ref().map(|price| price.coins),
        coin: done.price.as_ref().map(|price| price.coin.clone()),
        expires_epoch: done.expires.map(|expires| expires.epoch),
        expires_at: done.expires.and_then(|expires| expires.at),
        tags: manifest.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    });
    done
}

/// Rows of a backup; of an export, rows whose place in the index is archived.
pub(super) fn rows_of(manifest: &Manifest) -> u64 {
    match manifest.kind {
        ManifestKind::Backup => manifest.rows.iter().map(|chunk| chunk.rows).sum(),
        ManifestKind::Export => manifest.indexes.iter().flat_map(|i| &i.segments).map(|segment| segment.rows).sum(),
    }
}

/// A manifest without objects yet.
pub(super) fn manifest_for(kind: ManifestKind, source: Source, identity: Identity, server: &OpenServer) -> Manifest {
    Manifest {
        version: archive::MANIFEST_VERSION,
        kind,
        created: now(),
        identity,
        source,
        extension_version: env!("CARGO_PKG_VERSION").to_string(),
        indexes: Vec::new(),
        table: None,
        rows: Vec::new(),
        not_carried: Vec::new(),
        tags: BTreeMap::new(),
        parent: None,
        encryption: server.write_key().map(archive::Key::id),
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_export(
    index: pg_sys::Oid,
    server: &CStr,
    vectors: bool,
) -> TableIterator<
    'static,
    (
        name!(manifest, String),
        name!(objects, i64),
        name!(bytes, i64),
        name!(reused, i64),
        name!(rows, i64),
        name!(units, Option<i64>),
        name!(cost, Option<i64>),
        name!(coin, Option<String>),
        name!(expires_at, Option<TimestampWithTimeZone>),
    ),
> {
    explaining(|| {
        rights::check_may_write(c"hybrid_export()");
        let exported = Exported::open(index);
        let server = server::open(&from_server(server), Caching::Allowed);
        server.warn_if_public_and_clear();
        fdw::lock_server(&server.name, false);
        fdw::lock_sources(&server.name, &[index]);
        let identity = identity_of(&record::our_identity());
        let source = exported.source();
        let mut upload = server.session.upload();
        // From here on nobody removes what the store has.
        or_raise(&server, upload.begun().map_err(Failure::from));
        let previous = Previous::find(&server, ManifestKind::Export, &source, &identity);
        let archived = exported.objects(&mut upload, (server.write_key(), vectors), previous.as_ref(), true);
        let archived = or_raise(&server, archived);
        let hash = archived.definition.definition_hash();
        let mut manifest = manifest_for(ManifestKind::Export, source, identity, &server);
        manifest.indexes.push(archived);
        let receipt = or_raise(&server, finish(upload, manifest.clone(), server.write_key().cloned()));
        let done = recorded(&server, &manifest, &receipt, hex(&hash));
        let price = done.price.as_ref();
        TableIterator::once((
            done.manifest,
            done.objects as i64,
            done.bytes as i64,
            done.reused as i64,
            done.rows as i64,
            price.map(|price| price.units as i64),
            price.map(|price| price.coins as i64),
            price.map(|price| price.coin.clone()),
            done.expires.and_then(|expires| expires.at).map(timestamp),
        ))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_archive_cost(
    index: pg_sys::Oid,
    server: &CStr,
) -> TableIterator<
    'static,
    (
        name!(objects, i64),
        name!(bytes, i64),
        name!(units, Option<i64>),
        name!(cost, Option<i64>),
        name!(coin, Option<String>),
        name!(cost_singly, Option<i64>),
        name!(saving, Option<f64>),
    ),
> {
    let exported = Exported::open(index);
    let server = server::open(&from_server(server), Caching::Allowed);
    let mut sizes = Sizes::default();
    // Where it knows of no set yet, none is begun: nothing is exported.
    let source = exported.source();
    let archived = or_raise(&server, exported.objects(&mut sizes, (server.write_key(), false), None, false));
    let nobody = Identity { system_identifier: 0, timeline: 0, set: [0; 16] };
    let mut manifest = manifest_for(ManifestKind::Export, source, nobody, &server);
    manifest.indexes.push(archived);
    manifest.objects_mut().for_each(|object| object.locator = "x".repeat(60));
    let packed = or_raise(&server, manifest.pack(server.write_key()).map_err(Failure::from));
    let (lengths, own) = (sizes.lengths, packed.bytes.len() as u64);
    let (count, bytes) = (lengths.len() as i64 + 1, lengths.iter().sum::<u64>() + own);
    let price =
        or_raise(&server, server.session.run(move |store, _| Ok(store.price(&lengths, own))).map_err(Failure::from));
    let saving = price.as_ref().map(|price| 1.0 - price.coins as f64 / price.coins_singly.max(1) as f64);
    TableIterator::once((
        count,
        bytes as i64,
        price.as_ref().map(|price| price.units as i64),
        price.as_ref().map(|price| price.coins as i64),
        price.as_ref().map(|price| price.coin.clone()),
        price.as_ref().map(|price| price.coins_singly as i64),
        saving,
    ))
}
