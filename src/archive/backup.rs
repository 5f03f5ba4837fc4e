//! `hybrid_backup`, `hybrid_restore`: a table with its rows and hybrid indexes.

use super::export::{Exported, Previous, finish, manifest_for, recorded};
use super::read::{Failure, Objects, or_raise};
use super::record::{self, hex};
use super::segments::{Out, UNPLACED};
use super::server::{self, Caching, OpenServer};
use super::thread::Upload;
use super::{identity_of, import, rows, table};
use crate::am::import::{Misfit, with_plan};
use crate::error::{Fault, raise};
use crate::pg::encoding::{Shown, Text, explaining, from_server, shown};
use crate::pg::fdw;
use crate::pg::rights;
use crate::pg::settings::timestamp;
use crate::pg::snapshot::Snapshot;
use archive::{Kind, Manifest, ManifestKind, ObjectRef, RowsChunk, RowsDecoder, RowsEncoder, Source, pack};
use pgrx::prelude::*;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::ffi::CStr;

/// Rows on their way into a store.
struct Sending<'a, 's> {
    server: &'a OpenServer,
    upload: &'a mut Upload<'s>,
    previous: Option<&'a Previous>,
    encoder: RowsEncoder,
    chunks: Vec<RowsChunk>,
}

impl Sending<'_, '_> {
    fn put(&mut self, chunk: &rows::Chunk) -> super::read::Result<()> {
        let raw = self.encoder.chunk(&chunk.bytes)?;
        let content = *blake3::hash(&raw).as_bytes();
        let object: ObjectRef = match self.previous.and_then(|previous| previous.object(&content)) {
            Some(known) => known.clone(),
            None => {
                let packed = pack(Kind::Rows, &raw, self.server.write_key())?;
                let reference = packed.reference(UNPLACED);
                Out::put(self.upload, packed)?;
                reference
            }
        };
        let blocks = (chunk.blocks.start, chunk.blocks.end.saturating_sub(1));
        self.chunks.push(RowsChunk { object, rows: chunk.rows, blocks });
        Ok(())
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_backup(
    tbl: pg_sys::Oid,
    server: &CStr,
) -> TableIterator<
    'static,
    (
        name!(manifest, String),
        name!(rows, i64),
        name!(indexes, i32),
        name!(objects, i64),
        name!(bytes, i64),
        name!(reused, i64),
        name!(units, Option<i64>),
        name!(cost, Option<i64>),
        name!(coin, Option<String>),
        name!(expires_at, Option<TimestampWithTimeZone>),
        name!(not_carried, Vec<Shown>),
    ),
> {
    explaining(|| {
        rights::check_may_write(c"hybrid_backup()");
        // Description, rows and indexes are read as this statement sees them.
        let snapshot = Snapshot::active();
        let described = table::describe(tbl);
        let server = server::open(&from_server(server), Caching::Allowed);
        server.warn_if_public_and_clear();
        fdw::lock_server(&server.name, false);
        let indexes = table::hybrid_indexes_of(tbl);
        let sources: Vec<_> = indexes.iter().map(|(oid, _)| *oid).chain([tbl]).collect();
        fdw::lock_sources(&server.name, &sources);
        let identity = identity_of(&record::our_identity());
        let source = Source {
            database: table::database(),
            schema: described.schema.clone(),
            table: described.name.clone(),
            index: None,
        };
        let mut upload = server.session.upload();
        or_raise(&server, upload.begun().map_err(Failure::from));
        let previous = Previous::find(&server, ManifestKind::Backup, &source, &identity);
        let columns: Vec<String> = described.columns.iter().map(|column| column.name.clone()).collect();
        let (encoder, chunks) = (RowsEncoder::new(), Vec::new());
        let mut sending =
            Sending { server: &server, upload: &mut upload, previous: previous.as_ref(), encoder, chunks };
        rows::read_rows(tbl, &columns, &snapshot, &mut |chunk| or_raise(&server, sending.put(&chunk)));
        let Sending { encoder, chunks, .. } = sending;
        or_raise(&server, encoder.finish().map_err(Failure::from));
        let mut manifest = manifest_for(ManifestKind::Backup, source, identity, &server);
        for (oid, name) in indexes {
            if described.hybrid_indexes.iter().any(|index| index.name == name) {
                let objects =
                    Exported::open(oid).objects(&mut upload, (server.write_key(), false), previous.as_ref(), true);
                manifest.indexes.push(or_raise(&server, objects));
            }
        }
        manifest.rows = chunks;
        manifest.not_carried.clone_from(&described.not_carried);
        manifest.table = Some(described);
        let receipt = or_raise(&server, finish(upload, manifest.clone(), server.write_key().cloned()));
        let hash = table_hash(&manifest);
        let done = recorded(&server, &manifest, &receipt, hash);
        let price = done.price.as_ref();
        TableIterator::once((
            done.manifest,
            done.rows as i64,
            manifest.indexes.len() as i32,
            done.objects as i64,
            done.bytes as i64,
            done.reused as i64,
            price.map(|price| price.units as i64),
            price.map(|price| price.coins as i64),
            price.map(|price| price.coin.clone()),
            done.expires.and_then(|expires| expires.at).map(timestamp),
            shown(manifest.not_carried),
        ))
    })
}

/// What tells definitions apart in `hybrid_archives`: that of all indexes together.
fn table_hash(manifest: &Manifest) -> String {
    let mut hasher = blake3::Hasher::new();
    for index in &manifest.indexes {
        hasher.update(&index.definition.definition_hash());
    }
    hex(hasher.finalize().as_bytes())
}

/// Pieces of COPY text from a store.
struct Lines<'a> {
    server: &'a OpenServer,
    objects: Objects<'a>,
    left: std::slice::Iter<'a, RowsChunk>,
    decoder: Option<RowsDecoder>,
}

impl Lines<'_> {
    fn next(&mut self) -> super::read::Result<Option<Vec<u8>>> {
        let Some(chunk) = self.left.next() else {
            if let Some(decoder) = self.decoder.take() {
                decoder.finish()?;
            }
            return Ok(None);
        };
        let raw = self.objects.next()?;
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        let text = decoder.chunk(&raw).map_err(|error| error.of(&chunk.object.name))?;
        if u64::from(text.lines) != chunk.rows {
            let (found, expected) = (text.lines, chunk.rows);
            return Err(Failure::Unfit(format!("object \"{}\" has {found} rows, not {expected}", chunk.object.name)));
        }
        Ok(Some(text.text.to_vec()))
    }

    fn or_raise(&mut self) -> Option<Vec<u8>> {
        let next = self.next();
        or_raise(self.server, next)
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_restore(
    server: Option<&CStr>,
    manifest: Option<Text>,
    target_schema: Option<&CStr>,
    target_name: Option<&CStr>,
) -> TableIterator<
    'static,
    (
        name!(table_name, Shown),
        name!(rows, i64),
        name!(indexes, i32),
        name!(linked, i64),
        name!(inserted, i64),
        name!(not_carried, Vec<Shown>),
    ),
> {
    // The function is not strict: the target may be NULL.
    let (Some(server), Some(manifest)) = (server, manifest) else {
        raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "server and manifest must not be NULL")
    };
    explaining(|| {
        rights::check_may_write(c"hybrid_restore()");
        let server = server::open(&from_server(server), Caching::Allowed);
        let locator = manifest.as_str();
        let manifest = or_raise(&server, server.manifest(locator));
        let Some(described) = &manifest.table else {
            Failure::Unfit("the archive is an export of an index and has no rows".into())
                .fault(&server.name)
                .hint("Import it into an index of the table with hybrid_import.")
                .raise()
        };
        let name = |given: Option<&CStr>, own: &str| given.map_or(own.to_string(), from_server);
        let (schema, name) = (name(target_schema, &described.schema), name(target_name, &described.name));
        let oid = table::create(described, &schema, &name);
        let columns: Vec<String> = described.columns.iter().map(|column| column.name.clone()).collect();
        let wanted: Vec<ObjectRef> = manifest.rows.iter().map(|chunk| chunk.object.clone()).collect();
        let mut lines = Lines {
            server: &server,
            objects: server.objects((locator, &manifest), &wanted),
            left: manifest.rows.iter(),
            decoder: Some(RowsDecoder::new()),
        };
        let loaded = rows::load_rows(oid, &columns, &mut || lines.or_raise());
        drop(lines);
        let (mut indexes, mut linked, mut inserted) = (0, 0, 0);
        table::create_indexes(described, oid, &mut |definition| {
            indexes += 1;
            let archived = manifest.indexes.iter().find(|index| index.definition.name == definition.name);
            let m = definition.options.iter().find(|o| o.name == "m").and_then(|o| o.value.parse().ok()).unwrap_or(16);
            let plan = archived.map(|index| import::plan(&server, (locator, &manifest), index, (m, Misfit::Build)));
            match plan {
                Some(Ok(plan)) => {
                    let (_, imported) = with_plan(plan, || table::create_hybrid_index(definition, oid, &[]));
                    import::warn_of_refused(&definition.name, &imported);
                    linked += imported.linked as i64;
                    inserted += imported.inserted as i64;
                }
                without => {
                    // Rows count more than the way to them: the index is built from the table.
                    if let Some(Err(failure)) = without {
                        Fault::new(
                            PgSqlErrorCode::ERRCODE_WARNING,
                            format!("index \"{}\" is built without an archive", definition.name),
                        )
                        .detail(format!("{}.", failure.message()))
                        .report(PgLogLevel::WARNING);
                    }
                    table::create_hybrid_index(definition, oid, &[]);
                }
            }
        });
        table::set_positions(described, oid);
        let target = format!("{}.{}", pgrx::spi::quote_identifier(schema), pgrx::spi::quote_identifier(name));
        let not_carried = shown(manifest.not_carried.clone());
        TableIterator::once((Shown(target), loaded as i64, indexes, linked, inserted, not_carried))
    })
}
