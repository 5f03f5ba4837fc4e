//! Tables that are described, made again, and filled again.

#[pgrx::pg_schema]
mod tests {
    use crate::archive::rows::{Chunk, LARGEST_CHUNK, RANGE_BLOCKS, load_rows, read_rows};
    use crate::archive::table::{create, create_hybrid_index, create_indexes, describe, set_positions};
    use crate::pg::snapshot::Snapshot;
    use archive::table::{Index, NumberingKind, Parameter, Table};
    use pgrx::prelude::*;
    use std::process::{Child, Command};

    // --- what SQL calls to have errors caught ---

    #[pg_extern]
    fn described(table: pg_sys::Oid) -> String {
        serde_json::to_string(&describe(table)).expect("a description is JSON")
    }

    #[pg_extern]
    fn created(description: &str, schema: &str, name: &str) -> i64 {
        let table: Table = serde_json::from_str(description).expect("a description");
        let oid = create(&table, schema, name);
        create_indexes(&table, oid, &mut |index| drop(create_hybrid_index(index, oid, &[])));
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

    fn value<T: FromDatum + IntoDatum>(sql: &str) -> T {
        Spi::get_one::<T>(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).unwrap_or_else(|| panic!("{sql}: no value"))
    }

    fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn oid(table: &str) -> pg_sys::Oid {
        value(&format!("SELECT '{table}'::regclass::oid"))
    }

    fn names(table: &Table) -> Vec<String> {
        table.columns.iter().map(|column| column.name.clone()).collect()
    }

    fn read(table: pg_sys::Oid, columns: &[String]) -> Vec<Chunk> {
        let snapshot = Snapshot::latest();
        let mut chunks = Vec::new();
        let rows = read_rows(table, columns, &snapshot, &mut |chunk| chunks.push(chunk));
        assert_eq!(rows, chunks.iter().map(|chunk| chunk.rows).sum::<u64>());
        chunks
    }

    fn text(chunks: &[Chunk]) -> String {
        String::from_utf8(chunks.iter().flat_map(|chunk| &chunk.bytes).copied().collect()).expect("UTF-8")
    }

    fn once(bytes: &[u8]) -> impl FnMut() -> Option<Vec<u8>> + use<> {
        let mut bytes = Some(bytes.to_vec());
        move || bytes.take()
    }

    /// Runs a statement as a subtransaction; what it raised, or "ok".
    fn attempt(sql: &str) -> String {
        run("CREATE OR REPLACE FUNCTION attempt(sql text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$");
        Spi::get_one_with_args::<String>("SELECT attempt($1)", &[sql.into()]).expect("runs").expect("a text")
    }

    fn attempt_create(table: &Table, schema: &str, name: &str) -> String {
        let json = serde_json::to_string(table).expect("JSON");
        let [json, schema, name] = [&json, schema, name].map(pgrx::spi::quote_literal::<&str>);
        attempt(&format!("SELECT tests.created({json}, {schema}, {name})"))
    }

    /// Restores `t` as `copy`, rows and indexes, and compares: rows, their text, the description. Returns the description.
    fn round_trip() -> Table {
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
        create_indexes(&table, copy, &mut |index| drop(create_hybrid_index(index, copy, &[])));
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
    fn described_copy() -> Table {
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
            CREATE TABLE t (i2 smallint, i4 int NOT NULL, i8 bigint, n numeric, n2 numeric(10,2), n3 numeric(4,-2), f4 real,
                f8 double precision, m money, c "char", c5 char(5), v varchar(7), s text, na name, b bytea, bo bool,
                d date, ti time(3), tz timetz(2), ts timestamp(1), tstz timestamptz, iv interval, ivd interval day to second(3),
                ivy interval year, u uuid, j json, jb jsonb, jp jsonpath, x xml, bi bit(3), vb varbit(9), inet_ inet, ci cidr, ma macaddr,
                ma8 macaddr8, p point, l line, ls lseg, bx box, pa path, po polygon, ci_ circle, tsv tsvector, tsq tsquery,
                ls_ pg_lsn, xid8_ xid8, o oid, rc regclass, rt regtype, i4r int4range, nr nummultirange, tsr tstzrange,
                ia int[], ta text[][], na2 numeric(5,1)[], e "a b"."mo""od", ea "a b"."mo""od"[], co pair, coa pair[], dom small, doma small[],
                fr floats, ve vector(3), vea vector[], iva int2vector, "weird ""name" text)"#);
        run(
            r#"INSERT INTO t VALUES (-32768, 1, 9223372036854775807, 'NaN', 12345678.91, 123456, 'Infinity', '-Infinity',
            12.34, 'x', 'ab', 'a b', E'tab\t nl\n cr\r bs\\ b\b f\f v\v end \\. \\N é 漢 🐘 ', 'name', '\x00ff5c0a', true,
            '0044-03-15 BC', '23:59:59.123', '10:00:00.12+05:30', 'infinity', '2020-01-01 00:00:00.123456-08', '-1 year -2 days -03:04:05.6',
            '1 02:03:04.5678', '5 years', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" :  1, "a":2}', '{"b":[1,null,"\t"]}', '$.a[*] ? (@ > 1)',
            '<a b="c">d</a>', B'101', B'10', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
            '(1.1,2e-300)', '{1,2,3}', '[(1,2),(3,4)]', '((1,2),(3,4))', '[(1,1),(2,2)]', '((1,1),(2,2),(3,1))', '<(1,2),3>',
            'a:1A b:2', 'a & !b', '16/B374D848', '18446744073709551615', 4294967295, 'pg_class', 'int4', '[1,5)', '{[1,2),[3,)}', '[2020-01-01,infinity)',
            '{1,NULL,3}', '{{a,"b,\"\\"},{NULL,"NULL"}}', '{1.1,NaN}', 'b"ad', '{fine,"so, so"}', '(1,"x,\"")', ARRAY['(2,)','(,"")']::pair[], 7, '{1,2}',
            '[0.1,0.30000000000000004)', '[1,2.5,-1e-30]', '{"[1,2]","[3]"}', '1 2 3', '"quo''ted"\N');
            INSERT INTO t (i4) SELECT g FROM generate_series(2, 5) g;
            INSERT INTO t (i4, s, f8, f4, d, tstz, iv, ia) VALUES
                (6, '', 0.1, 1e-45, 'infinity', '-infinity', '0', '[2:3]={4,5}'), (7, '\.', '-0', 'NaN', '4713-01-01 BC', 'infinity', '178000000 years', '{}'),
                (8, '\N', 1.7976931348623157e308, 3.4028235e38, '5874897-12-31', '294276-12-31 23:59:59.999999', '-178000000 years', '{{1},{2}}')"#,
        );
        let table = round_trip();
        assert_eq!(table.columns.len(), 71);
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
             INSERT INTO t VALUES ('2020-02-01', now(), '-1 day -02:03', 0.1::float8 + 0.2, '\\x5c00', '{NULL,x}', 1.5, 't')");
        let columns = names(&describe(oid("t")));
        let before = text(&read(oid("t"), &columns));
        run("SET LOCAL DateStyle = 'German, DMY'; SET LOCAL IntervalStyle = 'sql_standard'; SET LOCAL extra_float_digits = -5;
             SET LOCAL bytea_output = 'escape'; SET LOCAL array_nulls = off; SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL client_encoding = 'LATIN1'");
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

    #[pg_test]
    fn escapes_are_those_of_copy() {
        run(
            r"CREATE TABLE t (a text, b text); INSERT INTO t SELECT convert_from(decode(to_hex(i / 16) || to_hex(i % 16), 'hex'), 'UTF8'), NULL
              FROM generate_series(1, 127) i; INSERT INTO t VALUES ('', ''), (NULL, 'x'), ('\N', '\.'), (E'\\\n', E'é\u2028')",
        );
        let ours = text(&read(oid("t"), &names(&describe(oid("t")))));
        let path = std::env::temp_dir().join(format!("hybridvec-copy-{}", std::process::id()));
        run(&format!("COPY t TO '{}'", path.display()));
        let theirs = std::fs::read_to_string(&path).expect("COPY wrote it");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(ours, theirs);
        round_trip();
    }

    #[pg_test]
    fn random_rows_come_back() {
        let mut state = 42u64;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        const PARTS: [&str; 16] =
            ["\t", "\n", "\r", "\\", "N", ".", "'", "\"", "{", "}", ",", "NULL", "é", "🐘", "\u{b}\u{c}\u{8}", " "];
        run("CREATE TABLE t (a text, b text[], c bytea, d jsonb, e float8, f numeric, g int)");
        for i in 0..300 {
            let mut word = || (0..next(6)).map(|_| PARTS[next(16) as usize]).collect::<String>();
            let (a, b1, b2) = (word(), word(), word());
            let c: Vec<u8> = (0..next(5)).map(|_| next(256) as u8).collect();
            let e = f64::from_bits(next(1 << 31) << 33 | next(1 << 31));
            let a = (next(4) > 0).then_some(a);
            let arguments =
                [a.into(), vec![Some(b1.clone()), None, Some(b2)].into(), c.into(), b1.into(), e.into(), i.into()];
            let sql = "INSERT INTO t VALUES ($1, $2, $3, to_jsonb($4::text), $5, $5::text::numeric, $6)";
            Spi::run_with_args(sql, &arguments).expect("inserted");
        }
        round_trip();
    }

    // --- definitions ---

    #[pg_test]
    fn definitions_come_back() {
        run(r#"CREATE UNLOGGED TABLE t (
                id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5 MAXVALUE 1000 CACHE 3 CYCLE) PRIMARY KEY,
                bd int GENERATED BY DEFAULT AS IDENTITY, se serial, bs bigserial, ss smallserial, nn text NOT NULL, co text COLLATE "C",
                di int DEFAULT 42, dn numeric(10,3) DEFAULT -1.5, dt text DEFAULT E'it''s \\ a "default"', dv varchar(20) DEFAULT 'v',
                db bool DEFAULT true, df float8 DEFAULT 0.5, dj jsonb DEFAULT '{}', da int[] DEFAULT '{1,2}', ds smallint DEFAULT 3,
                dtz timestamptz DEFAULT '2020-01-01 00:00:00+00', div interval DEFAULT '1 day', dnull int DEFAULT NULL,
                ex text STORAGE_IS, v vector(3), at timestamptz, UNIQUE (di, dt), CONSTRAINT later UNIQUE (ds) INCLUDE (db) DEFERRABLE INITIALLY DEFERRED,
                CONSTRAINT same UNIQUE NULLS NOT DISTINCT (dv)) WITH (fillfactor = 70, autovacuum_enabled = off);
            ALTER TABLE t ALTER ex SET STORAGE external, ALTER dt SET COMPRESSION pglz;
            ALTER SEQUENCE t_bs_seq START 100 MINVALUE -5 RESTART 77;
            CREATE INDEX ON t (nn COLLATE "C" text_pattern_ops DESC, di NULLS FIRST) INCLUDE (dt) WITH (fillfactor = 50);
            CREATE UNIQUE INDEX u ON t (dn DESC NULLS LAST) NULLS NOT DISTINCT; CREATE INDEX ON t USING hash (nn);
            CREATE INDEX ON t USING gin (dj jsonb_path_ops); CREATE INDEX ON t USING brin (at);
            CREATE INDEX h ON t USING hybrid (v vector_cosine_ops, at, id) WITH (m = 8, recent_threshold = '3 days');
            COMMENT ON TABLE t IS 'it''s'; COMMENT ON COLUMN t.nn IS E'\\ "';
            INSERT INTO t (nn, v, ds, dv, dn) SELECT g::text, ARRAY[g, 1, 1]::real[]::vector, g, g, g FROM generate_series(1, 7) g"#
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
        // Both give the same numbers and defaults from here on.
        run(
            "INSERT INTO t (nn, ds, dv, dn, di) VALUES ('n', 100, 'w', 9, 1); INSERT INTO copy (nn, ds, dv, dn, di) VALUES ('n', 100, 'w', 9, 1)",
        );
        assert_eq!(value::<i64>("SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE copy) x"), 0);
        assert_eq!(value::<i64>("SELECT count(*) FROM hybrid_check('copy_v_at_id_idx', true)"), 0);
        assert_eq!(value::<i64>("SELECT max(bs) FROM copy"), 84);
    }

    #[pg_test]
    fn names_are_kept_where_they_are_free() {
        run("CREATE SCHEMA other; CREATE TABLE t (id int CONSTRAINT pk PRIMARY KEY, v vector(2)); CREATE INDEX plain ON t (id);
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
             CREATE TABLE t (id int PRIMARY KEY REFERENCES parent, n int CHECK (n > 0), g int GENERATED ALWAYS AS (n * 2) STORED,
                 d timestamptz DEFAULT now(), e text DEFAULT 'a' || 'b', s int DEFAULT 1 + 1, m mood, EXCLUDE USING gist (int4range(n, n) WITH &&),
                 w text DEFAULT 'abcdef'::varchar(3), v vector(2));
             CREATE TABLE child () INHERITS (t); CREATE TABLE away (t int REFERENCES t);
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
             CREATE RULE r AS ON UPDATE TO t DO ALSO NOTHING; CREATE POLICY pol ON t USING (true); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             CREATE STATISTICS st ON n, d FROM t; GRANT SELECT ON t TO pg_monitor; CREATE INDEX ex ON t ((n + 1)); CREATE INDEX pa ON t (n) WHERE n > 5;
             CREATE INDEX hx ON t USING hybrid ((v::vector(2))); CREATE INDEX hp ON t USING hybrid (v) WHERE n > 5;
             ALTER TABLE t ALTER n SET STATISTICS 7, REPLICA IDENTITY FULL; COMMENT ON INDEX pa IS 'why';
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
            "index \"hx\"",
            "index \"hp\"",
            "statistics target of column \"n\": 7",
            "replica identity full",
            "public.child",
            "public.away",
            "comment on index public.pa: why",
        ] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        assert_eq!(table.not_carried.len(), 24, "{all}");
        assert!(table.hybrid_indexes.is_empty() && table.plain_indexes.is_empty());
        round_trip();
        assert_eq!(value::<i32>("SELECT g FROM copy"), 6);
    }

    #[pg_test]
    fn what_cannot_be_backed_up_is_refused() {
        run("CREATE VIEW vi AS SELECT 1; CREATE MATERIALIZED VIEW mv AS SELECT 1; CREATE TEMP TABLE te (a int);
             CREATE TABLE pt (a int) PARTITION BY LIST (a); CREATE SEQUENCE sq; CREATE TYPE ct AS (a int); CREATE TABLE fine (a int); CREATE INDEX ix ON fine (a);
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER se FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE ft (a int) SERVER se");
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

    fn attempt_as(sql: &str) -> String {
        Spi::get_one_with_args::<String>("SELECT attempt($1)", &[sql.into()]).expect("runs").expect("a text")
    }

    #[pg_test]
    fn a_restore_that_cannot_be_is_refused_before_anything_is_made() {
        run(
            "CREATE TYPE mood AS ENUM ('x'); CREATE COLLATION coll FROM \"C\"; CREATE TABLE t (m mood, c text COLLATE coll, v vector(2)); CREATE INDEX ON t USING hybrid (v)",
        );
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
        let expected = "42704 this database does not have what the table needs: type \"public.mood\", collation \"public.coll\", \
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
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'copy'::regclass AND attnum = 1"
            ),
            "vector(2)"
        );
    }

    // --- hostile descriptions ---

    const HOSTILE: [&str; 9] = [
        "x\"; DROP TABLE victim; --",
        "x'; DROP TABLE victim; --",
        "x\\'; DROP TABLE victim; --",
        "x); DROP TABLE victim; --",
        "x$$; DROP TABLE victim; --",
        "(SELECT destroy())",
        "'||destroy()||'",
        "int4; DROP TABLE victim",
        "pg_sleep(10)",
    ];

    /// Every text of a description, replaced one by one.
    fn each_text(value: &serde_json::Value, change: &mut dyn FnMut(&dyn Fn(&str) -> serde_json::Value)) {
        fn paths(value: &serde_json::Value, path: String, all: &mut Vec<String>) {
            match value {
                serde_json::Value::String(_) => all.push(path),
                serde_json::Value::Array(items) => {
                    items.iter().enumerate().for_each(|(i, item)| paths(item, format!("{path}/{i}"), all));
                }
                serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| paths(v, format!("{path}/{k}"), all)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        paths(value, String::new(), &mut all);
        for path in all {
            change(&|text| {
                let mut changed = value.clone();
                *changed.pointer_mut(&path).expect("the path is from it") = text.into();
                changed
            });
        }
    }

    #[pg_test]
    fn no_text_of_a_description_is_run() {
        run("CREATE TABLE victim (a int); CREATE TABLE noise (a int);
             CREATE FUNCTION destroy() RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO public.noise VALUES (1) RETURNING ''1''';
             CREATE TABLE t (id serial PRIMARY KEY, n numeric(5,2) DEFAULT 1, c text COLLATE \"C\" DEFAULT 'x', a int[], v vector(3)) WITH (fillfactor = 50);
             CREATE INDEX ON t (c COLLATE \"POSIX\", n) INCLUDE (id) WITH (fillfactor = 60); CREATE INDEX ON t USING hybrid (v) WITH (m = 8);
             ALTER TABLE t ALTER c SET STORAGE external; COMMENT ON TABLE t IS 'c'; COMMENT ON COLUMN t.n IS 'c'");
        let good = serde_json::to_value(describe(oid("t"))).expect("JSON");
        run("DROP TABLE t");
        let (mut tried, mut made) = (0, 0);
        each_text(&good, &mut |with| {
            for hostile in HOSTILE {
                let json = with(hostile);
                // A kind of storage or of numbering that there is not does not decode.
                if serde_json::from_value::<Table>(json.clone()).is_err() {
                    continue;
                }
                let json = pgrx::spi::quote_literal(json.to_string());
                let answer = attempt(&format!("SELECT tests.created({json}, 'public', 'copy')"));
                assert!(!answer.starts_with("XX000") && !answer.starts_with("42601"), "{json}: {answer}");
                tried += 1;
                if answer == "ok" {
                    made += 1;
                    run("DROP TABLE copy");
                }
            }
        });
        assert!(tried > 250 && made > 30, "{tried} tried, {made} made");
        assert_eq!(value::<i64>("SELECT count(*) FROM noise"), 0);
        assert_eq!(value::<i64>("SELECT count(*) FROM victim"), 0);
    }

    #[pg_test]
    fn hostile_names_are_names() {
        for hostile in HOSTILE {
            let quoted = pgrx::spi::quote_identifier(hostile);
            run("CREATE TABLE t (id serial PRIMARY KEY)");
            run(&format!(
                "ALTER TABLE t RENAME id TO {quoted}; ALTER TABLE t RENAME CONSTRAINT t_pkey TO {quoted}; COMMENT ON TABLE t IS $q${hostile}$q$"
            ));
            run(&format!(
                "CREATE TYPE {quoted} AS ENUM ('a'); ALTER TABLE t ADD b {quoted}, ADD d text DEFAULT $q${hostile}$q$; INSERT INTO t (b) VALUES ('a')"
            ));
            let table = round_trip();
            assert_eq!(table.columns[0].name, hostile);
            assert_eq!(table.columns[2].default.as_deref(), Some(hostile));
            assert_eq!(value::<String>("SELECT obj_description('copy'::regclass)"), hostile);
            run(&format!("DROP TABLE t, copy; DROP TYPE {quoted}"));
        }
    }

    #[pg_test]
    fn hostile_rows_are_values_or_errors() {
        run("CREATE TABLE t (a int, b text)");
        let load = |rows: &str| {
            attempt(&format!("SELECT tests.rows_loaded('t'::regclass, '{{a,b}}', {})", pgrx::spi::quote_literal(rows)))
        };
        assert_eq!(load("1\t'); DROP TABLE t; --\n"), "ok");
        assert_eq!(value::<String>("SELECT b FROM t"), "'); DROP TABLE t; --");
        assert!(load("x\ty\n").starts_with("22P02"));
        assert!(load("1\n").starts_with("22P04"));
        assert!(load("1\t2\t3\n").starts_with("22P04"));
        assert!(attempt("SELECT tests.rows_loaded('t'::regclass, '{a,gone}', ''::bytea)").starts_with("42703"));
        let broken = r"SELECT tests.rows_loaded('t'::regclass, '{a,b}', '\x3109fffe0a')";
        assert!(attempt(broken).starts_with("22021"));
    }

    #[pg_test]
    fn code_of_strangers_does_not_run() {
        run("CREATE ROLE stranger; CREATE ROLE friend; CREATE SCHEMA traps AUTHORIZATION stranger; GRANT USAGE ON SCHEMA traps TO public;
             SET LOCAL ROLE stranger; CREATE DOMAIN traps.harmless AS int; CREATE DOMAIN traps.trap AS int CHECK (VALUE > 0);
             CREATE TYPE traps.deep AS (a traps.trap[]); RESET ROLE;
             CREATE TABLE a (x traps.harmless); CREATE TABLE b (x traps.trap); CREATE TABLE c (x traps.deep[])");
        assert_eq!(attempt_create(&describe(oid("a")), "public", "copy_a"), "ok");
        for name in ["b", "c"] {
            let answer = attempt_create(&describe(oid(name)), "public", "copy");
            assert_eq!(answer, "42501 type traps.trap would run code of its owner");
        }
    }

    // --- sizes and sessions ---

    #[pg_test]
    fn wide_rows_span_chunks() {
        run(
            "CREATE TABLE t (id int, a text, b text); ALTER TABLE t ALTER a SET STORAGE external;
             INSERT INTO t VALUES (1, 'x', 'y');
             INSERT INTO t SELECT 2, repeat(md5('a') || E'\\t\\n', 3000000), 'end'; INSERT INTO t VALUES (3, 'x', 'y')",
        );
        let columns = names(&describe(oid("t")));
        let chunks = read(oid("t"), &columns);
        assert!(chunks.len() > 25, "{} chunks", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= LARGEST_CHUNK && !chunk.blocks.is_empty()));
        let table = describe(oid("t"));
        let copy = create(&table, "public", "copy");
        let mut queue = chunks.into_iter().map(|chunk| chunk.bytes);
        assert_eq!(load_rows(copy, &columns, &mut || queue.next()), 3);
        assert_eq!(value::<i64>("SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE copy) x"), 0);
        assert_eq!(value::<i32>("SELECT max(length(a)) FROM copy"), 34 * 3_000_000);
    }

    #[pg_test]
    fn ranges_without_changes_give_the_same_bytes() {
        run("CREATE TABLE t (id int, a text) WITH (fillfactor = 90); ALTER TABLE t ALTER a SET STORAGE plain;
             INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 30000) g");
        let columns = names(&describe(oid("t")));
        let before = read(oid("t"), &columns);
        assert!(before.len() >= 6, "{} chunks", before.len());
        for pair in before.windows(2) {
            assert!(pair[0].blocks.end <= pair[1].blocks.start, "in order, without overlap");
        }
        assert!(before.iter().all(|chunk| chunk.blocks.start / RANGE_BLOCKS == (chunk.blocks.end - 1) / RANGE_BLOCKS));
        assert_eq!(read(oid("t"), &columns), before);
        run("UPDATE t SET a = upper(a) WHERE id = 5; DELETE FROM t WHERE id = 6");
        let after = read(oid("t"), &columns);
        let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!(new <= 2, "{new} of {} chunks are new", after.len());
    }

    /// A session of its own.
    fn session(sql: &str) -> Child {
        let psql = format!("{}/psql", value::<String>("SELECT setting FROM pg_config WHERE name = 'BINDIR'"));
        let directory = value::<String>("SELECT split_part(current_setting('unix_socket_directories'), ',', 1)");
        let (port, database) = (value::<String>("SHOW port"), value::<String>("SELECT current_database()::text"));
        let user = value::<String>("SELECT session_user::text");
        Command::new(psql)
            .args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &directory,
                "-p",
                &port,
                "-U",
                &user,
                "-d",
                &database,
                "-c",
                sql,
            ])
            .spawn()
            .expect("psql runs")
    }

    fn in_session(sql: &str) {
        assert!(session(sql).wait().expect("psql ends").success(), "{sql}");
    }

    #[pg_test]
    fn a_snapshot_is_one_moment() {
        in_session(
            "DROP TABLE IF EXISTS shared_rows; CREATE TABLE shared_rows (id int, a text);
                    ALTER TABLE shared_rows ALTER a SET STORAGE plain;
                    INSERT INTO shared_rows SELECT g, repeat('x', 1000) FROM generate_series(1, 8000) g",
        );
        let columns = names(&describe(oid("shared_rows")));
        let before = text(&read(oid("shared_rows"), &columns));
        let snapshot = Snapshot::latest();
        let (mut chunks, mut disturbed) = (Vec::new(), false);
        read_rows(oid("shared_rows"), &columns, &snapshot, &mut |chunk| {
            chunks.push(chunk);
            if !std::mem::replace(&mut disturbed, true) {
                in_session("INSERT INTO shared_rows SELECT g, 'new' FROM generate_series(1, 100) g;
                            UPDATE shared_rows SET a = 'changed' WHERE id % 2 = 0; DELETE FROM shared_rows WHERE id % 3 = 0; VACUUM shared_rows");
            }
        });
        assert!(chunks.len() > 1);
        assert!(text(&chunks) == before, "what others did meanwhile is not seen");
        assert_ne!(text(&read(oid("shared_rows"), &columns)), before, "but it was done");
    }

    #[pg_test]
    fn transfers_between_rows_are_seen_whole_or_not() {
        in_session("DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id int PRIMARY KEY, balance int) WITH (fillfactor = 20);
                    INSERT INTO accounts SELECT g, 100 FROM generate_series(0, 499) g");
        let mut writer = session(
            "DO $$ BEGIN FOR i IN 1..2000 LOOP
                 UPDATE accounts SET balance = balance - 7 WHERE id = i % 500;
                 UPDATE accounts SET balance = balance + 7 WHERE id = (i * 31 + 1) % 500;
                 COMMIT;
             END LOOP; END $$",
        );
        let columns = names(&describe(oid("accounts")));
        let (mut reads, mut seen) = (0, std::collections::HashSet::new());
        loop {
            let ended = writer.try_wait().expect("psql");
            let rows = text(&read(oid("accounts"), &columns));
            let balances: Vec<i64> = rows.lines().filter_map(|line| line.split('\t').nth(1)?.parse().ok()).collect();
            assert_eq!((balances.len(), balances.iter().sum::<i64>()), (500, 50_000));
            seen.insert(rows);
            reads += 1;
            if let Some(status) = ended {
                assert!(status.success());
                break;
            }
        }
        assert!(reads > 1 && seen.len() > 1, "{reads} reads saw {} states", seen.len());
    }
}
