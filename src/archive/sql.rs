//! Queries on the catalogs, and statements that are made of parts.

use crate::error::raise;
use crate::pg::catalog::is_one_statement;
use crate::pg::encoding::{Text, to_server};
use crate::pg::settings::with_settings;
use pgrx::datum::DatumWithOid;
use pgrx::{PgSqlErrorCode, Spi, pg_sys};
use std::ffi::{CStr, CString};

/// Settings that text forms and names depend on, fixed as pg_dump fixes them, for both ways.
const FIXED: [(&CStr, &CStr); 11] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"array_nulls", c"on"),
    (c"quote_all_identifiers", c"off"),
    (c"standard_conforming_strings", c"on"),
];

/// Runs `work` with the settings that text forms depend on.
pub(super) fn with_fixed_settings<R>(work: impl FnOnce() -> R) -> R {
    with_settings(&FIXED, work)
}

#[cold]
fn fail(error: &pgrx::spi::Error) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("could not read the catalogs: {error}"))
}

/// A statement in the encoding of the database.
fn in_server(sql: &str) -> CString {
    to_server(sql).unwrap_or_else(|_| raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a statement has a zero byte"))
}

/// A text as an argument of a query.
pub(super) fn text(text: &str) -> DatumWithOid<'static> {
    Text(text.into()).into()
}

/// As [`text`], or NULL.
pub(super) fn optional(text: Option<&str>) -> DatumWithOid<'static> {
    text.map(|text| Text(text.into())).into()
}

/// The rows of a query, all of whose `N` columns are text.
pub(super) fn rows<const N: usize>(sql: &str, arguments: &[DatumWithOid]) -> Vec<[Option<String>; N]> {
    let sql = in_server(sql);
    let rows = Spi::connect(|client| {
        let mut all = Vec::new();
        for row in client.select(sql.as_c_str(), None, arguments)? {
            let mut texts = [const { None }; N];
            for (i, text) in texts.iter_mut().enumerate() {
                *text = row.get::<Text>(i + 1)?.map(|text| text.0);
            }
            all.push(texts);
        }
        Ok(all)
    });
    rows.unwrap_or_else(|error| fail(&error))
}

/// Runs one statement of this kind, made of quoted parts.
///
/// # Errors
/// XX000 if the text is anything else than that one statement: then a part was not quoted, and nothing is run.
pub(super) fn run(statement: &str, kind: pg_sys::NodeTag) {
    let statement = in_server(statement);
    if !is_one_statement(&statement, kind) {
        raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a description did not make the one statement that it should");
    }
    let done = Spi::connect_mut(|client| client.update(statement.as_c_str(), None, &[]).map(drop));
    done.unwrap_or_else(|error| fail(&error));
}

/// A name as a statement has it.
pub(super) fn identifier(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

/// A name with its schema.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// A text as a statement has it.
pub(super) fn literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}

/// Names in brackets.
pub(super) fn identifiers<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    format!("({})", names.into_iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", "))
}

/// Builds an index anew.
///
/// # Errors
/// As REINDEX.
pub(super) fn reindex(index: pg_sys::Oid) {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let found = rows::<2>(sql, &[index.into()]).into_iter().next();
    let Some([Some(schema), Some(name)]) = found else {
        raise(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "the index is gone")
    };
    run(&format!("REINDEX INDEX {}", qualified(&schema, &name)), pg_sys::NodeTag::T_ReindexStmt);
}
