//! A table and its indexes as the catalogs have them.

use super::left;
use crate::archive::sql::{qualified, rows, with_fixed_settings};
use crate::error::{Fault, raise};
use crate::pg::catalog::{Default, default_of, type_arguments};
use crate::pg::relation::OpenTable;
use crate::pg::rights::check_may_read;
use archive::table::{
    Column, Compression, Index, IndexColumn, Indexed, KeyColumn, Numbering, NumberingKind, ObjectName, Parameter,
    PlainIndex, Position, Storage, Table, TypeName, Unique, Width,
};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use std::str::FromStr;

/// Describes a table, which stays locked against changes of its definition until the end of the transaction.
///
/// # Errors
/// 42501 if the caller may not read every row; 42809 for what is no ordinary table; 0A000 for temporary tables, system
/// catalogs and tables of other access methods; 40001 if the table changed after the snapshot was taken.
pub fn describe(oid: Oid) -> Table {
    let opened = OpenTable::open(oid);
    with_fixed_settings(|| {
        let mut table = class(oid);
        check_may_read(oid);
        let mut not_carried = left::of(oid);
        table.columns = columns(oid, &mut not_carried);
        let there: Vec<String> = opened.columns().into_iter().map(|(_, name, _)| name).collect();
        let listed = rows::<1>(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum",
            &[oid.into()],
        );
        if !listed.iter().map(|[name]| name.as_deref()).eq(there.iter().map(|name| Some(name.as_str()))) {
            let message = format!("table \"{}\" was changed after the snapshot was taken", table.name);
            raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message);
        }
        let carried: Vec<&String> = table.columns.iter().map(|column| &column.name).collect();
        (table.constraints, table.plain_indexes, table.hybrid_indexes) = indexes(oid, &carried, &mut not_carried);
        not_carried.sort_unstable();
        not_carried.dedup();
        table.not_carried = not_carried;
        table
    })
}

/// Unwraps a column of a catalog query that is never NULL.
fn some(text: Option<String>) -> String {
    text.unwrap_or_default()
}

fn is(text: &Option<String>) -> bool {
    text.as_deref() == Some("true")
}

fn number<T: FromStr + std::default::Default>(text: &Option<String>) -> T {
    text.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Name, owner and options of the table, if it is one that can be backed up.
fn class(oid: Oid) -> Table {
    let found = rows::<9>(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, m.amname::text,
             r.rolname::text, obj_description(c.oid, 'pg_class'), (c.oid < 16384)::text,
             (SELECT json_agg(json_build_array(o.option_name, o.option_value) ORDER BY o.option_name)::text
              FROM pg_options_to_table(c.reloptions) o)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
             LEFT JOIN pg_am m ON m.oid = c.relam WHERE c.oid = $1",
        &[oid.into()],
    );
    let Some([schema, name, kind, persistence, method, owner, comment, system, options]) = found.into_iter().next()
    else {
        raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, "the table is newer than the snapshot")
    };
    let (schema, name) = (some(schema), some(name));
    check_kind(&name, kind.as_deref(), persistence.as_deref(), method.as_deref(), is(&system));
    Table {
        schema,
        name,
        unlogged: persistence.as_deref() == Some("u"),
        columns: Vec::new(),
        options: parameters(&options),
        constraints: Vec::new(),
        plain_indexes: Vec::new(),
        hybrid_indexes: Vec::new(),
        owner,
        comment,
        not_carried: Vec::new(),
    }
}

fn check_kind(name: &str, kind: Option<&str>, persistence: Option<&str>, method: Option<&str>, system: bool) {
    let what = match kind {
        Some("r") => None,
        Some("p") => Some("a partitioned table"),
        Some("v") => Some("a view"),
        Some("m") => Some("a materialized view"),
        Some("f") => Some("a foreign table"),
        _ => Some("not a table"),
    };
    if let Some(what) = what {
        let fault = Fault::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is {what}"))
            .detail("Only ordinary tables are backed up.");
        if kind == Some("p") { fault.hint("Back up its partitions one by one.").raise() } else { fault.raise() }
    }
    let reason = match (persistence, method) {
        _ if system => "a system catalog".to_owned(),
        (Some("t"), _) => "a temporary table".to_owned(),
        (_, Some("heap")) => return,
        (_, method) => format!("a table of access method \"{}\"", method.unwrap_or("none")),
    };
    let message = format!("\"{name}\" is {reason}, which cannot be backed up");
    raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
}

/// A JSON array of pairs, name and value, as options.
fn parameters(json: &Option<String>) -> Vec<Parameter> {
    let pairs: Vec<(String, Option<String>)> =
        json.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    // An option without a value is a truth.
    let given = |value: Option<String>| value.unwrap_or_else(|| "true".into());
    let mut all: Vec<_> = pairs.into_iter().map(|(name, value)| Parameter { name, value: given(value) }).collect();
    all.sort_unstable();
    all
}

/// What a type is called, where `t` is the type of a column, with or without being an array, and `e` that of its elements;
/// and the extension of an object.
const TYPES: &str = "JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type e ON e.oid = CASE WHEN t.typelem <> 0 AND t.typsubscript = 'array_subscript_handler'::regproc
        AND EXISTS (SELECT FROM pg_type x WHERE x.oid = t.typelem AND x.typarray = t.oid) THEN t.typelem ELSE t.oid END
    JOIN pg_namespace en ON en.oid = e.typnamespace
    LEFT JOIN pg_depend ed ON ed.classid = 'pg_type'::regclass AND ed.objid = e.oid AND ed.deptype = 'e'
    LEFT JOIN pg_extension ex ON ex.oid = ed.refobjid";
const TYPE_COLUMNS: &str = "en.nspname::text, e.typname::text, ex.extname::text, e.oid::text, t.typmodin::oid::text,
    t.typmodout::oid::text, a.atttypmod::text, (CASE WHEN t.oid <> e.oid THEN greatest(a.attndims, 1) ELSE 0 END)::text";

/// A type from the columns of `TYPE_COLUMNS`, and whether its arguments could be told.
fn type_name(
    [schema, name, extension, of, input, output, modifier, dimensions]: [Option<String>; 8],
) -> (TypeName, bool) {
    let oid = |text: &Option<String>| Oid::from(number::<u32>(text));
    let arguments = type_arguments(oid(&of), oid(&input), oid(&output), number(&modifier));
    let told = arguments.is_some();
    let arguments = arguments.unwrap_or_default();
    (TypeName { schema: some(schema), name: some(name), extension, arguments, dimensions: number(&dimensions) }, told)
}

/// The columns that are carried; what is not carried of them is added to the list.
fn columns(oid: Oid, not_carried: &mut Vec<String>) -> Vec<Column> {
    let sql = format!(
        "SELECT {TYPE_COLUMNS}, a.attname::text, a.attnum::text, a.attnotnull::text,
             cn.nspname::text, c.collname::text, cx.extname::text,
             CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END, a.attcompression::text,
             a.attgenerated::text, d.adbin::text, pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)
         FROM pg_attribute a {TYPES}
             LEFT JOIN pg_collation c ON c.oid = a.attcollation AND a.attcollation <> t.typcollation
             LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
             LEFT JOIN pg_depend cd ON cd.classid = 'pg_collation'::regclass AND cd.objid = c.oid AND cd.deptype = 'e'
             LEFT JOIN pg_extension cx ON cx.oid = cd.refobjid
             LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let columns = rows::<20>(&sql, &[oid.into()]);
    columns.into_iter().filter_map(|row| column(oid, row, not_carried)).collect()
}

fn column(table: Oid, row: [Option<String>; 20], not_carried: &mut Vec<String>) -> Option<Column> {
    let [t0, t1, t2, t3, t4, t5, t6, t7, name, number_, not_null, collation @ .., comment] = row;
    let [cs, cn, cx, storage, compression, generated, stored, expression] = collation;
    let name = some(name);
    let (of, told) = type_name([t0, t1, t2, t3, t4, t5, t6, t7]);
    let shown = expression.unwrap_or_default();
    if generated.as_deref() == Some("v") {
        not_carried.push(format!("column \"{name}\", which is computed when it is read: {shown}"));
        return None;
    }
    if !told {
        not_carried.push(format!("type modifier of column \"{name}\""));
    }
    if of.extension.is_none() && of.schema != "pg_catalog" {
        not_carried.push(format!("definition of type {of} of column \"{name}\": it must be there before a restore"));
    }
    let mut carried = Column {
        of,
        not_null: is(&not_null) && !left::has_unproven_not_null(table, number(&number_)),
        collation: cs.zip(cn).map(|(schema, name)| ObjectName { schema, name, extension: cx }),
        storage: storage.as_deref().and_then(storage_of),
        compression: match compression.as_deref() {
            Some("p") => Some(Compression::Pglz),
            Some("l") => Some(Compression::Lz4),
            _ => None,
        },
        numbering: None,
        default: None,
        comment,
        name,
    };
    let attribute = number(&number_);
    if generated.as_deref() == Some("s") {
        not_carried
            .push(format!("expression of generated column \"{}\", whose values are carried: {shown}", carried.name));
    } else {
        let default = stored.map_or(Default::Null, |stored| default_of(&stored));
        set_default(&mut carried, table, attribute, default, &shown, not_carried);
    }
    Some(carried)
}

fn storage_of(code: &str) -> Option<Storage> {
    match code {
        "p" => Some(Storage::Plain),
        "e" => Some(Storage::External),
        "x" => Some(Storage::Extended),
        "m" => Some(Storage::Main),
        _ => None,
    }
}

/// Carries a constant default or the sequence that numbers the rows, or says that it is not carried.
fn set_default(
    column: &mut Column,
    table: Oid,
    attribute: i16,
    default: Default,
    shown: &str,
    not_carried: &mut Vec<String>,
) {
    let name = &column.name;
    let mut drawn = None;
    match default {
        Default::Null => {}
        Default::Constant(text) => column.default = Some(text),
        Default::Next(sequence) => drawn = Some(sequence),
        Default::Other => not_carried.push(format!("default of column \"{name}\": {shown}")),
    }
    let mut found = drawn.is_none();
    for (sequence, kind, text, numbering) in sequences(table, attribute) {
        if kind != NumberingKind::Serial || drawn == Some(sequence) {
            if numbering.position.is_none() {
                not_carried.push(format!("position of sequence {text} of column \"{name}\", which you may not read"));
            }
            found = true;
            column.numbering = Some(numbering);
        } else {
            not_carried.push(format!("sequence {text}, which belongs to column \"{name}\""));
        }
    }
    if !found {
        not_carried.push(format!("default of column \"{name}\": {shown}"));
    }
}

/// The sequences that belong to a column: OID, whether identity, name for people, and numbers.
fn sequences(table: Oid, attribute: i16) -> Vec<(Oid, NumberingKind, String, Numbering)> {
    let found = rows::<13>(
        "SELECT s.seqrelid::oid::text, a.attidentity::text, n.nspname::text, c.relname::text,
             (SELECT typname FROM pg_type WHERE oid = s.seqtypid)::text,
             s.seqstart::text, s.seqincrement::text, s.seqmin::text, s.seqmax::text, s.seqcache::text, s.seqcycle::text,
             has_sequence_privilege(s.seqrelid, 'SELECT')::text, (a.atttypid IN (20, 21, 23))::text
         FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid JOIN pg_class c ON c.oid = d.objid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
             AND d.refobjsubid = $2 AND d.deptype IN ('a', 'i') ORDER BY s.seqrelid",
        &[table.into(), i32::from(attribute).into()],
    );
    let numbering = |[
        oid,
        identity,
        schema,
        name,
        width,
        start,
        increment,
        minimum,
        maximum,
        cache,
        cycle,
        may,
        number_,
    ]: [Option<String>; 13]| {
        let kind = match identity.as_deref() {
            Some("a") => NumberingKind::Always,
            Some("d") => NumberingKind::ByDefault,
            _ => NumberingKind::Serial,
        };
        let width = match width.as_deref() {
            Some("int2") => Width::Int2,
            Some("int4") => Width::Int4,
            _ => Width::Int8,
        };
        let text = qualified(&some(schema), &some(name));
        let numbering = Numbering {
            kind,
            width,
            start: number(&start),
            increment: number(&increment),
            minimum: number(&minimum),
            maximum: number(&maximum),
            cache: number(&cache),
            cycle: is(&cycle),
            position: is(&may).then(|| position(&text)).flatten(),
        };
        is(&number_).then(|| (Oid::from(number::<u32>(&oid)), kind, text, numbering))
    };
    found.into_iter().filter_map(numbering).collect()
}

/// Where a sequence stands now, which is not before any row that the snapshot sees.
fn position(sequence: &str) -> Option<Position> {
    let found = rows::<2>(&format!("SELECT last_value::text, is_called::text FROM {sequence}"), &[]);
    found.into_iter().next().map(|[last, called]| Position { last_value: number(&last), is_called: is(&called) })
}

type Indexes = (Vec<Unique>, Vec<PlainIndex>, Vec<Index>);

/// The indexes that can be carried: valid, on plain columns which are carried, without a condition.
fn indexes(table: Oid, carried: &[&String], not_carried: &mut Vec<String>) -> Indexes {
    let found = rows::<12>(
        "SELECT i.indexrelid::oid::text, c.relname::text, m.amname::text, con.contype::text, con.condeferrable::text,
             con.condeferred::text, i.indisunique::text, i.indnullsnotdistinct::text,
             (i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
              AND NOT EXISTS (SELECT FROM pg_attribute x, unnest(x.attoptions) o
                  WHERE x.attrelid = i.indexrelid AND NOT starts_with(o, 'pg_attver='))
              AND NOT EXISTS (SELECT FROM pg_constraint x WHERE x.oid = con.oid
                  AND to_jsonb(x) -> 'conperiod' = 'true'))::text,
             pg_get_indexdef(i.indexrelid),
             (SELECT json_agg(json_build_array(o.option_name, o.option_value) ORDER BY o.option_name)::text
              FROM pg_options_to_table(c.reloptions) o), i.indisvalid::text
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
             LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid
                 AND con.contype IN ('p', 'u', 'x')
         WHERE i.indrelid = $1 ORDER BY c.relname COLLATE \"C\"",
        &[table.into()],
    );
    let mut all = Indexes::default();
    for [oid, name, method, constraint, deferrable, deferred, unique, same_nulls, plain, definition, options, valid] in
        found
    {
        let (oid, name) = (Oid::from(number::<u32>(&oid)), some(name));
        let (columns, include) = index_columns(oid);
        let known = |column: &String| carried.contains(&column);
        let plain = is(&plain) && columns.iter().map(|c| &c.name).chain(&include).all(known);
        let (options, nulls_not_distinct) = (parameters(&options), is(&same_nulls));
        if !plain || constraint.as_deref() == Some("x") {
            let invalid = if is(&valid) { "" } else { " (not valid)" };
            not_carried.push(format!("index \"{name}\"{invalid}: {}", some(definition)));
        } else if method.as_deref() == Some("hybrid") {
            all.2.push(describe_index(oid));
        } else if let Some(kind) = constraint.as_deref() {
            let columns = columns.into_iter().map(|column| column.name).collect();
            all.0.push(Unique {
                name,
                primary: kind == "p",
                columns,
                include,
                nulls_not_distinct,
                deferrable: is(&deferrable),
                initially_deferred: is(&deferred),
                options,
            });
        } else {
            let (method, unique) = (some(method), is(&unique));
            all.1.push(PlainIndex { name, method, unique, nulls_not_distinct, columns, include, options });
        }
    }
    all
}

/// Key columns of an index, and the names of the others. Those that are expressions have no name.
fn index_columns(index: Oid) -> (Vec<IndexColumn>, Vec<String>) {
    let found = rows::<10>(
        "SELECT a.attname::text, on_.nspname::text, o.opcname::text, ox.extname::text, cn.nspname::text, c.collname::text,
             cx.extname::text, (k.option & 1 = 1)::text, (k.option & 2 = 2)::text, (k.ord <= i.indnkeyatts)::text
         FROM pg_index i, LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[], i.indoption::int2[])
                 WITH ORDINALITY k(attnum, class, coll, option, ord)
             LEFT JOIN pg_attribute a ON a.attrelid = (SELECT indrelid FROM pg_index WHERE indexrelid = $1)
                 AND a.attnum = k.attnum
             LEFT JOIN pg_opclass o ON o.oid = k.class LEFT JOIN pg_namespace on_ ON on_.oid = o.opcnamespace
             LEFT JOIN pg_depend od ON od.classid = 'pg_opclass'::regclass AND od.objid = o.oid AND od.deptype = 'e'
             LEFT JOIN pg_extension ox ON ox.oid = od.refobjid
             LEFT JOIN pg_collation c ON c.oid = k.coll AND k.coll <> a.attcollation
             LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
             LEFT JOIN pg_depend cd ON cd.classid = 'pg_collation'::regclass AND cd.objid = c.oid AND cd.deptype = 'e'
             LEFT JOIN pg_extension cx ON cx.oid = cd.refobjid
         WHERE i.indexrelid = $1 ORDER BY k.ord",
        &[index.into()],
    );
    let (mut columns, mut include) = (Vec::new(), Vec::new());
    for [name, os, on, ox, cs, cn, cx, descending, nulls_first, key] in found {
        let name = some(name);
        if !is(&key) {
            include.push(name);
            continue;
        }
        columns.push(IndexColumn {
            name,
            opclass: ObjectName { schema: some(os), name: some(on), extension: ox },
            collation: cs.zip(cn).map(|(schema, name)| ObjectName { schema, name, extension: cx }),
            descending: is(&descending),
            nulls_first: is(&nulls_first),
        });
    }
    (columns, include)
}

/// Describes a hybrid index. The caller has opened it, and checked that it is one.
pub fn describe_index(oid: Oid) -> Index {
    with_fixed_settings(|| {
        let found = rows::<5>(
            "SELECT c.relname::text, n.nspname::text, t.relname::text, pg_get_expr(i.indpred, i.indrelid),
                 (SELECT json_agg(json_build_array(o.option_name, o.option_value) ORDER BY o.option_name)::text
                  FROM pg_options_to_table(c.reloptions) o WHERE o.option_name <> 'source')
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
                 JOIN pg_namespace n ON n.oid = t.relnamespace WHERE i.indexrelid = $1",
            &[oid.into()],
        );
        let Some([name, schema, table, predicate, options]) = found.into_iter().next() else {
            raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, "the index is newer than the snapshot")
        };
        let mut columns = hybrid_columns(oid).into_iter();
        let Some(KeyColumn { key: vector, of: vector_type, opclass }) = columns.next() else {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "an index without columns")
        };
        Index {
            name: some(name),
            table_schema: some(schema),
            table: some(table),
            method: "hybrid".into(),
            vector,
            vector_type,
            opclass,
            keys: columns.collect(),
            predicate,
            options: parameters(&options),
        }
    })
}

/// The columns of a hybrid index with their declared types, the vector first.
fn hybrid_columns(index: Oid) -> Vec<KeyColumn> {
    let sql = format!(
        "SELECT {TYPE_COLUMNS}, b.attname::text, pg_get_indexdef(a.attrelid, a.attnum, false)
         FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid {TYPES}
             LEFT JOIN pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = i.indkey[a.attnum - 1] AND b.attnum > 0
         WHERE i.indexrelid = $1 ORDER BY a.attnum"
    );
    let (classes, _) = index_columns(index);
    let columns = rows::<10>(&sql, &[index.into()]).into_iter().zip(classes);
    let column = |([t0, t1, t2, t3, t4, t5, t6, t7, name, shown], class): ([Option<String>; 10], IndexColumn)| {
        let key = name.map_or_else(|| Indexed::Expression(some(shown)), Indexed::Column);
        KeyColumn { key, of: type_name([t0, t1, t2, t3, t4, t5, t6, t7]).0, opclass: class.opclass }
    };
    columns.map(column).collect()
}
