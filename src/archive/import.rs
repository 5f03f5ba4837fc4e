//! `hybrid_import`, and builds that take an archive by the option `source` or the setting `hybrid.import_from`.
//!
//! All objects are fetched and checked before the table is read. They lie in a temporary file meanwhile.

use super::read::{Failure, Result, or_raise};
use super::record::{self, hex};
use super::server::{self, Caching, OpenServer};
use super::{Source, sql, table};
use crate::am::import::{Archived, Fit, ImportPlan, Imported, Misfit, Structure, with_plan};
use crate::error::{Fault, raise};
use crate::pg::attempt::attempt;
use crate::pg::encoding::{Text, explaining, from_server};
use crate::pg::relation::{Index, OpenIndex};
use crate::pg::rights;
use crate::pg::snapshot::LatestSnapshot;
use crate::pg::temporary::TemporaryFile;
use ann::distance::Metric;
use ann::index::Meta;
use ann::relink::{self, CentroidCodes};
use archive::{ArchivedIndex, Manifest, ObjectRef, SegmentObjects};
use blobstore::Error;
use pgrx::prelude::*;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

/// Raw chunks of an archive's objects, in a temporary file.
struct Local {
    file: Rc<TemporaryFile>,
    /// Offset and length by name.
    places: HashMap<String, (u64, usize)>,
}

impl Local {
    /// Fetches and checks all objects that the structure of an index is made of.
    fn fetch(
        server: &OpenServer,
        manifest: (&str, &Manifest),
        index: &ArchivedIndex,
        file: Rc<TemporaryFile>,
    ) -> Result<Self> {
        let mut local = Self { file, places: HashMap::new() };
        let mut wanted: Vec<ObjectRef> = Vec::new();
        for segment in &index.segments {
            wanted.extend(segment.objects.iter().chain(&segment.centroids).cloned());
        }
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.dedup_by(|a, b| a.name == b.name);
        let mut end = 0;
        let mut objects = server.objects(manifest, &wanted);
        for object in &wanted {
            let chunk = objects.next()?;
            TemporaryFile::check_limit(end + chunk.len() as u64);
            local.file.file().write_all_at(&chunk, end).map_err(|error| {
                Failure::Store(Error::File { path: "temporary file".into(), message: error.to_string() })
            })?;
            local.places.insert(object.name.clone(), (end, chunk.len()));
            end += chunk.len() as u64;
        }
        Ok(local)
    }

    fn read(&self, object: &ObjectRef) -> archive::Result<Vec<u8>> {
        let failed = |why: String| archive::Error::Stopped { why };
        let Some(&(offset, length)) = self.places.get(&object.name) else {
            return Err(failed(format!("object \"{}\" was not fetched", object.name)));
        };
        let mut chunk = vec![0; length];
        let read = self.file.file().read_exact_at(&mut chunk, offset);
        read.map_err(|error| failed(format!("could not read a temporary file: {error}")))?;
        Ok(chunk)
    }
}

/// An error of a decoder, as the crate `ann` has it; `own` is one of its own that went through the decoder.
fn structure(error: &archive::Error, own: Option<ann::error::Error>) -> ann::error::Error {
    own.unwrap_or_else(|| ann::error::Error::Structure(error.to_string()))
}

/// An archived segment whose objects are at hand.
fn archived(segment: &SegmentObjects, number: usize, local: &Rc<Local>) -> Result<Archived> {
    let (objects, local) = (segment.clone(), Rc::clone(local));
    let made = match segment.structure {
        archive::Structure::Graph(header) => Structure::Graph {
            header: relink::GraphHeader { elements: header.elements, m: header.m, entry: header.entry },
            source: Box::new(move |each| {
                let mut own = None;
                let read = objects.read_graph(&mut |object| local.read(object), &mut |ordinal, element| {
                    let archive::GraphElement { level, rows, neighbors } = element;
                    each(ordinal, relink::GraphElement { level, rows, neighbors }).map_err(|error| {
                        let why = error.to_string();
                        own = Some(error);
                        archive::Error::Stopped { why }
                    })
                });
                read.map_err(|error| structure(&error, own))
            }),
        },
        archive::Structure::Lists(header) => {
            let mut centroids = CentroidCodes::new(usize::from(header.dimensions));
            segment.read_centroids(&mut |object| local.read(object), &mut |_, centroid| {
                centroids.push(centroid.scale, centroid.offset, &centroid.code);
                Ok(())
            })?;
            let archive::ListsHeader { elements, lists, dimensions } = header;
            Structure::Lists {
                header: relink::ListsHeader { elements, lists, dimensions },
                centroids,
                source: Box::new(move |each| {
                    let mut own = None;
                    let read = objects.read_lists(&mut |object| local.read(object), &mut |ordinal, element| {
                        let archive::ListElement { list, second, rows, further } = element;
                        each(ordinal, relink::ListElement { list, second, rows, further }).map_err(|error| {
                            let why = error.to_string();
                            own = Some(error);
                            archive::Error::Stopped { why }
                        })
                    });
                    read.map_err(|error| structure(&error, own))
                }),
            }
        }
    };
    Ok(Archived { name: format!("segment {number}"), created: segment.created, structure: made })
}

/// What an archived index is of.
fn fit(index: &ArchivedIndex, m: usize) -> Result<Fit> {
    let definition = &index.definition;
    let metric = match definition.opclass.name.as_str() {
        "vector_l2_ops" => Metric::L2,
        "vector_ip_ops" => Metric::InnerProduct,
        "vector_cosine_ops" => Metric::Cosine,
        "vector_l1_ops" => Metric::L1,
        other => {
            return Err(Failure::Unfit(format!("the archive is of operator class \"{other}\", which is none of ours")));
        }
    };
    let dimensions = definition.vector_type.arguments.first().and_then(|text| text.parse().ok());
    let Some(dimensions) = dimensions.filter(|d| (1..=16_000).contains(d)) else {
        return Err(Failure::Unfit("the archive does not tell the dimensions of its vectors".into()));
    };
    let graph_m = index.segments.iter().find_map(|segment| match segment.structure {
        archive::Structure::Graph(header) => Some(usize::from(header.m)),
        archive::Structure::Lists(_) => None,
    });
    if definition.keys.len() > ann::keys::MAX_KEYS || !(2..=100).contains(&graph_m.unwrap_or(m)) {
        return Err(Failure::Unfit("the archive is of an index that there cannot be".into()));
    }
    // Without graphs any m fits.
    Ok(Fit { metric, dimensions, m: graph_m.unwrap_or(m), keys: definition.keys.len() })
}

/// Fetches an archived index, ready to be made again. `m` is that of the index to be built.
pub(super) fn plan(
    server: &OpenServer,
    manifest: (&str, &Manifest),
    index: &ArchivedIndex,
    (m, misfit): (usize, Misfit),
) -> Result<ImportPlan> {
    plan_in(Rc::new(TemporaryFile::create()), server, manifest, index, (m, misfit))
}

/// As [`plan`]; what is fetched goes into this file.
fn plan_in(
    file: Rc<TemporaryFile>,
    server: &OpenServer,
    manifest: (&str, &Manifest),
    index: &ArchivedIndex,
    (m, misfit): (usize, Misfit),
) -> Result<ImportPlan> {
    let fit = fit(index, m)?;
    let local = Rc::new(Local::fetch(server, manifest, index, file)?);
    let segments = index.segments.iter().enumerate().map(|(number, segment)| archived(segment, number, &local));
    let segments: Vec<Archived> = segments.collect::<Result<_>>()?;
    Ok(ImportPlan::new(fit, misfit, segments)?)
}

/// The index of a manifest that is meant: the only one, or that of this name, or of this definition.
fn chosen<'a>(manifest: &'a Manifest, name: &str, definition: Option<&archive::Hash>) -> Result<&'a ArchivedIndex> {
    if let [only] = manifest.indexes.as_slice() {
        return Ok(only);
    }
    let same = |index: &&ArchivedIndex| definition.is_some_and(|hash| index.definition.definition_hash() == *hash);
    let found = manifest.indexes.iter().find(same);
    found.or_else(|| manifest.indexes.iter().find(|index| index.definition.name == name)).ok_or_else(|| {
        let count = manifest.indexes.len();
        Failure::Unfit(format!("the archive has {count} indexes, and none that is called \"{name}\""))
    })
}

/// Tells what of an archive was not used.
pub(super) fn warn_of_refused(index: &str, imported: &Imported) {
    for why in &imported.refused {
        Fault::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("index \"{index}\" was built without a part of the archive"),
        )
        .detail(format!("{why}."))
        .report(PgLogLevel::WARNING);
    }
}

#[pg_extern(sql = false)]
fn hybrid_import(
    index: pg_sys::Oid,
    server: &CStr,
    manifest: Text,
) -> TableIterator<'static, (name!(linked, i64), name!(inserted, i64), name!(dropped, i64))> {
    explaining(|| {
        rights::check_may_write(c"hybrid_import()");
        let (name, m) = {
            let opened = OpenIndex::open(index);
            rights::check_may_maintain(&opened);
            let store = crate::pg::buffer::IndexStore::new(opened.index());
            let meta = crate::am::or_raise(opened.index(), Meta::read(&store));
            let name = opened.index().name();
            drop(store);
            opened.unlock();
            (name, meta.parameters.m)
        };
        let server = server::open(&from_server(server), Caching::Allowed);
        let read = or_raise(&server, server.manifest(manifest.as_str()));
        let archived = or_raise(&server, chosen(&read, &name, None));
        let plan = or_raise(&server, plan(&server, (manifest.as_str(), &read), archived, (m, Misfit::Refuse)));
        let ((), imported) = with_plan(plan, || sql::reindex(index));
        if !imported.used {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("index \"{name}\" was not built from the archive"));
        }
        warn_of_refused(&name, &imported);
        TableIterator::once((imported.linked as i64, imported.inserted as i64, imported.dropped as i64))
    })
}

/// The archive that a CREATE INDEX is to take, if there is one: by its option, or by the setting. Whatever goes wrong is
/// a WARNING: the index is then built from the table, as it would be without an archive.
pub(crate) fn plan_for_create(index: Index, source: &Source, own: &Fit) -> Option<ImportPlan> {
    let name = index.name();
    // Made before the subtransaction, so that it is there after it.
    let file = Rc::new(TemporaryFile::create());
    let found = attempt(AssertUnwindSafe(|| {
        // The catalogs have had the index for a moment only.
        let _snapshot = LatestSnapshot::push();
        let server = server::open(&source.server, Caching::Allowed);
        let definition = table::describe_index(index.oid());
        let result = find_and_plan(&file, &server, source, definition, own);
        result.map_err(|failure| failure.message())
    }));
    let why = match found.and_then(|result| result) {
        Ok(plan) => return Some(plan),
        Err(why) => why,
    };
    Fault::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("index \"{name}\" is not made of an archive on server \"{}\"", source.server),
    )
    .detail(format!("{why}."))
    .hint("It is built from the table.")
    .report(PgLogLevel::WARNING);
    None
}

fn find_and_plan(
    file: &Rc<TemporaryFile>,
    server: &OpenServer,
    source: &Source,
    definition: archive::table::Index,
    own: &Fit,
) -> Result<ImportPlan> {
    let hash = definition.definition_hash();
    let (locator, manifest) = match &source.manifest {
        Some(locator) => (locator.clone(), server.manifest(locator)?),
        None => newest_of(server, &definition, &hash)?,
    };
    let archived = chosen(&manifest, &definition.name, Some(&hash))?;
    let plan = plan_in(Rc::clone(file), server, (&locator, &manifest), archived, (own.m, Misfit::Refuse))?;
    plan.fit().misfit(own).map_or(Ok(plan), |why| Err(Failure::Unfit(why)))
}

/// The newest archive in a store with an index of this table, name and definition: as recorded, or else as the store lists.
fn newest_of(
    server: &OpenServer,
    definition: &archive::table::Index,
    hash: &archive::Hash,
) -> Result<(String, Manifest)> {
    let has_it = |manifest: &Manifest| manifest.indexes.iter().any(|index| index.definition.definition_hash() == *hash);
    let same_table = |record: &&record::ArchiveRecord| {
        let of_index = record.index_name.as_ref().is_none_or(|name| *name == definition.name);
        let same_definition = record.index_name.is_none() || record.definition_hash == hex(hash);
        (&record.table_schema, &record.table_name) == (&definition.table_schema, &definition.table)
            && of_index
            && same_definition
    };
    for record in record::list(&server.name).iter().filter(same_table) {
        if let Some(manifest) = server.manifest(&record.manifest).ok().filter(has_it) {
            return Ok((record.manifest.clone(), manifest));
        }
    }
    if server.abilities().can_list {
        for listed in server.session.run(|store, context| store.manifests(context))? {
            if let Some(manifest) = server.manifest(&listed.locator).ok().filter(has_it) {
                return Ok((listed.locator, manifest));
            }
        }
    }
    let what = format!(
        "server \"{}\" has no archive of an index \"{}\" that is defined like this",
        server.name, definition.name
    );
    Err(Failure::Unfit(what))
}
