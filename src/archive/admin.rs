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
use crate::pg::snapshot::{self, LatestSnapshot};
use archive::policy::{Keep, Known, Plan, Reason, plan};
use archive::{Identity, Key, Manifest, ManifestKind};
use blobstore::{Context, Error, Expected, Store, resolve};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::{JsonB, PgLogLevel, PgSqlErrorCode};
use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;

/// A manifest that is known of, by its locator, and what is kept of it.
struct Read<T> {
    locator: String,
    manifest: Result<T>,
    /// In `hybrid_archives`.
    recorded: bool,
}

/// Reads all manifests that the store lists or that are recorded. One is in memory at a time, and what `keep` makes of all.
fn read_all<T>(
    store: &dyn Store,
    recorded: &[String],
    key: Option<&Key>,
    context: &Context,
    keep: impl Fn(&str, Manifest) -> T,
) -> blobstore::Result<Vec<Read<T>>> {
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
        let manifest = manifest.map(|manifest| keep(&locator, manifest));
        all.push(Read { locator, manifest, recorded });
    }
    Ok(all)
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

/// What is listed of a manifest.
struct Summary {
    kind: ManifestKind,
    source: String,
    created: i64,
    rows: u64,
    objects: u64,
    bytes: u64,
    identity: Identity,
    tags: BTreeMap<String, String>,
}

impl Summary {
    fn of(manifest: Manifest) -> Self {
        let source = &manifest.source;
        let names = [Some(&source.database), Some(&source.schema), Some(&source.table), source.index.as_ref()];
        let mut lengths: BTreeMap<&str, u64> = BTreeMap::new();
        manifest.objects().for_each(|object| _ = lengths.insert(&object.name, object.stored_length));
        Self {
            kind: manifest.kind,
            source: names.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("."),
            created: manifest.created,
            rows: rows_of(&manifest),
            objects: lengths.len() as u64 + 1,
            bytes: lengths.values().sum(),
            identity: manifest.identity,
            tags: manifest.tags,
        }
    }
}

fn listed(read: Read<Summary>, records: &BTreeMap<String, ArchiveRecord>) -> Listed {
    let expires = records.get(&read.locator).and_then(|record| record.expires_at).map(timestamp);
    let no_tags = || JsonB(serde_json::Value::Object(serde_json::Map::new()));
    match read.manifest {
        Ok(summary) => {
            let tags = summary.tags.into_iter().map(|(name, value)| (name, value.into())).collect();
            (
                read.locator,
                Some(kind_name(summary.kind).into()),
                Some(summary.source.into()),
                Some(timestamp(summary.created)),
                Some(summary.rows as i64),
                Some(summary.objects as i64),
                Some(summary.bytes as i64),
                Some(hex(&summary.identity.set)),
                Some(record::is_ours(&record_identity(&summary.identity))),
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
    let read = server.session.run(move |store, context| {
        read_all(store, &recorded, key.as_ref(), context, |_, manifest| Summary::of(manifest))
    });
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

/// What a prune knows of archives besides what the store lists.
struct Recorded {
    /// By way of this server.
    here: Vec<String>,
    /// By way of others, which may be other names of the same store.
    elsewhere: Vec<String>,
    /// Sets of ours.
    sets: HashSet<[u8; 16]>,
}

impl Recorded {
    /// What is committed by now, not only when the statement began: it may have waited for an export to end.
    ///
    /// # Errors
    /// Raises 25001 where the transaction cannot see that, and the store does not list what it has.
    fn now(server: &OpenServer) -> Self {
        if snapshot::is_fixed() && !server.abilities().can_list {
            Fault::new(
                PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
                format!(
                    "server \"{}\" cannot list its archives, and this transaction does not see the latest ones",
                    server.name
                ),
            )
            .hint("Use a transaction of isolation level READ COMMITTED.")
            .raise();
        }
        let _now = LatestSnapshot::push();
        Self {
            here: record::list(&server.name).into_iter().map(|record| record.manifest).collect(),
            elsewhere: record::list_of_others(&server.name),
            sets: record::our_sets().into_iter().collect(),
        }
    }
}

/// Names of objects that archives need which were put into this store by way of another server. A store that lists what it
/// has tells of them itself.
fn needed_elsewhere(
    store: &dyn Store,
    recorded: &Recorded,
    key: Option<&Key>,
    context: &Context,
) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    if store.abilities().can_list {
        return Ok(names);
    }
    for locator in recorded.elsewhere.iter().filter(|locator| !recorded.here.contains(locator)) {
        match manifest_from(store, locator, key, context) {
            Ok(manifest) => names.extend(manifest.objects().map(|object| object.name.clone())),
            // In another store, or under another key, so that no object of ours is among its own.
            Err(Failure::Store(Error::NotFound { .. } | Error::Option { .. }))
            | Err(Failure::Archive(archive::Error::Key { .. })) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(names)
}

fn prune(store: &dyn Store, recorded: &Recorded, key: Option<&Key>, keep: Keep, context: &Context) -> Result<Pruned> {
    let _lock = store.lock_for_removal(context)?;
    let needed = needed_elsewhere(store, recorded, key, context)?;
    let (mut known, mut gone, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for read in read_all(store, &recorded.here, key, context, |locator, manifest| Known::new(locator, &manifest))? {
        match read.manifest {
            Ok(manifest) => known.push(manifest),
            Err(Failure::Store(Error::NotFound { .. })) if read.recorded => gone.push(read.locator),
            // Under another key, all of its objects are, too: none is one of ours.
            Err(failure @ Failure::Archive(archive::Error::Key { .. })) => {
                unread.push((read.locator, failure.message()))
            }
            // What it names cannot be told, so nothing is safe to remove.
            Err(failure) => return Err(failure),
        }
    }
    let ours: HashSet<Identity> =
        known.iter().map(|k| k.identity).filter(|id| recorded.sets.contains(&id.set)).collect();
    let mut plan = plan(&known, &ours.into_iter().collect::<Vec<_>>(), keep);
    plan.objects.retain(|(place, _)| !needed.contains(&place.name));
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
    let recorded = Recorded::now(&server);
    let keep = Keep { since: now().saturating_sub(microseconds(&keep)), last: keep_last as u32 };
    let key = server.read_key().cloned();
    let pruned = server.session.run(move |store, context| match prune(store, &recorded, key.as_ref(), keep, context) {
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
