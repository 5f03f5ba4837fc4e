//! Tables that are described, made again, and filled again.

#[pgrx::pg_schema]
pub mod tests {
    use crate::archive::rows::{Chunk, load_rows, read_rows};
    use crate::archive::table::{create, create_hybrid_index, create_indexes, describe, set_positions};
    use crate::pg::snapshot::Snapshot;
    use archive::table::{Index, NumberingKind, Parameter, Table};
    use pgrx::prelude::*;

    // --- what SQL calls to have errors caught ---

    #[pg_extern]
    fn described(table: pg_sys::Oid) -> String {
        serde_json::to_string(&describe(table)).expect("a description is JSON")
    }

    #[pg_extern]
    fn created(description: &str, schema: &str, name: &str) -> i64 {
        let table: Table = serde_json::from_str(description).expect("a description");
        let oid = create(&table, schema, name);
        create_indexes(&table, oid, &mut |index| {
            create_hybrid_index(index, oid, &[]);
        });
        i64::from(oid.to_u32())
    }

    #[pg_extern]
    fn rows_read(table: pg_sys::Oid, columns: Vec<String>) -> String {
        text(&read(table, &columns))
    }

    #[pg_extern]
    fn rows_loaded(table: pg_sys::Oid, columns: Vec<String>, rows: &[u8]) -> i64 {
        load_rows(table, &columns, &mut once(rows)) as i64
    }

    // --- helpers ---

    pub fn value<T: FromDatum + IntoDatum>(sql: &str) -> T {
        Spi::get_one::<T>(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).unwrap_or_else(|| panic!("{sql}: no value"))
    }

    pub fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub fn oid(table: &str) -> pg_sys::Oid {
        value(&format!("SELECT '{table}'::regclass::oid"))
    }

    pub fn names(table: &Table) -> Vec<String> {
        table.columns.iter().map(|column| column.name.clone()).collect()
    }

    pub fn read(table: pg_sys::Oid, columns: &[String]) -> Vec<Chunk> {
        let snapshot = Snapshot::latest();
        let mut chunks = Vec::new();
        let rows = read_rows(table, columns, &snapshot, &mut |chunk| chunks.push(chunk));
        assert_eq!(rows, chunks.iter().map(|chunk| chunk.rows).sum::<u64>());
        chunks
    }

    pub fn text(chunks: &[Chunk]) -> String {
        String::from_utf8(chunks.iter().flat_map(|chunk| &chunk.bytes).copied().collect()).expect("UTF-8")
    }

    pub fn once(bytes: &[u8]) -> impl FnMut() -> Option<Vec<u8>> + use<> {
        let mut bytes = Some(bytes.to_vec());
        move || bytes.take()
    }

    /// Runs a statement as a subtransaction; what it raised, or "ok".
    pub fn attempt(sql: &str) -> String {
        run("CREATE OR REPLACE FUNCTION attempt(sql text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$");
        Spi::get_one_with_args::<String>("SELECT attempt($1)", &[sql.into()]).expect("runs").expect("a text")
    }

    pub fn attempt_create(table: &Table, schema: &str, name: &str) -> String {
        let json = serde_json::to_string(table).expect("JSON");
        let [json, schema, name] = [&json, schema, name].map(pgrx::spi::quote_literal::<&str>);
        attempt(&format!("SELECT tests.created({json}, {schema}, {name})"))
    }

    /// Restores `t` as `copy`, rows and indexes, and compares: rows, their text, the description. Returns the
    /// description.
    pub fn round_trip() -> Table {
        let source = oid("t");
        let table = describe(source);
        assert_eq!(describe(source), table, "the same twice");
        table.check().expect("sound");
        let columns = names(&table);
        let chunks = read(source, &columns);
        let copy = create(&table, &table.schema, "copy");
        let mut queue = chunks.clone().into_iter().map(|chunk| chunk.bytes);
        let loaded = load_rows(copy, &columns, &mut || queue.next());
        assert_eq!(loaded, value::<i64>("SELECT count(*) FROM t") as u64);
        create_indexes(&table, copy, &mut |index| {
            create_hybrid_index(index, copy, &[]);
        });
        set_positions(&table, copy);
        if !columns.is_empty() {
            let list = columns.iter().map(pgrx::spi::quote_identifier).collect::<Vec<_>>().join(", ");
            let rows = |table: &str| format!("SELECT ROW({list})::text FROM {table}");
            let (t, copy) = (rows("t"), rows("copy"));
            let different =
                format!("SELECT count(*) FROM (({t} EXCEPT ALL {copy}) UNION ALL ({copy} EXCEPT ALL {t})) x");
            assert_eq!(value::<i64>(&different), 0);
        }
        assert_eq!(text(&read(copy, &columns)), text(&chunks), "the copy reads as the original does");
        table
    }

    /// The description of `copy` with the names that `t` has.
    pub fn described_copy() -> Table {
        let mut copy = describe(oid("copy"));
        copy.name = "t".into();
        copy.hybrid_indexes.iter_mut().for_each(|index| index.table = "t".into());
        copy
    }

    // --- types ---

    #[pg_test]
    fn every_kind_of_column_comes_back() {
        run(r#"CREATE SCHEMA "a b"; CREATE TYPE "a b"."mo""od" AS ENUM ('fine', 'so, so', 'b"ad');
            CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int CHECK (VALUE < 1000);
            CREATE TYPE floats AS RANGE (subtype = float8);
            CREATE TABLE t (i2 smallint, i4 int NOT NULL, i8 bigint, n numeric, n2 numeric(10,2), n3 numeric(4,-2),
                f4 real,
                f8 double precision, m money, c "char", c5 char(5), v varchar(7), s text, na name, b bytea, bo bool,
                d date, ti time(3), tz timetz(2), ts timestamp(1), tstz timestamptz, iv interval,
                    ivd interval day to second(3),
                ivy interval year, u uuid, j json, jb jsonb, jp jsonpath, x xml, bi bit(3), vb varbit(9), inet_ inet,
                    ci cidr, ma macaddr,
                ma8 macaddr8, p point, l line, ls lseg, bx box, pa path, po polygon, ci_ circle, tsv tsvector,
                    tsq tsquery,
                ls_ pg_lsn, xid8_ xid8, o oid, rc regclass, rt regtype, i4r int4range, nr nummultirange, tsr tstzrange,
                ia int[], ta text[][], na2 numeric(5,1)[], e "a b"."mo""od", ea "a b"."mo""od"[], co pair, coa pair[],
                    dom small, doma small[],
                fr floats, ve vector(3), vea vector[], iva int2vector, "weird ""name" text)"#);
        run(r#"INSERT INTO t VALUES (-32768, 1, 9223372036854775807, 'NaN', 12345678.91, 123456, 'Infinity',
                '-Infinity',
            12.34, 'x', 'ab', 'a b', E'tab\t nl\n cr\r bs\\ b\b f\f v\v end \\. \\N é 漢 🐘 ', 'name', '\x00ff5c0a', true,
            '0044-03-15 BC', '23:59:59.123', '10:00:00.12+05:30', 'infinity', '2020-01-01 00:00:00.123456-08',
                '-1 year -2 days -03:04:05.6',
            '1 02:03:04.5678', '5 years', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" :  1, "a":2}',
                '{"b":[1,null,"\t"]}', '$.a[*] ? (@ > 1)',
            '<a b="c">d</a>', B'101', B'10', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
            '(1.1,2e-300)', '{1,2,3}', '[(1,2),(3,4)]', '((1,2),(3,4))', '[(1,1),(2,2)]', '((1,1),(2,2),(3,1))',
                '<(1,2),3>',
            'a:1A b:2', 'a & !b', '16/B374D848', '18446744073709551615', 4294967295, 'pg_class', 'int4', '[1,5)',
                '{[1,2),[3,)}', '[2020-01-01,infinity)',
            '{1,NULL,3}', '{{a,"b,\"\\"},{NULL,"NULL"}}', '{1.1,NaN}', 'b"ad', '{fine,"so, so"}', '(1,"x,\"")',
                ARRAY['(2,)','(,"")']::pair[], 7, '{1,2}',
            '[0.1,0.30000000000000004)', '[1,2.5,-1e-30]', '{"[1,2]","[3]"}', '1 2 3', '"quo''ted"\N');
            INSERT INTO t (i4) SELECT g FROM generate_series(2, 5) g;
            INSERT INTO t (i4, s, f8, f4, d, tstz, iv, ia) VALUES
                (6, '', 0.1, 1e-45, 'infinity', '-infinity', '0', '[2:3]={4,5}'), (7, '\.', '-0', 'NaN',
                    '4713-01-01 BC', 'infinity', '178000000 years', '{}'),
                (8, '\N', 1.7976931348623157e308, 3.4028235e38, '5874897-12-31', '294276-12-31 23:59:59.999999',
                    '-178000000 years', '{{1},{2}}')"#);
        let table = round_trip();
        let columns = "SELECT count(*) FROM pg_attribute WHERE attnum > 0 AND attrelid = 't'::regclass";
        assert_eq!(table.columns.len() as i64, value::<i64>(columns));
        let mut copy = described_copy();
        assert!(table.not_carried.iter().any(|line| line.contains("definition of type") && line.contains("mo\"od")));
        copy.not_carried.clone_from(&table.not_carried);
        assert_eq!(copy, table);
        let declared = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ',' ORDER BY attnum)
                        FROM pg_attribute WHERE attnum > 0 AND attrelid = ";
        assert_eq!(
            value::<String>(&format!("{declared}'copy'::regclass")),
            value::<String>(&format!("{declared}'t'::regclass"))
        );
    }

    #[pg_test]
    fn settings_of_the_session_change_nothing() {
        run("CREATE TABLE t (d date, ts timestamptz, i interval, f float8, b bytea, a text[], m money, r regclass);
             INSERT INTO t VALUES ('2020-02-01', now(), '-1 day -02:03', 0.1::float8 + 0.2, '\\x5c00', '{NULL,x}',
                 1.5, 't')");
        let columns = names(&describe(oid("t")));
        let before = text(&read(oid("t"), &columns));
        run("SET LOCAL DateStyle = 'German, DMY'; SET LOCAL IntervalStyle = 'sql_standard';
            SET LOCAL extra_float_digits = -5;
             SET LOCAL bytea_output = 'escape'; SET LOCAL array_nulls = off; SET LOCAL TimeZone = 'Asia/Kolkata';
                 SET LOCAL client_encoding = 'LATIN1'");
        assert_eq!(text(&read(oid("t"), &columns)), before);
        round_trip();
        assert_eq!(value::<String>("SHOW DateStyle"), "German, DMY");
    }

    #[pg_test]
    fn a_table_without_columns_has_rows() {
        run("CREATE TABLE t (); INSERT INTO t SELECT FROM generate_series(1, 3)");
        round_trip();
        assert_eq!(text(&read(oid("t"), &[])), "\n\n\n");
    }

    #[pg_test]
    fn dropped_columns_are_left_out() {
        run("CREATE TABLE t (a int, b text, c int, d text); INSERT INTO t VALUES (1, 'b', 3, 'd');
             ALTER TABLE t DROP b; ALTER TABLE t ADD e int DEFAULT 7; INSERT INTO t VALUES (2, 4, 'x', 8)");
        let table = round_trip();
        assert_eq!(names(&table), ["a", "c", "d", "e"]);
        assert_eq!(text(&read(oid("t"), &names(&table))), "1\t3\td\t7\n2\t4\tx\t8\n");
        run("ALTER TABLE copy DROP a, DROP c, DROP d, DROP e; DROP TABLE t; ALTER TABLE copy RENAME TO t");
        assert!(round_trip().columns.is_empty());
    }

    // --- definitions ---

    #[pg_test]
    fn definitions_come_back() {
        run(r#"CREATE UNLOGGED TABLE t (
                id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5 MAXVALUE 1000 CACHE 3 CYCLE) PRIMARY KEY,
                bd int GENERATED BY DEFAULT AS IDENTITY, se serial, bs bigserial, ss smallserial, nn text NOT NULL,
                    co text COLLATE "C",
                di int DEFAULT 42, dn numeric(10,3) DEFAULT -1.5, dt text DEFAULT E'it''s \\ a "default"',
                    dv varchar(20) DEFAULT 'v',
                db bool DEFAULT true, df float8 DEFAULT 0.5, dj jsonb DEFAULT '{}', da int[] DEFAULT '{1,2}',
                    ds smallint DEFAULT 3,
                dtz timestamptz DEFAULT '2020-01-01 00:00:00+00', div interval DEFAULT '1 day', dnull int DEFAULT NULL,
                ex text STORAGE_IS, v vector(3), at timestamptz, UNIQUE (di, dt),
                    CONSTRAINT later UNIQUE (ds) INCLUDE (db) DEFERRABLE INITIALLY DEFERRED,
                CONSTRAINT same UNIQUE NULLS NOT DISTINCT (dv)) WITH (fillfactor = 70, autovacuum_enabled = off);
            ALTER TABLE t ALTER ex SET STORAGE external, ALTER dt SET COMPRESSION pglz;
            ALTER SEQUENCE t_bs_seq START 100 MINVALUE -5 RESTART 77;
            CREATE INDEX ON t (nn COLLATE "C" text_pattern_ops DESC,
                di NULLS FIRST) INCLUDE (dt) WITH (fillfactor = 50);
            CREATE UNIQUE INDEX u ON t (dn DESC NULLS LAST) NULLS NOT DISTINCT; CREATE INDEX ON t USING hash (nn);
            CREATE INDEX ON t USING gin (dj jsonb_path_ops); CREATE INDEX ON t USING brin (at);
            CREATE INDEX h ON t USING hybrid (v vector_cosine_ops, at, id) WITH (m = 8, recent_threshold = '3 days');
            COMMENT ON TABLE t IS 'it''s'; COMMENT ON COLUMN t.nn IS E'\\ "';
            INSERT INTO t (nn, v, ds, dv, dn, di) SELECT g::text, ARRAY[g, 1, 1]::real[]::vector, g, g, g,
                g FROM generate_series(1, 7) g"#
            .replace("STORAGE_IS", "")
            .as_str());
        let table = round_trip();
        assert_eq!(table.not_carried, Vec::<String>::new());
        let mut copy = described_copy();
        // Names that were taken are chosen by PostgreSQL.
        for (a, b) in copy.constraints.iter_mut().zip(&table.constraints) {
            a.name.clone_from(&b.name);
        }
        let sort = |indexes: &mut Vec<archive::table::PlainIndex>| {
            indexes.iter_mut().for_each(|index| index.name.clear());
            indexes.sort_by_key(|index| format!("{index:?}"));
        };
        let mut table = table;
        sort(&mut copy.plain_indexes);
        sort(&mut table.plain_indexes);
        copy.hybrid_indexes[0].name = "h".into();
        copy.constraints.sort_by_key(|unique| format!("{:?}", unique.columns));
        table.constraints.sort_by_key(|unique| format!("{:?}", unique.columns));
        copy.constraints.iter_mut().chain(&mut table.constraints).for_each(|unique| unique.name.clear());
        assert_eq!(copy, table);
        assert_eq!(table.plain_indexes.len(), 5);
        assert_eq!(table.columns[3].numbering.as_ref().map(|n| n.kind), Some(NumberingKind::Serial));
        // Both give the same numbers and defaults from here on, but for those of a sequence with a cache: what a
        // session
        // has fetched and not used is skipped.
        run("INSERT INTO t (nn, ds, dv, dn, di) VALUES ('n', 100, 'w', 9, 50); INSERT INTO copy (nn, ds, dv, dn,
                di) VALUES ('n', 100, 'w', 9, 50)");
        assert_eq!(
            value::<i64>(
                "SELECT count(*) FROM (SELECT to_jsonb(t) - 'id' FROM t EXCEPT ALL SELECT to_jsonb(c) - 'id' FROM copy
                    c) x"
            ),
            0
        );
        assert_eq!(value::<i64>("SELECT count(*) FROM hybrid_check('copy_v_at_id_idx', true)"), 0);
        assert_eq!(value::<i64>("SELECT max(bs) FROM copy"), 84);
        assert_eq!(value::<String>("SELECT max(t.id) || ' ' || max(c.id) FROM t, copy c"), "45 55");
    }

    #[pg_test]
    fn names_are_kept_where_they_are_free() {
        run("CREATE SCHEMA other; CREATE TABLE t (id int CONSTRAINT pk PRIMARY KEY, v vector(2));
            CREATE INDEX plain ON t (id);
             CREATE INDEX hyb ON t USING hybrid (v)");
        let table = describe(oid("t"));
        let copy = create(&table, "other", "t");
        let mut seen: Vec<Index> = Vec::new();
        create_indexes(&table, copy, &mut |index| {
            let more = [Parameter { name: "m".into(), value: "7".into() }];
            let made = create_hybrid_index(index, copy, &more);
            assert_eq!(made, oid("other.hyb"));
            seen.push(index.clone());
        });
        assert_eq!(seen, table.hybrid_indexes);
        let names = value::<String>(
            "SELECT string_agg(relname || coalesce(reloptions::text, ''), ' ' ORDER BY relname) FROM pg_class
             WHERE relnamespace = 'other'::regnamespace AND relkind = 'i'",
        );
        assert_eq!(names, "hyb{m=7} pk plain");
    }

    #[pg_test]
    fn what_is_not_carried_is_named() {
        run("CREATE TABLE parent (id int PRIMARY KEY); CREATE TYPE mood AS ENUM ('x');
             CREATE TABLE t (id int PRIMARY KEY REFERENCES parent, n int CHECK (n > 0),
                 g int GENERATED ALWAYS AS (n * 2) STORED,
                 d timestamptz DEFAULT now(), e text DEFAULT 'a' || 'b', s int DEFAULT 1 + 1, m mood,
                     EXCLUDE USING gist (int4range(n, n) WITH &&),
                 w text DEFAULT 'abcdef'::varchar(3), v vector(2), u vector, ts_ tsvector);
             CREATE TABLE child () INHERITS (t); CREATE TABLE away (t int REFERENCES t);
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
             CREATE RULE r AS ON UPDATE TO t DO ALSO NOTHING; CREATE POLICY pol ON t USING (true);
                 ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             CREATE STATISTICS st ON n, d FROM t; GRANT SELECT ON t TO pg_monitor; CREATE INDEX ex ON t ((n + 1));
                 CREATE INDEX pa ON t (n) WHERE n > 5;
             CREATE INDEX op ON t USING gist (ts_ tsvector_ops (siglen = 64));
                 CREATE INDEX hx ON t USING hybrid ((u::vector(2))); CREATE INDEX hp ON t USING hybrid (v) WHERE n > 5;
             ALTER TABLE t ALTER n SET STATISTICS 7, ALTER n SET (n_distinct = 5), REPLICA IDENTITY FULL;
                 COMMENT ON INDEX pa IS 'why';
             INSERT INTO parent VALUES (1); INSERT INTO t (id, n) VALUES (1, 3)");
        let table = describe(oid("t"));
        let all = table.not_carried.join("\n");
        for part in [
            "foreign key \"t_id_fkey\"",
            "check constraint \"t_n_check\": CHECK ((n > 0))",
            "generated column \"g\"",
            "default of column \"d\": now()",
            "default of column \"e\"",
            "default of column \"s\"",
            "default of column \"w\"",
            "type public.mood",
            "t_int4range_excl",
            "trigger \"tr\": CREATE TRIGGER",
            "rule \"r\"",
            "policy \"pol\"",
            "row security is enabled",
            "statistics object \"st\"",
            "privileges: ",
            "index \"ex\"",
            "index \"pa\"",
            "index \"op\"",
            "index \"hx\"",
            "index \"hp\"",
            "statistics target of column \"n\": 7",
            "options of column \"n\": n_distinct=5",
            "replica identity full",
            "public.child",
            "public.away",
            "comment on index public.pa: why",
        ] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        assert_eq!(table.not_carried.len(), 26, "{all}");
        assert!(table.hybrid_indexes.is_empty() && table.plain_indexes.is_empty());
        round_trip();
        assert_eq!(value::<i32>("SELECT g FROM copy"), 6);
    }

    #[pg_test]
    fn what_cannot_be_backed_up_is_refused() {
        run("CREATE VIEW vi AS SELECT 1; CREATE MATERIALIZED VIEW mv AS SELECT 1; CREATE TEMP TABLE te (a int);
             CREATE TABLE pt (a int) PARTITION BY LIST (a); CREATE SEQUENCE sq; CREATE TYPE ct AS (a int);
                 CREATE TABLE fine (a int); CREATE INDEX ix ON fine (a);
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER se FOREIGN DATA WRAPPER w;
                 CREATE FOREIGN TABLE ft (a int) SERVER se");
        for (table, said) in [
            ("vi", "42809 \"vi\" is a view"),
            ("mv", "42809 \"mv\" is a materialized view"),
            ("te", "0A000 \"te\" is a temporary table"),
            ("pt", "42809 \"pt\" is a partitioned table"),
            ("sq", "42809"),
            ("ct", "42809"),
            ("ix", "42809"),
            ("ft", "42809 \"ft\" is a foreign table"),
            ("pg_class", "0A000 \"pg_class\" is a system catalog"),
            ("fine", "ok"),
        ] {
            let answer = attempt(&format!("SELECT tests.described('{table}'::regclass::oid)"));
            assert!(answer.starts_with(said), "{table}: {answer}");
        }
        assert!(attempt("SELECT tests.described(1)").starts_with("XX000 could not open relation"));
    }

    #[pg_test]
    fn rights_are_checked() {
        run("CREATE ROLE reader; CREATE ROLE stranger; GRANT USAGE ON SCHEMA tests, public TO reader, stranger;
             CREATE TABLE t (a int); INSERT INTO t VALUES (1); GRANT SELECT ON t TO reader;
             CREATE TABLE r (a int); GRANT SELECT, INSERT ON r TO reader; ALTER TABLE r ENABLE ROW LEVEL SECURITY;
             CREATE SCHEMA others; GRANT USAGE ON SCHEMA others TO reader");
        let as_role = |role: &str, sql: &str| {
            run(&format!("SET LOCAL ROLE {role}"));
            let answer = attempt_as(sql);
            run("RESET ROLE");
            answer
        };
        attempt("SELECT 1");
        let (t, r) = ("'t'::regclass::oid", "'r'::regclass::oid");
        for (role, sql, said) in [
            ("reader", format!("SELECT tests.described({t})"), "ok"),
            ("reader", format!("SELECT tests.rows_read({t}, '{{a}}')"), "ok"),
            ("stranger", format!("SELECT tests.described({t})"), "42501 permission denied for table t"),
            ("stranger", format!("SELECT tests.rows_read({t}, '{{a}}')"), "42501 permission denied for table t"),
            ("reader", format!("SELECT tests.described({r})"), "42501 permission denied for table r"),
            (
                "reader",
                format!("SELECT tests.rows_loaded({t}, '{{a}}', '2'::bytea)"),
                "42501 permission denied for table t",
            ),
            ("reader", format!("SELECT tests.rows_loaded({r}, '{{a}}', '2'::bytea)"), "0A000 row security is in force"),
            (
                "reader",
                "SELECT tests.created(tests.described('t'::regclass), 'others', 'x')".into(),
                "42501 permission denied for schema others",
            ),
        ] {
            let answer = as_role(role, &sql);
            assert!(answer.starts_with(said), "{role}: {sql}: {answer}");
        }
        assert_eq!(value::<i64>("SELECT count(*) FROM t"), 1);
    }

    pub fn attempt_as(sql: &str) -> String {
        Spi::get_one_with_args::<String>("SELECT attempt($1)", &[sql.into()]).expect("runs").expect("a text")
    }

    #[pg_test]
    fn a_restore_that_cannot_be_is_refused_before_anything_is_made() {
        run("CREATE TYPE mood AS ENUM ('x'); CREATE COLLATION coll FROM \"C\"; CREATE TABLE t (m mood,
                c text COLLATE coll, v vector(2)); CREATE INDEX ON t USING hybrid (v)");
        let table = describe(oid("t"));
        assert!(attempt_create(&table, "public", "t").starts_with("42P07 relation \"public.t\" already exists"));
        assert!(attempt_create(&table, "nowhere", "t").starts_with("3F000 schema \"nowhere\" does not exist"));
        assert!(attempt_create(&table, "pg_catalog", "t").starts_with("0A000"));
        assert!(attempt_create(&table, "public", "").starts_with("42602"));
        assert!(attempt_create(&table, "public", &"x".repeat(64)).starts_with("42602"));
        run("DROP TABLE t; DROP TYPE mood; DROP COLLATION coll");
        let mut table = table;
        table.hybrid_indexes[0].opclass.name = "vector_none_ops".into();
        let answer = attempt_create(&table, "public", "t");
        let expected = "42704 this database does not have what the table needs: type \"public.mood\", \
                        collation \"public.coll\", \
                        operator class \"public.vector_none_ops\" of extension \"hybridvec\"";
        assert_eq!(answer, expected);
        assert_eq!(
            value::<i64>("SELECT count(*) FROM pg_class WHERE relname = 't' AND relnamespace = 'public'::regnamespace"),
            0
        );
    }

    #[pg_test]
    fn an_extension_may_be_in_another_schema() {
        run("CREATE TABLE t (v vector(2)); CREATE INDEX ON t USING hybrid (v)");
        let mut table = describe(oid("t"));
        assert_eq!(table.columns[0].of.extension.as_deref(), Some("hybridvec"));
        table.columns[0].of.schema = "elsewhere".into();
        table.hybrid_indexes[0].opclass.schema = "elsewhere".into();
        assert_eq!(attempt_create(&table, "public", "copy"), "ok");
        assert_eq!(
            value::<String>(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'copy'::regclass AND
                    attnum = 1"
            ),
            "vector(2)"
        );
    }
}
