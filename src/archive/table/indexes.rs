//! Constraints and indexes of a restored table, made after its rows are there.

use super::create::{collate, with_options};
use super::resolve;
use crate::archive::sql::{identifier, identifiers, qualified, rows, run, with_fixed_settings};
use crate::error::raise;
use archive::table::{Index, IndexColumn, ObjectName, Parameter, PlainIndex, Table, Unique};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{NodeTag, Oid};

/// A table that indexes are made on.
struct Target {
    schema: Oid,
    /// Quoted.
    name: String,
}

impl Target {
    fn of(table: Oid) -> Self {
        let found = rows::<3>(
            "SELECT n.oid::text, n.nspname::text, c.relname::text FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[table.into()],
        );
        let Some([Some(schema), Some(schema_name), Some(name)]) = found.into_iter().next() else {
            raise(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, "the table to index is not there")
        };
        let schema = Oid::from(schema.parse::<u32>().unwrap_or_default());
        Self { schema, name: qualified(&schema_name, &name) }
    }

    /// The name for a new index, followed by a space; nothing if it is taken, and PostgreSQL is to choose one.
    fn free_name(&self, name: &str) -> String {
        if resolve::is_taken(self.schema, name) { String::new() } else { format!("{} ", identifier(name)) }
    }
}

/// Creates primary key, unique constraints and plain indexes, then calls `hybrid` for each hybrid index, whose schemas are
/// those of this database: it may [create](create_hybrid_index) the index, or take it from an archive.
///
/// # Errors
/// Those of `create`; 23505 if the rows do not obey a constraint.
pub fn create_indexes(table: &Table, oid: Oid, hybrid: &mut dyn FnMut(&Index)) {
    let resolved = with_fixed_settings(|| {
        let resolved = resolve::resolve(table);
        let target = Target::of(oid);
        for unique in &resolved.constraints {
            run(&constraint_statement(unique, &target), NodeTag::T_AlterTableStmt);
        }
        for index in &resolved.plain_indexes {
            run(&index_statement(index, &target), NodeTag::T_IndexStmt);
        }
        resolved
    });
    resolved.hybrid_indexes.iter().for_each(hybrid);
}

fn include(columns: &[String]) -> String {
    if columns.is_empty() { String::new() } else { format!(" INCLUDE {}", identifiers(columns)) }
}

fn constraint_statement(unique: &Unique, target: &Target) -> String {
    let name = target.free_name(&unique.name);
    let name = if name.is_empty() { name } else { format!("CONSTRAINT {name}") };
    let kind = match (unique.primary, unique.nulls_not_distinct) {
        (true, _) => "PRIMARY KEY",
        (false, true) => "UNIQUE NULLS NOT DISTINCT",
        (false, false) => "UNIQUE",
    };
    let deferred = match (unique.deferrable, unique.initially_deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        (false, _) => "",
    };
    format!(
        "ALTER TABLE ONLY {} ADD {name}{kind} {}{}{}{deferred}",
        target.name,
        identifiers(&unique.columns),
        include(&unique.include),
        with_options(&unique.options),
    )
}

fn column_text(column: &IndexColumn) -> String {
    let IndexColumn { name, opclass, collation, descending, nulls_first } = column;
    let order = match (descending, nulls_first) {
        (false, false) => "",
        (false, true) => " NULLS FIRST",
        (true, true) => " DESC",
        (true, false) => " DESC NULLS LAST",
    };
    let collate = collate(collation.as_ref());
    format!("{}{collate} {}{order}", identifier(name), qualified(&opclass.schema, &opclass.name))
}

fn index_statement(index: &PlainIndex, target: &Target) -> String {
    let columns: Vec<String> = index.columns.iter().map(column_text).collect();
    format!(
        "CREATE {}INDEX {}ON {} USING {} ({}){}{}{}",
        if index.unique { "UNIQUE " } else { "" },
        target.free_name(&index.name),
        target.name,
        identifier(&index.method),
        columns.join(", "),
        include(&index.include),
        if index.nulls_not_distinct { " NULLS NOT DISTINCT" } else { "" },
        with_options(&index.options),
    )
}

/// Creates a hybrid index on plain columns of a table, with these options besides its own; they win.
///
/// # Errors
/// 0A000 if the index is not on plain columns; those of `create` and of CREATE INDEX.
pub fn create_hybrid_index(index: &Index, table: Oid, more: &[Parameter]) -> Oid {
    with_fixed_settings(|| {
        let index = resolve::resolve_index(index);
        let Some(columns) = index.plain_columns() else {
            let message =
                format!("index \"{}\" is on an expression or partial, so it is not created again", index.name);
            raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        };
        let classes = std::iter::once(&index.opclass).chain(index.keys.iter().map(|key| &key.opclass));
        let text = |(name, class): (&String, &ObjectName)| {
            format!("{} {}", identifier(name), qualified(&class.schema, &class.name))
        };
        let columns: Vec<String> = columns.into_iter().zip(classes).map(text).collect();
        let mut options: Vec<Parameter> = more.to_vec();
        options.extend(index.options.iter().filter(|own| more.iter().all(|other| other.name != own.name)).cloned());
        let target = Target::of(table);
        let before = hybrid_indexes(table);
        let name = target.free_name(&index.name);
        let (columns, options) = (columns.join(", "), with_options(&options));
        run(&format!("CREATE INDEX {name}ON {} USING hybrid ({columns}){options}", target.name), NodeTag::T_IndexStmt);
        let new = hybrid_indexes(table).into_iter().find(|oid| !before.contains(oid));
        new.unwrap_or_else(|| raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the new index is not there"))
    })
}

fn hybrid_indexes(table: Oid) -> Vec<Oid> {
    let sql = "SELECT i.indexrelid::oid::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
               JOIN pg_am m ON m.oid = c.relam WHERE i.indrelid = $1 AND m.amname = 'hybrid'";
    rows::<1>(sql, &[table.into()]).into_iter().filter_map(|[oid]| oid?.parse::<u32>().ok().map(Oid::from)).collect()
}
