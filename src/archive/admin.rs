//! `hybrid_archive_list`, `hybrid_archive_verify`, `hybrid_archive_prune`: what lies in a store.

use super::export::rows_of;
use super::read::{Failure, Result, manifest_from, or_raise};
use super::record::{self, ArchiveRecord, hex};
use super::record_identity;
use super::server::{self, Caching, OpenServer};
use crate::error::{Fault, raise};
use crate::pg::encoding::{Shown, Text, from_server};
use crate::pg::fdw;
use crate::pg::settings::{now, timestamp};
use archive::policy::{Keep, Known, Plan, Reason, plan};
use archive::{Identity, Key, Manifest, ManifestKind};
use blobstore::{Context, Error, Expected, Store, resolve};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::{JsonB, PgLogLevel, PgSqlErrorCode};
use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;

/// A manifest that is known of, by its locator, and what it says.
struct Read {
    locator: String,
    manifest: Result<Manifest>,
    /// In `hybrid_archives`.
    recorded: bool,
}

/// Reads all manifests that the store lists or that are recorded.
fn read_all(
    store: &dyn Store,
    recorded: &[String],
    key: Option<&Key>,
    context: &Context,
) -> blobstore::Result<Vec<Read>> {
    let mut locators: BTreeMap<String, bool> = recorded.iter().map(|locator| (locator.clone(), true)).collect();
    if store.abilities().can_list {
        for listed in store.manifests(context)? {
            locators.entry(listed.locator).or_insert(false);
        }
    }
    let mut all = Vec::new();
    for (locator, recorded) in locators {
        let manifest = manifest_from(store, &locator, key, context);
        if let Err(Failure::Store(error @ (Error::Cancelled | Error::TimedOut | Error::Unreachable { .. }))) = manifest
        {
            return Err(error);
        }
        all.push(Read { locator, manifest, recorded });
    }
    Ok(all)
}

fn recorded_in(server: &OpenServer) -> Vec<String> {
    record::list(&server.name).into_iter().map(|record| record.manifest).collect()
}

type Listed = (
    String,
    Option<String>,
    Option<Shown>,
    Option<TimestampWithTimeZone>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<bool>,
    bool,
    JsonB,
    Option<TimestampWithTimeZone>,
    Option<Shown>,
);

fn listed(read: Read, records: &BTreeMap<String, ArchiveRecord>) -> Listed {
    let expires = records.get(&read.locator).and_then(|record| record.expires_at).map(timestamp);
    let no_tags = || JsonB(serde_json::Value::Object(serde_json::Map::new()));
    match read.manifest {
        Ok(manifest) => {
            let source = &manifest.source;
            let names = [Some(&source.database), Some(&source.schema), Some(&source.table), source.index.as_ref()];
            let mut lengths: BTreeMap<&str, u64> = BTreeMap::new();
            manifest.objects().for_each(|object| _ = lengths.insert(&object.name, object.stored_length));
            let tags = manifest.tags.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            (
                read.locator,
                Some(kind_name(manifest.kind).into()),
                Some(names.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".").into()),
                Some(timestamp(manifest.created)),
                Some(rows_of(&manifest) as i64),
                Some(lengths.len() as i64 + 1),
                Some(lengths.values().sum::<u64>() as i64),
                Some(hex(&manifest.identity.set)),
                Some(record::is_ours(&record_identity(&manifest.identity))),
                read.recorded,
                JsonB(serde_json::Value::Object(tags)),
                expires,
                None,
            )
        }
        Err(failure) => {
            let problem = Some(failure.message().into());
            (read.locator, None, None, None, None, None, None, None, None, read.recorded, no_tags(), expires, problem)
        }
    }
}

fn kind_name(kind: ManifestKind) -> &'static str {
    match kind {
        ManifestKind::Export => "export",
        ManifestKind::Backup => "backup",
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_archive_list(
    server: &CStr,
) -> TableIterator<
    'static,
    (
        name!(manifest, String),
        name!(kind, Option<String>),
        name!(source, Option<Shown>),
        name!(created_at, Option<TimestampWithTimeZone>),
        name!(rows, Option<i64>),
        name!(objects, Option<i64>),
        name!(bytes, Option<i64>),
        name!(set_id, Option<String>),
        name!(ours, Option<bool>),
        name!(recorded, bool),
        name!(tags, JsonB),
        name!(expires_at, Option<TimestampWithTimeZone>),
        name!(problem, Option<Shown>),
    ),
> {
    let server = server::open(&from_server(server), Caching::Allowed);
    let records: BTreeMap<String, ArchiveRecord> =
        record::list(&server.name).into_iter().map(|record| (record.manifest.clone(), record)).collect();
    let (recorded, key) = (records.keys().cloned().collect::<Vec<_>>(), server.read_key().cloned());
    let read = server.session.run(move |store, context| read_all(store, &recorded, key.as_ref(), context));
    let mut all = or_raise(&server, read.map_err(Failure::from));
    all.sort_by_key(|read| std::cmp::Reverse(read.manifest.as_ref().map_or(i64::MIN, |manifest| manifest.created)));
    TableIterator::new(all.into_iter().map(|read| listed(read, &records)).collect::<Vec<_>>())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_archive_verify(
    server: &CStr,
    manifest: Text,
) -> TableIterator<
    'static,
    (name!(object, Shown), name!(locator, String), name!(bytes, i64), name!(ok, bool), name!(problem, Option<Shown>)),
> {
    let server = server::open(&from_server(server), Caching::Forbidden);
    let read = or_raise(&server, server.manifest(manifest.as_str()));
    let key = server.read_key().filter(|_| read.encryption.is_some()).cloned();
    let locator = manifest.0;
    let mut objects: Vec<archive::ObjectRef> = read.objects().cloned().collect();
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    objects.dedup_by(|a, b| a.name == b.name);
    let checked = server.session.run(move |store, context| {
        let mut rows = Vec::new();
        for object in objects {
            let expected = Expected { hash: object.stored, length: object.stored_length };
            let problem = match store.fetch(&object.locator, Some(&locator), &expected, context) {
                Ok(bytes) => archive::unpack(&bytes, &object, key.as_ref()).err().map(|error| error.to_string()),
                Err(error @ (Error::Cancelled | Error::TimedOut)) => return Err(error),
                Err(error) => Some(error.to_string()),
            };
            let place = resolve(&object.locator, &locator);
            rows.push((object.name.into(), place, object.stored_length as i64, problem.is_none(), problem.map(Shown)));
        }
        Ok(rows)
    });
    TableIterator::new(or_raise(&server, checked.map_err(Failure::from)))
}

/// What a prune did, on the helper's thread.
struct Pruned {
    plan: Plan,
    objects: u64,
    /// Recorded archives that the store has no more.
    gone: Vec<String>,
    /// Archives that could not be read, with the reason, and so keep everything that they may name.
    unread: Vec<(String, String)>,
}

fn prune(
    store: &dyn Store,
    (recorded, sets): (&[String], &HashSet<[u8; 16]>),
    key: Option<&Key>,
    keep: Keep,
    context: &Context,
) -> Result<Pruned> {
    let _lock = store.lock_for_removal(context)?;
    let (mut known, mut gone, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for read in read_all(store, recorded, key, context)? {
        match read.manifest {
            Ok(manifest) => known.push(Known::new(&read.locator, &manifest)),
            Err(Failure::Store(Error::NotFound { .. })) if read.recorded => gone.push(read.locator),
            // Under another key, all of its objects are, too: none is one of ours.
            Err(failure @ Failure::Archive(archive::Error::Key { .. })) => {
                unread.push((read.locator, failure.message()))
            }
            // What it names cannot be told, so nothing is safe to remove.
            Err(failure) => return Err(failure),
        }
    }
    let ours: HashSet<Identity> = known.iter().map(|k| k.identity).filter(|id| sets.contains(&id.set)).collect();
    let plan = plan(&known, &ours.into_iter().collect::<Vec<_>>(), keep);
    for manifest in &plan.manifests {
        store.remove(manifest, context)?;
    }
    let mut objects = 0;
    for (place, manifest) in &plan.objects {
        objects += u64::from(store.remove(&resolve(&place.locator, manifest), context)?);
    }
    Ok(Pruned { plan, objects, gone, unread })
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Foreign => "of another system: hybrid_archive_adopt makes its set ours",
        Reason::Last => "one of the last of its kind",
        Reason::Young => "younger than asked for",
        Reason::Parent => "a later archive follows it",
    }
}

#[pg_extern(sql = false)]
fn hybrid_archive_prune(
    server: &CStr,
    keep: Interval,
    keep_last: i32,
) -> TableIterator<'static, (name!(manifest, String), name!(removed, bool), name!(reason, Option<Shown>))> {
    crate::pg::rights::check_may_write(c"hybrid_archive_prune()");
    if keep_last < 0 || keep.months() < 0 || keep.days() < 0 || keep.micros() < 0 {
        raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "what is to be kept must not be negative");
    }
    let server = server::open(&from_server(server), Caching::Allowed);
    if !fdw::owns_server(&server.name) {
        let message = format!("must be owner of foreign server {}", server.name);
        raise(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    }
    if !server.abilities().can_delete {
        let error = blobstore::Error::Unsupported { what: "remove what it has" };
        super::fault::fault(&server.name, &error)
            .hint("Archives in it end when the time that was paid for is over.")
            .raise();
    }
    fdw::lock_server(&server.name, true);
    let recorded = recorded_in(&server);
    let sets = record::our_sets().into_iter().collect();
    let keep = Keep { since: now().saturating_sub(microseconds(&keep)), last: keep_last as u32 };
    let key = server.read_key().cloned();
    let pruned =
        server.session.run(move |store, context| match prune(store, (&recorded, &sets), key.as_ref(), keep, context) {
            Err(Failure::Store(error)) => Err(error),
            other => Ok(other),
        });
    let pruned = or_raise(&server, pruned.map_err(Failure::from).and_then(|result| result));
    for manifest in pruned.plan.manifests.iter().chain(&pruned.gone) {
        record::forget(&server.name, manifest);
    }
    if pruned.plan.foreign().next().is_some() {
        Fault::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("server \"{}\" has archives of other systems", server.name),
        )
        .detail("They stay, whatever their age.")
        .hint("hybrid_archive_list tells their sets, hybrid_archive_adopt makes a set ours.")
        .report(PgLogLevel::WARNING);
    }
    pgrx::notice!("removed {} archives and {} objects", pruned.plan.manifests.len(), pruned.objects);
    let removed = pruned.plan.manifests.into_iter().map(|manifest| (manifest, true, None));
    let gone = pruned.gone.into_iter().map(|manifest| (manifest, true, Some("was not there any more".into())));
    let kept = pruned.plan.kept.into_iter().map(|(manifest, why)| (manifest, false, Some(reason(why).into())));
    let unread = pruned.unread.into_iter().map(|(manifest, why)| (manifest, false, Some(why.into())));
    TableIterator::new(removed.chain(gone).chain(kept).chain(unread).collect::<Vec<_>>())
}

/// As PostgreSQL counts where a number is needed: a month has 30 days.
fn microseconds(interval: &Interval) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let days = i64::from(interval.months()) * 30 + i64::from(interval.days());
    days.saturating_mul(DAY).saturating_add(interval.micros())
}
