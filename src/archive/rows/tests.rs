//! Rows as chunks: what is in them, where they are cut, and what other sessions do meanwhile.

#[pgrx::pg_schema]
mod tests {
    use crate::archive::roundtrip::tests::{names, oid, read, round_trip, run, text, value};
    use crate::archive::rows::{Cutter, LARGEST_CHUNK, LONGEST_LINE, RANGE_BLOCKS, load_rows, read_rows};
    use crate::archive::table::{create, describe};
    use crate::pg::rows::RowVisitor;
    use crate::pg::snapshot::Snapshot;
    use ann::shape::HeapTid;
    use pgrx::prelude::*;
    use std::process::{Child, Command};

    #[pg_test]
    fn escapes_are_those_of_copy() {
        run(r"CREATE TABLE t (a text, b text); INSERT INTO t SELECT convert_from(decode(to_hex(i / 16) || to_hex(i %
                16), 'hex'), 'UTF8'), NULL
              FROM generate_series(1, 127) i; INSERT INTO t VALUES ('', ''), (NULL, 'x'), ('\N', '\.'), (E'\\\n',
                  E'é\u2028')");
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
                in_session(
                    "INSERT INTO shared_rows SELECT g, 'new' FROM generate_series(1, 100) g;
                            UPDATE shared_rows SET a = 'changed' WHERE id % 2 = 0;
                                DELETE FROM shared_rows WHERE id % 3 = 0",
                );
                in_session("VACUUM shared_rows");
            }
        });
        assert!(chunks.len() > 1);
        assert!(text(&chunks) == before, "what others did meanwhile is not seen");
        assert_ne!(text(&read(oid("shared_rows"), &columns)), before, "but it was done");
    }

    #[pg_test]
    fn transfers_between_rows_are_seen_whole_or_not() {
        in_session(
            "DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id int PRIMARY KEY,
            balance int) WITH (fillfactor = 20);
                    INSERT INTO accounts SELECT g, 100 FROM generate_series(0, 499) g",
        );
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

    /// A line that is nearly as long as COPY reads.
    fn nearly_full_line(cutter: &mut Cutter) {
        cutter.begin(HeapTid { block: 7, offset: 3 });
        cutter.line = LONGEST_LINE - 4;
    }

    #[pg_test]
    fn the_longest_line_is_taken() {
        let mut chunks = 0;
        let mut each = |_| chunks += 1;
        let mut cutter = Cutter::new(&mut each);
        nearly_full_line(&mut cutter);
        cutter.value(Some(b"\\x"));
        cutter.end();
        assert_eq!(cutter.finish(), 1);
        assert_eq!(chunks, 1);
    }

    #[pg_test(error = "the row at (7,3) is longer than 1 GB as text")]
    fn a_longer_line_is_refused() {
        let mut each = |_| {};
        let mut cutter = Cutter::new(&mut each);
        nearly_full_line(&mut cutter);
        cutter.value(Some(b"\\xy"));
        cutter.end();
    }
}
