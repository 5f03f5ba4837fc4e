//! `hybrid_archives` and `hybrid_archive_sets`: what this database put into stores, and whose archives are whose.
//!
//! Both tables are carried by pg_dump, so a restored clone has the rows of its original. A set says who may remove: an
//! archive is ours if its set was begun or adopted by this system (system identifier) on this timeline.

use super::kept;
use super::sql::{optional, text};
use crate::error::{Fault, raise};
use crate::pg::encoding::Text;
use crate::pg::identity;
use crate::pg::rights::as_extension_owner;
use crate::pg::settings::timestamp;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiError, SpiHeapTupleData};
use pgrx::{JsonB, PgSqlErrorCode};

/// Whose an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub system_identifier: u64,
    pub timeline: u32,
    /// Random; of the database that began it.
    pub set: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Export,
    Backup,
}

/// A row of `hybrid_archives`. Names are text, never OIDs; times in microseconds since 2000-01-01 UTC.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArchiveRecord {
    pub server: String,
    /// The reference that a person gives to import it.
    pub manifest: String,
    pub kind: ArchiveKind,
    pub identity: Identity,
    pub database: String,
    pub table_schema: String,
    pub table_name: String,
    /// `None` for a backup.
    pub index_name: Option<String>,
    /// Hexadecimal.
    pub definition_hash: String,
    pub created_at: i64,
    pub rows: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Objects that were there before.
    pub reused: u64,
    pub units: Option<u64>,
    /// In smallest coins.
    pub cost: Option<u64>,
    pub coin: Option<String>,
    pub expires_epoch: Option<u64>,
    pub expires_at: Option<i64>,
    pub tags: Vec<(String, String)>,
}

/// What is written, in the order of the parameters; `id` has a default.
const COLUMNS: [&str; 22] = [
    "server",
    "manifest",
    "kind",
    "set_id",
    "system_identifier",
    "timeline",
    "database",
    "table_schema",
    "table_name",
    "index_name",
    "definition_hash",
    "created_at",
    "rows",
    "objects",
    "bytes",
    "reused",
    "units",
    "cost",
    "coin",
    "expires_epoch",
    "expires_at",
    "tags",
];

impl ArchiveKind {
    fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Backup => "backup",
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A set from its 32 hexadecimal digits.
pub(crate) fn set_of(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    let plain = digits.len() == 32 && digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

#[cold]
fn fail(error: &SpiError) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("could not use the tables of archives: {error}"))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes a row, in the place of an earlier one for the same manifest.
///
/// # Errors
/// Raises 25006 in a read-only transaction and on a standby.
pub(crate) fn record(archive: &ArchiveRecord) {
    let Identity { system_identifier, timeline, set } = archive.identity;
    let tags = archive.tags.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let (created, expires) = (timestamp(archive.created_at), archive.expires_at.map(timestamp));
    let values: [DatumWithOid<'_>; COLUMNS.len()] = [
        text(&archive.server),
        text(&archive.manifest),
        archive.kind.name().into(),
        hex(&set).into(),
        system_identifier.to_string().into(),
        i64::from(timeline).into(),
        text(&archive.database),
        text(&archive.table_schema),
        text(&archive.table_name),
        optional(archive.index_name.as_deref()),
        archive.definition_hash.as_str().into(),
        created.into(),
        number(archive.rows).into(),
        number(archive.objects).into(),
        number(archive.bytes).into(),
        number(archive.reused).into(),
        archive.units.map(number).into(),
        archive.cost.map(number).into(),
        optional(archive.coin.as_deref()),
        archive.expires_epoch.map(number).into(),
        expires.into(),
        JsonB(serde_json::Value::Object(tags)).into(),
    ];
    let list = |item: &dyn Fn(usize, &str) -> String| {
        COLUMNS.iter().enumerate().map(|(i, name)| item(i, name)).collect::<Vec<_>>().join(", ")
    };
    as_extension_owner(|schema| {
        let sql = format!(
            "INSERT INTO {schema}.hybrid_archives ({}) VALUES ({}) ON CONFLICT (server, manifest) DO UPDATE SET {}",
            list(&|_, name| name.to_string()),
            list(&|i, _| format!("${}", i + 1)),
            list(&|_, name| format!("{name} = excluded.{name}")),
        );
        change(&sql, &values);
    });
}

/// Runs a statement that changes something; how many rows it changed.
fn change(sql: &str, values: &[DatumWithOid<'_>]) -> usize {
    Spi::connect_mut(|client| client.update(sql, None, values).map(|done| done.len()))
        .unwrap_or_else(|error| fail(&error))
}

/// Archives in a store that this database knows of, newest first.
pub(crate) fn list(server: &str) -> Vec<ArchiveRecord> {
    const SINCE_2000: &str = "- timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint";
    let columns = COLUMNS.map(|name| match name {
        "created_at" | "expires_at" => format!("(extract(epoch FROM {name} {SINCE_2000}"),
        _ => name.to_string(),
    });
    let rows = as_extension_owner(|schema| {
        let columns = columns.join(", ");
        let sql = format!(
            "SELECT {columns} FROM {schema}.hybrid_archives WHERE server = $1
             ORDER BY hybrid_archives.created_at DESC, manifest"
        );
        Spi::connect(|client| {
            let rows = client.select(&sql, None, &[text(server)])?;
            rows.map(|row| read(&row)).collect::<Result<Vec<_>, SpiError>>()
        })
    });
    rows.unwrap_or_else(|error| fail(&error)).into_iter().flatten().collect()
}

/// Manifests that this database put into stores by way of other servers. One of them may be another name of the same store.
pub(crate) fn list_of_others(server: &str) -> Vec<String> {
    let rows = as_extension_owner(|schema| {
        let sql = format!("SELECT DISTINCT manifest FROM {schema}.hybrid_archives WHERE server <> $1");
        Spi::connect(|client| {
            let rows = client.select(&sql, None, &[text(server)])?;
            rows.map(|row| Ok(row.get::<Text>(1)?.map(|text| text.0))).collect::<Result<Vec<_>, SpiError>>()
        })
    });
    rows.unwrap_or_else(|error| fail(&error)).into_iter().flatten().collect()
}

/// `None`: of a kind that this version does not know, or with a set that is none.
fn read(row: &SpiHeapTupleData<'_>) -> Result<Option<ArchiveRecord>, SpiError> {
    let string = |i: usize| Ok::<_, SpiError>(row.get::<Text>(i)?.unwrap_or_default().0);
    let count = |i: usize| Ok::<_, SpiError>(row.get::<i64>(i)?.map(|n| n as u64));
    let kind = match string(3)?.as_str() {
        "export" => ArchiveKind::Export,
        "backup" => ArchiveKind::Backup,
        _ => return Ok(None),
    };
    let (Some(set), Ok(system_identifier)) = (set_of(&string(4)?), string(5)?.parse()) else { return Ok(None) };
    let timeline = u32::try_from(row.get::<i64>(6)?.unwrap_or(0)).unwrap_or(0);
    let tags = match row.get::<JsonB>(22)? {
        Some(JsonB(serde_json::Value::Object(tags))) => {
            tags.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_string()))).collect()
        }
        _ => Vec::new(),
    };
    Ok(Some(ArchiveRecord {
        server: string(1)?,
        manifest: string(2)?,
        kind,
        identity: Identity { system_identifier, timeline, set },
        database: string(7)?,
        table_schema: string(8)?,
        table_name: string(9)?,
        index_name: row.get::<Text>(10)?.map(|text| text.0),
        definition_hash: string(11)?,
        created_at: row.get(12)?.unwrap_or(0),
        rows: count(13)?.unwrap_or(0),
        objects: count(14)?.unwrap_or(0),
        bytes: count(15)?.unwrap_or(0),
        reused: count(16)?.unwrap_or(0),
        units: count(17)?,
        cost: count(18)?,
        coin: row.get::<Text>(19)?.map(|text| text.0),
        expires_epoch: count(20)?,
        expires_at: row.get(21)?,
        tags,
    }))
}

/// Removes a row, as its archive was removed; whether there was one.
pub(crate) fn forget(server: &str, manifest: &str) -> bool {
    as_extension_owner(|schema| {
        let sql = format!("DELETE FROM {schema}.hybrid_archives WHERE server = $1 AND manifest = $2");
        change(&sql, &[text(server), text(manifest)]) > 0
    })
}

/// Sets that this system, on this timeline, began or adopted, also where that was rolled back.
pub(crate) fn our_sets() -> Vec<[u8; 16]> {
    let mut sets = recorded_sets();
    sets.extend(kept::set().filter(|set| !sets.contains(set)));
    sets
}

/// Those of the table; the one for new archives first.
fn recorded_sets() -> Vec<[u8; 16]> {
    let (system, timeline) = (identity::system_identifier(), identity::timeline());
    let sets = as_extension_owner(|schema| {
        let sql = format!(
            "SELECT set_id FROM {schema}.hybrid_archive_sets WHERE system_identifier = $1 AND timeline = $2
             ORDER BY adopted_at NULLS FIRST, set_id"
        );
        Spi::connect(|client| {
            let rows = client.select(&sql, None, &[system.to_string().into(), i64::from(timeline).into()])?;
            rows.map(|row| row.get::<String>(1)).collect::<Result<Vec<_>, SpiError>>()
        })
    });
    sets.unwrap_or_else(|error| fail(&error)).iter().flatten().filter_map(|set| set_of(set)).collect()
}

/// Whose new archives are. Begins a set if this system, on this timeline, has none yet.
///
/// # Errors
/// Raises 25006 where a set would have to be begun in a read-only transaction or on a standby.
pub(crate) fn our_identity() -> Identity {
    let set = recorded_sets().first().copied().unwrap_or_else(|| {
        let set = kept::set_or_new();
        add_set(&set, false);
        set
    });
    Identity { system_identifier: identity::system_identifier(), timeline: identity::timeline(), set }
}

/// Whether this system, on this timeline, may remove archives of the set. What the archive itself says of its system and
/// timeline does not count: a clone has its original's system identifier, and an adopted set comes from elsewhere.
pub(crate) fn is_ours(archive: &Identity) -> bool {
    our_sets().contains(&archive.set)
}

/// Makes a set ours.
pub(crate) fn adopt(set: &[u8; 16]) {
    add_set(set, true);
}

fn add_set(set: &[u8; 16], adopted: bool) {
    let (system, timeline) = (identity::system_identifier(), identity::timeline());
    as_extension_owner(|schema| {
        let sql = format!(
            "INSERT INTO {schema}.hybrid_archive_sets VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END)
             ON CONFLICT DO NOTHING"
        );
        change(&sql, &[hex(set).into(), system.to_string().into(), i64::from(timeline).into(), adopted.into()]);
    });
}

#[pg_extern(sql = false)]
fn hybrid_archive_adopt(set: Text) {
    let set = set.as_str();
    if !crate::pg::fdw::owns_database() {
        let message = "must be owner of the database to adopt a set of archives";
        raise(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    }
    let Some(set) = set_of(set) else {
        Fault::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("invalid set of archives: \"{set}\""))
            .detail("A set is 32 hexadecimal digits in lower case.")
            .hint("The column set_id of hybrid_archives has them.")
            .raise();
    };
    adopt(&set);
}

#[cfg(test)]
mod record_tests {
    use super::{hex, set_of};

    #[test]
    fn sets_as_text() {
        let set: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(set_of(&hex(&set)), Some(set));
        for wrong in [
            "",
            "0",
            "+0112233445566778899aabbccddeeff",
            "0011223344556677889900AABBCCDDEE",
            "00112233445566778899aabbccddeeff0",
        ] {
            assert_eq!(set_of(wrong), None, "{wrong}");
        }
    }
}
