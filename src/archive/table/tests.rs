//! Descriptions that want more than to be a table.

#[pgrx::pg_schema]
mod tests {
    use crate::archive::roundtrip::tests::{attempt, attempt_create, oid, round_trip, run, value};
    use crate::archive::table::describe;
    use archive::table::Table;
    use pgrx::prelude::*;

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

    /// A description with one of its texts replaced.
    type With<'a> = &'a dyn Fn(&str) -> serde_json::Value;

    /// Every text of a description, to be replaced one by one.
    fn each_text(value: &serde_json::Value, change: &mut dyn FnMut(With)) {
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
             CREATE FUNCTION destroy() RETURNS text LANGUAGE sql VOLATILE AS
                 'INSERT INTO public.noise VALUES (1) RETURNING ''1''';
             CREATE TABLE t (id serial PRIMARY KEY, n numeric(5,2) DEFAULT 1, c text COLLATE \"C\" DEFAULT 'x',
                 a int[], v vector(3)) WITH (fillfactor = 50);
             CREATE INDEX ON t (c COLLATE \"POSIX\", n) INCLUDE (id) WITH (fillfactor = 60);
                 CREATE INDEX ON t USING hybrid (v) WITH (m = 8);
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
                "ALTER TABLE t RENAME id TO {quoted}; ALTER TABLE t RENAME CONSTRAINT t_pkey TO {quoted};
                    COMMENT ON TABLE t IS $q${hostile}$q$"
            ));
            run(&format!(
                "CREATE TYPE {quoted} AS ENUM ('a'); ALTER TABLE t ADD b {quoted}, ADD d text DEFAULT $q${hostile}$q$;
                    INSERT INTO t (b) VALUES ('a')"
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
        run("CREATE ROLE stranger; CREATE ROLE friend; CREATE SCHEMA traps AUTHORIZATION stranger;
            GRANT USAGE ON SCHEMA traps TO public;
             SET LOCAL ROLE stranger; CREATE DOMAIN traps.harmless AS int;
                 CREATE DOMAIN traps.trap AS int CHECK (VALUE > 0);
             CREATE TYPE traps.deep AS (a traps.trap[]); RESET ROLE;
             CREATE TABLE a (x traps.harmless); CREATE TABLE b (x traps.trap); CREATE TABLE c (x traps.deep[])");
        assert_eq!(attempt_create(&describe(oid("a")), "public", "copy_a"), "ok");
        for name in ["b", "c"] {
            let answer = attempt_create(&describe(oid(name)), "public", "copy");
            assert_eq!(answer, "42501 type traps.trap would run code of its owner");
        }
    }
}
