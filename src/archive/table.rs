//! Tables as typed descriptions: made from the catalogs, and made into tables again.

mod create;
mod describe;
mod indexes;
mod left;
mod resolve;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

pub use create::{create, set_positions};
pub use describe::{describe, describe_index};
pub use indexes::{create_hybrid_index, create_indexes};

/// Name of the database of this session.
pub fn database() -> String {
    let found = super::sql::rows::<1>("SELECT pg_catalog.current_database()::text", &[]);
    found.into_iter().next().and_then(|[name]| name).unwrap_or_default()
}

/// Hybrid indexes of a table, by OID and name.
pub fn hybrid_indexes_of(table: pgrx::pg_sys::Oid) -> Vec<(pgrx::pg_sys::Oid, String)> {
    let sql = "SELECT i.indexrelid::text, c.relname::text FROM pg_catalog.pg_index i
               JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
               WHERE i.indrelid = $1 AND a.amname = 'hybrid' AND i.indisvalid ORDER BY c.relname";
    let found = super::sql::rows::<2>(sql, &[table.into()]);
    found
        .into_iter()
        .filter_map(|[oid, name]| Some((pgrx::pg_sys::Oid::from(oid?.parse::<u32>().ok()?), name?)))
        .collect()
}
