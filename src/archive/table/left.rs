//! What a table has and its description has not, in words that let a person do it again.

use crate::archive::sql::rows;
use pgrx::pg_sys::Oid;

/// Lines about everything that hangs on the table, but for its columns' types and defaults and its indexes.
pub fn of(table: Oid) -> Vec<String> {
    [CONSTRAINTS, CODE, RELATIVES, RIGHTS, DETAILS]
        .into_iter()
        .flat_map(|sql| rows::<1>(sql, &[table.into()]))
        .filter_map(|[line]| line)
        .collect()
}

/// Checks and foreign keys, from and to the table; other constraints with an index are told with the indexes.
const CONSTRAINTS: &str = "
    SELECT CASE contype WHEN 'c' THEN 'check constraint' WHEN 'f' THEN 'foreign key' WHEN 't' THEN 'constraint trigger'
               WHEN 'n' THEN 'not-null constraint that is not valid' ELSE 'constraint' END
           || format(' \"%s\": %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = $1
        AND (contype NOT IN ('p', 'u', 'x', 'n', 't') OR contype = 'n' AND NOT convalidated)
    UNION ALL
    SELECT format('foreign key \"%s\" of table %s to this table: %s', conname, conrelid::regclass,
        pg_get_constraintdef(oid))
    FROM pg_constraint WHERE confrelid = $1 AND conrelid <> $1 AND contype = 'f'";

/// Triggers, rules, policies, extended statistics.
const CODE: &str = "
    SELECT format('trigger \"%s\": %s', tgname, pg_get_triggerdef(oid)) FROM pg_trigger
    WHERE tgrelid = $1 AND NOT tgisinternal
    UNION ALL
    SELECT format('rule \"%s\": %s', rulename, pg_get_ruledef(oid)) FROM pg_rewrite WHERE ev_class = $1
    UNION ALL
    SELECT format('policy \"%s\"', polname) FROM pg_policy WHERE polrelid = $1
    UNION ALL
    SELECT 'row security is enabled' FROM pg_class WHERE oid = $1 AND relrowsecurity
    UNION ALL
    SELECT 'row security is forced' FROM pg_class WHERE oid = $1 AND relforcerowsecurity
    UNION ALL
    SELECT format('statistics object \"%s\": %s', stxname, pg_get_statisticsobjdef(oid)) FROM pg_statistic_ext
    WHERE stxrelid = $1";

/// Partitions, inheritance, publications.
const RELATIVES: &str = "
    SELECT format(CASE WHEN relispartition THEN 'being a partition of %s: %s' ELSE 'inheriting from %s%s' END,
                  inhparent::regclass, pg_get_expr(relpartbound, oid))
    FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhrelid = $1
    UNION ALL
    SELECT format('rows of table %s, which inherits from this table', inhrelid::regclass)
    FROM pg_inherits WHERE inhparent = $1
    UNION ALL
    SELECT format('being a table of type %s', reloftype::regtype) FROM pg_class WHERE oid = $1 AND reloftype <> 0
    UNION ALL
    SELECT format('publication \"%s\"', pubname) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE prrelid = $1
    UNION ALL
    SELECT format('membership of extension \"%s\"', extname) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = $1 AND d.deptype = 'e'";

/// Privileges and security labels.
const RIGHTS: &str = "
    SELECT format('privileges: %s', relacl) FROM pg_class WHERE oid = $1 AND relacl IS NOT NULL
    UNION ALL
    SELECT format('privileges of column \"%s\": %s', attname, attacl) FROM pg_attribute
    WHERE attrelid = $1 AND attacl IS NOT NULL AND NOT attisdropped
    UNION ALL
    SELECT format('security label of %s: %s', provider, label) FROM pg_seclabel
    WHERE classoid = 'pg_class'::regclass AND objoid = $1";

/// Where and how the table is kept, what is said of its parts.
///
/// `pg_attver` is no option of anybody's: minor releases from 15.20 on keep a column's version there (pg_attribute.h,
/// `ATTRIBUTE_VERSION_ATTOPTION`). It is another number in every table, so it would make no two descriptions equal.
const DETAILS: &str = "
    SELECT format('tablespace \"%s\"', s.spcname) FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace
    WHERE c.oid = $1
    UNION ALL
    SELECT format('replica identity %s', CASE relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing'
        ELSE 'using an index' END)
    FROM pg_class WHERE oid = $1 AND relreplident <> 'd'
    UNION ALL
    SELECT format('storage parameters of the TOAST table: %s', t.reloptions) FROM pg_class c
    JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = $1 AND t.reloptions IS NOT NULL
    UNION ALL
    SELECT format('clustering on index %s', indexrelid::regclass) FROM pg_index WHERE indrelid = $1 AND indisclustered
    UNION ALL
    SELECT format('options of column \"%s\": %s', attname, string_agg(o, ', ' ORDER BY o))
    FROM pg_attribute, unnest(attoptions) o
    WHERE attrelid = $1 AND NOT attisdropped AND NOT starts_with(o, 'pg_attver=') GROUP BY attname
    UNION ALL
    SELECT format('statistics target of column \"%s\": %s', attname, attstattarget) FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND attstattarget >= 0 AND NOT attisdropped
    UNION ALL
    SELECT format('comment on constraint \"%s\": %s', conname, description) FROM pg_constraint c
    JOIN pg_description d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = c.oid WHERE conrelid = $1
    UNION ALL
    SELECT format('comment on index %s: %s', indexrelid::regclass, description) FROM pg_index i
    JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = i.indexrelid WHERE indrelid = $1";

/// Whether a column is declared NOT NULL and may hold NULL all the same, as the constraint was never checked (from 18 on).
pub fn has_unproven_not_null(table: Oid, attribute: i16) -> bool {
    let sql = "SELECT 'x' FROM pg_constraint
               WHERE conrelid = $1 AND contype = 'n' AND NOT convalidated AND conkey = ARRAY[$2::int2]";
    !rows::<1>(sql, &[table.into(), i32::from(attribute).into()]).is_empty()
}
