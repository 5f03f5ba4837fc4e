//! The objects that a description names, found in this database.

use crate::archive::sql::{optional, rows, text};
use crate::error::{Fault, raise};
use crate::pg::rights::is_trusted;
use archive::table::{Index, IndexColumn, ObjectName, Table, TypeName};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;

/// What is missing, in words, each once.
#[derive(Default)]
struct Search {
    missing: Vec<String>,
    types: Vec<Oid>,
}

/// The same description with the schemas that this database has the objects of extensions in.
///
/// # Errors
/// XX001 for a description that cannot be one; 42704 with everything that is missing; 42501 for a type whose checks would
/// run somebody else's code.
pub fn resolve(table: &Table) -> Table {
    check(table.check());
    let mut resolved = table.clone();
    let mut search = Search::default();
    for column in &mut resolved.columns {
        search.of_type(&mut column.of);
        if let Some(collation) = &mut column.collation {
            search.object(COLLATION, collation, None);
        }
    }
    for index in &mut resolved.plain_indexes {
        search.method(&index.method);
        for IndexColumn { opclass, collation, .. } in &mut index.columns {
            search.object(OPERATOR_CLASS, opclass, Some(&index.method));
            if let Some(collation) = collation {
                search.object(COLLATION, collation, None);
            }
        }
    }
    resolved.hybrid_indexes.iter_mut().for_each(|index| search.hybrid(index));
    search.finish();
    resolved
}

/// As [`resolve`], for one hybrid index.
pub fn resolve_index(index: &Index) -> Index {
    check(index.check());
    let mut resolved = index.clone();
    let mut search = Search::default();
    search.hybrid(&mut resolved);
    search.finish();
    resolved
}

/// Unwraps, or raises what is wrong with a description.
pub fn check(result: Result<(), archive::table::Invalid>) {
    if let Err(error) = result {
        Fault::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "the description of a table in the archive is not sound")
            .detail(format!("It says that {error}."))
            .raise();
    }
}

/// A kind of object: its name for people, and the query that finds one by schema, name, extension and access method.
type Kind = (&'static str, &'static str);

const TYPE: Kind = (
    "type",
    "SELECT n.nspname::text, t.oid::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
         LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE t.typname = $2 AND t.typisdefined AND (n.nspname = $1 OR e.extname = $3) AND $4::text IS NULL
     ORDER BY n.nspname = $1 DESC LIMIT 1",
);
const COLLATION: Kind = (
    "collation",
    "SELECT n.nspname::text, c.oid::text FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
         LEFT JOIN pg_depend d ON d.classid = 'pg_collation'::regclass AND d.objid = c.oid AND d.deptype = 'e'
         LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE c.collname = $2 AND (n.nspname = $1 OR e.extname = $3) AND $4::text IS NULL
         AND c.collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
     ORDER BY n.nspname = $1 DESC LIMIT 1",
);
const OPERATOR_CLASS: Kind = (
    "operator class",
    "SELECT n.nspname::text, c.oid::text FROM pg_opclass c JOIN pg_namespace n ON n.oid = c.opcnamespace
         JOIN pg_am m ON m.oid = c.opcmethod
         LEFT JOIN pg_depend d ON d.classid = 'pg_opclass'::regclass AND d.objid = c.oid AND d.deptype = 'e'
         LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE c.opcname = $2 AND (n.nspname = $1 OR e.extname = $3) AND m.amname = $4
     ORDER BY n.nspname = $1 DESC LIMIT 1",
);

impl Search {
    /// Finds an object and sets the schema that it is in.
    fn find(
        &mut self,
        kind: Kind,
        schema: &mut String,
        name: &str,
        extension: Option<&str>,
        method: Option<&str>,
    ) -> Option<Oid> {
        let arguments = [text(schema), text(name), optional(extension), optional(method)];
        if let Some([Some(found), Some(oid)]) = rows::<2>(kind.1, &arguments).into_iter().next() {
            *schema = found;
            return oid.parse::<u32>().ok().map(Oid::from);
        }
        let from = extension.map_or(String::new(), |extension| format!(" of extension \"{extension}\""));
        self.miss(format!("{} \"{schema}.{name}\"{from}", kind.0));
        None
    }

    fn miss(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    fn of_type(&mut self, of: &mut TypeName) {
        let found = self.find(TYPE, &mut of.schema, &of.name, of.extension.as_deref(), None);
        self.types.extend(found);
    }

    fn object(&mut self, kind: Kind, object: &mut ObjectName, method: Option<&str>) {
        self.find(kind, &mut object.schema, &object.name, object.extension.as_deref(), method);
    }

    fn method(&mut self, method: &str) {
        if rows::<1>("SELECT 'x' FROM pg_am WHERE amname = $1 AND amtype = 'i'", &[text(method)]).is_empty() {
            self.miss(format!("access method \"{method}\""));
        }
    }

    fn hybrid(&mut self, index: &mut Index) {
        self.method(&index.method);
        self.object(OPERATOR_CLASS, &mut index.opclass, Some("hybrid"));
        for key in &mut index.keys {
            self.object(OPERATOR_CLASS, &mut key.opclass, Some("hybrid"));
        }
    }

    /// Raises everything that is missing at once.
    fn finish(self) {
        if !self.missing.is_empty() {
            Fault::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("this database does not have what the table needs: {}", self.missing.join(", ")),
            )
            .hint("Create the extensions, types and collations that it needs, and restore again.")
            .raise();
        }
        self.check_trust();
    }

    /// Values of a domain are checked by its owner's code, and ranges are made canonical by it. Whoever wrote the
    /// description chose the type, so the code must be of somebody who could run any code as this user anyway.
    fn check_trust(&self) {
        let oids: Vec<Oid> = self.types.clone();
        let found = rows::<2>(
            "WITH RECURSIVE used(oid) AS (
                 SELECT unnest($1::oid[])
                 UNION
                 SELECT part.oid FROM used JOIN pg_type t ON t.oid = used.oid, LATERAL (
                     VALUES (t.typelem), (t.typbasetype)
                     UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
                     UNION ALL SELECT rngtypid FROM pg_range WHERE rngmultitypid = t.oid
                     UNION ALL SELECT atttypid FROM pg_attribute
                         WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) part(oid)
                 WHERE part.oid <> 0)
             SELECT t.oid::regtype::text, t.typowner::oid::text FROM used JOIN pg_type t ON t.oid = used.oid
             WHERE t.typtype = 'd' AND EXISTS (SELECT FROM pg_constraint WHERE contypid = t.oid AND contype = 'c')
                 OR EXISTS (SELECT FROM pg_range WHERE rngtypid = t.oid AND
                     (rngcanonical >= 16384 OR rngsubdiff >= 16384))
             ORDER BY 1",
            &[oids.into()],
        );
        for [name, owner] in found {
            let owner = owner.and_then(|owner| owner.parse::<u32>().ok()).unwrap_or_default();
            if !is_trusted(Oid::from(owner)) {
                let message = format!("type {} would run code of its owner", name.unwrap_or_default());
                Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
                    .detail(
                        "Types with checks must belong to you, to a role that you are a member of, or to a superuser.",
                    )
                    .hint("Restore as the owner of the type, after SET ROLE.")
                    .raise();
            }
        }
    }
}

/// OID of a schema to create in.
///
/// # Errors
/// 3F000 if there is no such schema; 0A000 for schemas of the system.
pub fn schema(name: &str) -> Oid {
    if name.starts_with("pg_") || name == "information_schema" {
        let message = format!("cannot restore into schema \"{name}\"");
        raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
    }
    let found = rows::<1>("SELECT oid::text FROM pg_namespace WHERE nspname = $1", &[text(name)]);
    let Some([Some(oid)]) = found.into_iter().next() else {
        Fault::new(PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
            .hint("Create it, or name another as target_schema.")
            .raise()
    };
    Oid::from(oid.parse::<u32>().unwrap_or_default())
}

/// Whether a schema has a relation or a type of that name.
pub fn is_taken(schema: Oid, name: &str) -> bool {
    let sql = "SELECT 'x' FROM pg_class WHERE relnamespace = $1 AND relname = $2
               UNION ALL SELECT 'x' FROM pg_type WHERE typnamespace = $1 AND typname = $2 AND typelem = 0";
    !rows::<1>(sql, &[schema.into(), text(name)]).is_empty()
}
