//! Tests that need both a server and what SQL does not show.

#[pgrx::pg_schema]
mod tests {
    use crate::am::fingerprints::Hashing;
    use crate::am::import::{Archived, Fit, ImportPlan, Misfit, Structure, is_waiting, with_plan};
    use crate::pg::arena::BuildArena;
    use crate::pg::buffer::IndexStore;
    use crate::pg::lock::Maintenance;
    use crate::pg::relation::{OpenIndex, OpenTable};
    use crate::pg::reloptions::Options;
    use crate::pg::settings::with_settings;
    use crate::pg::thread::Pool;
    use ann::distance::Metric;
    use ann::hnsw::build::Arena;
    use ann::hnsw::probe::{Probe, Scaling, normalize};
    use ann::index::{Directory, SegmentKind};
    use ann::keys::{Keys, Row};
    use ann::page::{Kind, META_BLOCK, Page, PageStore, Tag, Unit};
    use ann::relink::{
        CentroidCodes, Fingerprint, GraphElement, GraphHeader, GraphReader, ListElement, ListsHeader, ListsReader,
        Source, fingerprint,
    };
    use ann::{shape, sq8};
    use pgrx::prelude::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn value<T: FromDatum + IntoDatum>(sql: &str) -> T {
        Spi::get_one::<T>(sql).expect("the query runs").expect("the query returns a value")
    }

    fn index_of(name: &str) -> OpenIndex {
        OpenIndex::open(value::<pg_sys::Oid>(&format!("SELECT '{name}'::regclass::oid")))
    }

    fn table_with_index(rows: usize, options: &str) {
        Spi::run("CREATE TABLE t (id int, v vector(8))").expect("table");
        Spi::run(&format!(
            "INSERT INTO t SELECT i, ARRAY(SELECT sin(i * j * 0.37) FROM generate_series(1, 8) j)::real[]::vector
             FROM generate_series(1, {rows}) i"
        ))
        .expect("rows");
        Spi::run(&format!("CREATE INDEX t_v_idx ON t USING hybrid (v) {options}")).expect("index");
    }

    /// Pseudo-random vectors of many magnitudes.
    fn vectors(n: usize, dimensions: usize) -> Vec<Vec<f32>> {
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5
        };
        (0..n)
            .map(|i| {
                let scale = [1e-3, 1.0, 1e3, 1e6][i % 4];
                (0..dimensions).map(|_| next() * scale).collect()
            })
            .collect()
    }

    #[pg_test]
    fn bounds_are_not_above_what_the_sql_operators_return() {
        for dimensions in [1, 3, 100, 384, 1000] {
            let all = vectors(24, dimensions);
            for (metric, operator) in
                [(Metric::L2, "<->"), (Metric::InnerProduct, "<#>"), (Metric::Cosine, "<=>"), (Metric::L1, "<+>")]
            {
                for pair in all.windows(2) {
                    let (query, row) = (&pair[0], &pair[1]);
                    let distance = value::<f64>(&format!(
                        "SELECT ARRAY{row:?}::real[]::vector {operator} ARRAY{query:?}::real[]::vector"
                    ));
                    let (query, row) =
                        (normalize(metric, query).expect("not zero"), normalize(metric, row).expect("not zero"));
                    let mut code = vec![0; row.len()];
                    let params = sq8::encode(&row, &mut code);
                    let probe = Probe::new(metric, &query);
                    let scaling = Scaling { scale: params.scale, offset: params.offset, norm2: params.norm2 };
                    let rank = probe.rank(probe.part(0..code.len(), &code, scaling), scaling);
                    let bound = probe.lower_bound(rank, params.norm2, shape::residual(metric, &params));
                    assert!(bound <= distance, "{metric:?}, {dimensions} dimensions: {bound} > {distance}");
                }
            }
        }
    }

    #[pg_test]
    fn options_are_read_with_units_and_defaults() {
        table_with_index(10, "WITH (m = 8, ef_construction = 40, recent_threshold = 'infinity', rerank = f16)");
        let options = Options::of(index_of("t_v_idx").index());
        let expected =
            Options { m: 8, ef_construction: 40, recent_threshold: i64::MAX, rerank: 1, ..Options::default() };
        assert_eq!(options, expected);
        Spi::run("ALTER INDEX t_v_idx SET (recent_threshold = '36 hours', partition_interval = '2 days')")
            .expect("set");
        let options = Options::of(index_of("t_v_idx").index());
        assert_eq!((options.recent_threshold, options.partition_interval), (36 * 3_600_000_000, 48 * 3_600_000_000));
    }

    #[pg_test]
    fn a_unit_that_is_dropped_changes_nothing() {
        table_with_index(100, "");
        let opened = index_of("t_v_idx");
        let store = IndexStore::new(opened.index());
        let (before, _) = Directory::read(&store).expect("sound");
        let blocks = store.block_count();
        let mut unit = store.unit();
        unit.page(META_BLOCK).expect("there").body_mut().fill(0xAB);
        drop(unit);
        let (after, _) = Directory::read(&store).expect("still sound");
        assert_eq!((before, blocks), (after, store.block_count()));
    }

    #[pg_test]
    fn a_released_page_is_taken_again() {
        table_with_index(100, "");
        let opened = index_of("t_v_idx");
        let store = IndexStore::new(opened.index());
        let allocate = || {
            let mut unit = store.unit();
            let block = unit.allocate(Tag::new(7, Kind::Overflow)).expect("room").0;
            unit.commit().expect("committed");
            block
        };
        let first = allocate();
        let blocks = store.block_count();
        store.release(first).expect("released");
        opened.index().vacuum_free_space_map();
        assert_eq!((allocate(), store.block_count()), (first, blocks));
    }

    fn fill(byte: u8, segment: u32) -> Box<Page> {
        let mut page = Page::zeroed();
        page.body_mut().fill(byte);
        page.set_tag(Tag::new(segment, Kind::Posting));
        page
    }

    fn write_and_read_reserved_pages(persistence: &str) {
        Spi::run(&format!("CREATE {persistence} TABLE t (v vector(8)); CREATE INDEX t_v_idx ON t USING hybrid (v)"))
            .expect("index");
        let opened = index_of("t_v_idx");
        let store = IndexStore::new(opened.index());
        let given_up: Vec<u32> = (0..3).map(|_| store.reserve(1).expect("room")[0]).collect();
        given_up.iter().for_each(|&block| store.release(block).expect("released"));
        opened.index().vacuum_free_space_map();
        let first_new = store.block_count();
        let blocks = store.reserve(100).expect("room");
        assert!(blocks.is_sorted() && blocks.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(blocks[..3], given_up, "free pages come first");
        assert_eq!(blocks[3..], (first_new..first_new + 97).collect::<Vec<_>>());
        let tags = |store: &IndexStore| -> Vec<_> {
            blocks.iter().map(|&block| store.read(block, |page| page.tag()).expect("there")).collect()
        };
        assert!(tags(&store).iter().all(|tag| *tag == Some(Tag::reserved())));
        // A free page that the map lists although it is reserved is not given to anybody.
        opened.index().record_free_page(blocks[0]);
        opened.index().vacuum_free_space_map();
        let mut unit = store.unit();
        assert!(!blocks.contains(&unit.allocate(Tag::new(7, Kind::Overflow)).expect("room").0));
        drop(unit);
        for (i, &block) in blocks.iter().enumerate() {
            store.write_new(block, &fill(i as u8, 9)).expect("reserved");
        }
        for (i, &block) in blocks.iter().enumerate() {
            assert!(store.read(block, |page| page.body().iter().all(|&b| b == i as u8)).expect("there"));
        }
        assert_eq!(tags(&store), vec![Some(Tag::new(9, Kind::Posting)); 100]);
        assert!(store.write_new(blocks[5], &fill(1, 9)).is_err(), "it is not reserved any more");
        store.log_reuse(store.next_xid()).expect("logged, if there is a log");
    }

    #[pg_test]
    fn reserved_pages_are_kept_and_written() {
        write_and_read_reserved_pages("");
    }

    #[pg_test]
    fn reserved_pages_of_unlogged_indexes() {
        write_and_read_reserved_pages("UNLOGGED");
    }

    #[pg_test]
    fn reserved_pages_of_temporary_indexes() {
        write_and_read_reserved_pages("TEMPORARY");
    }

    #[pg_test]
    fn what_a_running_transaction_may_need_is_not_removable() {
        table_with_index(10, "");
        let opened = index_of("t_v_idx");
        let table = OpenTable::open(opened.table());
        for store in [IndexStore::new(opened.index()), IndexStore::with_table(opened.index(), &table)] {
            assert!(!store.is_removable(store.next_xid()));
            assert!(store.is_removable(3), "the first normal transaction is long over");
        }
    }

    #[pg_test]
    fn maintenance_lock_is_one_for_all() {
        table_with_index(10, "");
        let opened = index_of("t_v_idx");
        let held = Maintenance::try_acquire(opened.index()).expect("free");
        assert!(!held.is_wanted());
        let locks =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'page' AND relation = 't_v_idx'::regclass AND page = 0";
        assert_eq!(value::<i64>(locks), 1);
        drop(held);
        assert_eq!(value::<i64>(locks), 0);
    }

    #[pg_test]
    fn hints_of_old_storage_do_no_harm() {
        table_with_index(3000, "");
        let nearest = "SELECT array_agg(id) FROM (SELECT id FROM t ORDER BY v <-> '[1,0,0,0,0,0,0,0]' LIMIT 5) s";
        Spi::run("SET LOCAL enable_seqscan = off").expect("set");
        let before = value::<Vec<i32>>(nearest);
        Spi::run("REINDEX INDEX t_v_idx").expect("reindex");
        assert_eq!(value::<Vec<i32>>(nearest), before);
        Spi::run("TRUNCATE t").expect("truncate");
        assert_eq!(
            value::<i64>("SELECT count(*) FROM (SELECT id FROM t ORDER BY v <-> '[1,0,0,0,0,0,0,0]' LIMIT 5) s"),
            0
        );
    }

    #[pg_test]
    fn memory_beyond_the_budget_lies_in_a_file() {
        let mut arena = BuildArena::new(1 << 20);
        let near = arena.bytes(600 << 10).expect("memory");
        let mut far = arena.bytes(600 << 10).expect("file");
        assert!(arena.spilled() >= 600 << 10, "{} bytes spilled", arena.spilled());
        assert!(near.iter().all(|&b| b == 0) && far.iter().all(|&b| b == 0));
        far[599 << 10] = 42;
        let words = arena.words(1 << 18).expect("file");
        words[1000].store(7, Relaxed);
        assert_eq!((far[599 << 10], words[1000].load(Relaxed), words[1001].load(Relaxed)), (42, 7, 0));
    }

    #[pg_test]
    fn changed_settings_are_changed_back() {
        let inside = with_settings(&[(c"enable_seqscan", c"off")], || value::<String>("SHOW enable_seqscan"));
        assert_eq!((inside.as_str(), value::<String>("SHOW enable_seqscan").as_str()), ("off", "on"));
    }

    /// Segments of an index as an archive has them.
    #[derive(Clone)]
    enum Kept {
        Graph(GraphHeader, Vec<GraphElement>),
        Lists(ListsHeader, CentroidCodes, Vec<ListElement>),
    }

    fn archive(index: &str) -> (Fit, Vec<Kept>) {
        let opened = index_of(index);
        let (table, store) = (OpenTable::open(opened.table()), IndexStore::new(opened.index()));
        let (meta, directory) = Directory::read(&store).expect("sound");
        let pool = Pool::new();
        let prints = |rows: &[Row]| -> Vec<Fingerprint> {
            let tids: Vec<_> = rows.iter().map(|row| row.tid).collect();
            Hashing::begin(opened.index(), &table, &tids, &pool, |_, _| {}).finish().into_iter().flatten().collect()
        };
        let kept = directory.segments.iter().filter(|s| s.kind != SegmentKind::Pending).map(|segment| {
            if segment.kind == SegmentKind::Hnsw {
                let (reader, mut elements) = (GraphReader::open(&store, &meta, segment).expect("sound"), Vec::new());
                let read: ann::error::Result<()> = reader.each(|e| {
                    elements.push(GraphElement { level: e.level, rows: prints(&e.rows), neighbors: e.neighbors });
                    Ok(())
                });
                read.expect("sound");
                return Kept::Graph(reader.header(), elements);
            }
            let (reader, mut elements) = (ListsReader::open(&store, &meta, segment).expect("sound"), Vec::new());
            let read: ann::error::Result<()> = reader.each(|e| {
                elements.push(ListElement { list: e.list, second: e.second, rows: prints(&e.rows), further: false });
                Ok(())
            });
            read.expect("sound");
            Kept::Lists(reader.header(), reader.centroids().expect("sound"), elements)
        });
        (Fit::of(&meta.parameters), kept.collect())
    }

    fn plan(fit: &Fit, misfit: Misfit, kept: &[Kept]) -> ImportPlan {
        fn source<E: Clone + 'static>(elements: Vec<E>) -> Source<'static, E> {
            Box::new(move |visit| (0..).zip(&elements).try_for_each(|(i, element)| visit(i, element.clone())))
        }
        let segments = kept.iter().cloned().map(|kept| {
            let structure = match kept {
                Kept::Graph(header, elements) => Structure::Graph { header, source: source(elements) },
                Kept::Lists(header, centroids, elements) => {
                    Structure::Lists { header, centroids, source: source(elements) }
                }
            };
            Archived { name: "segment".into(), created: 0, structure }
        });
        ImportPlan::new(fit.clone(), misfit, segments.collect()).expect("sound")
    }

    const NEAREST: &str =
        "SELECT array_agg(id) FROM (SELECT id FROM t ORDER BY v <-> '[0.3,-0.2,0.8,0,0.1,0.4,-0.9,0.5]'
        LIMIT 50) s";

    /// Faults of the index, compared with its table.
    fn faults() -> i64 {
        value("SELECT count(*) FROM hybrid_check('t_v_idx', true)")
    }

    /// Rows that come by way of the index; of a graph a few come too late and are left out.
    fn rows_in_order() -> i64 {
        value("SELECT count(*) FROM (SELECT id FROM t ORDER BY v <-> '[1,0,0,0,0,0,0,0]' LIMIT 1000000) s")
    }

    fn segments() -> String {
        value("SELECT string_agg(kind || ' ' || rows, ', ' ORDER BY id) FROM hybrid_segments('t_v_idx')")
    }

    fn relink(options: &str) {
        table_with_index(4000, options);
        Spi::run("SET LOCAL enable_seqscan = off").expect("set");
        let (fit, kept) = archive("t_v_idx");
        let (before, rows) = (value::<Vec<i32>>(NEAREST), rows_in_order());
        assert!(rows > 3600, "{rows}");
        let reindex = || Spi::run("REINDEX INDEX t_v_idx").expect("reindex");
        // The same rows at the same place.
        let ((), imported) = with_plan(plan(&fit, Misfit::Refuse, &kept), reindex);
        assert_eq!((imported.linked, imported.inserted, imported.dropped), (4000, 0, 0), "{imported:?}");
        assert_eq!((imported.used, imported.refused.len(), faults(), rows_in_order()), (true, 0, 0, rows));
        assert_eq!(value::<Vec<i32>>(NEAREST), before);
        // What is exported now is what was.
        let (_, again) = archive("t_v_idx");
        match (&kept[0], &again[0]) {
            (Kept::Graph(a, b), Kept::Graph(c, d)) => assert!(a == c && b == d),
            (Kept::Lists(a, b, c), Kept::Lists(d, e, f)) => assert!(a == d && b == e && c == f),
            _ => panic!("a segment became one of another kind"),
        }
        // Everywhere else: CLUSTER rewrites the table as VACUUM FULL does, and builds its indexes anew.
        Spi::run("CREATE INDEX t_hash ON t ((id * 7919 % 4001)); CLUSTER t USING t_hash").expect("clustered");
        let ((), imported) = with_plan(plan(&fit, Misfit::Refuse, &kept), reindex);
        assert_eq!((imported.linked, imported.inserted, imported.dropped), (4000, 0, 0), "{imported:?}");
        assert_eq!((faults(), rows_in_order()), (0, rows));
        assert_eq!(value::<Vec<i32>>(NEAREST), before);
        // Versions that this transaction made old are indexed, too: somebody might still see them.
        Spi::run("DELETE FROM t WHERE id % 20 = 1; UPDATE t SET id = -id WHERE id % 7 = 0; CLUSTER t USING t_hash")
            .expect("changed");
        let ((), imported) = with_plan(plan(&fit, Misfit::Refuse, &kept), reindex);
        assert_eq!((imported.linked, faults()), (4000, 0), "{imported:?}");
        // A table with other vectors, without some rows, with new ones.
        Spi::run(
            "CREATE TABLE n AS SELECT abs(id) AS id, CASE WHEN id % 10 = 0
                 THEN (ARRAY(SELECT cos(id * j * 0.53) FROM generate_series(1, 8) j)::real[])::vector(8) ELSE v END AS v
                 FROM t ORDER BY id * 31 % 97;
             INSERT INTO n SELECT id + 10000, v FROM n WHERE id <= 100;
             ALTER TABLE n ALTER v TYPE vector(8);
             DROP TABLE t;
             ALTER TABLE n RENAME TO t",
        )
        .expect("changed");
        let all = value::<i64>("SELECT count(*) FROM t");
        let ((), imported) = with_plan(plan(&fit, Misfit::Refuse, &kept), || {
            Spi::run(&format!("CREATE INDEX t_v_idx ON t USING hybrid (v) {options}")).expect("index");
        });
        assert_eq!(imported.refused, Vec::<String>::new());
        assert_eq!((imported.linked, imported.dropped), (3400, 600), "{imported:?}");
        assert_eq!(imported.linked + imported.inserted, all as u64, "{imported:?}");
        assert_eq!(faults(), 0, "{imported:?}, {}", segments());
        assert!(rows_in_order() * 10 > all * 9);
        let found = value::<Vec<i32>>(NEAREST);
        Spi::run("SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off").expect("set");
        let exact = value::<Vec<i32>>(NEAREST);
        let right = exact.iter().filter(|id| found.contains(id)).count();
        assert!(right >= 45, "{right} of 50 are right");
    }

    #[pg_test]
    fn a_graph_is_relinked() {
        relink("");
    }

    #[pg_test]
    fn lists_are_relinked() {
        relink("WITH (recent_rows = 0)");
    }

    #[pg_test]
    fn memory_that_spills_does_no_harm_to_an_import() {
        Spi::run("SET LOCAL maintenance_work_mem = '1MB'").expect("set");
        relink("");
    }

    #[pg_test]
    fn a_damaged_segment_is_built_the_usual_way() {
        table_with_index(3000, "");
        Spi::run("SET LOCAL enable_seqscan = off").expect("set");
        let (fit, mut kept) = archive("t_v_idx");
        let Kept::Graph(header, elements) = &mut kept[0] else { panic!("a graph") };
        // On a level where hardly any element is: no single pass over the archive tells.
        let ground = elements.iter().position(|e| e.level == 0).expect("some") as u32;
        let high = elements.iter_mut().find(|e| e.level > 0).expect("some");
        high.neighbors[1][0] = ground;
        let rows = header.elements;
        let reindex = || Spi::run("REINDEX INDEX t_v_idx").expect("reindex");
        let ((), imported) = with_plan(plan(&fit, Misfit::Refuse, &kept), reindex);
        assert_eq!((imported.linked, imported.inserted, imported.refused.len()), (0, 3000, 1), "{imported:?}");
        assert_eq!((faults(), segments()), (0, format!("hnsw {rows}")));
    }

    #[pg_test]
    fn a_plan_that_does_not_fit_is_left_aside() {
        table_with_index(500, "");
        let (fit, kept) = archive("t_v_idx");
        let plan = plan(&fit, Misfit::Build, &kept);
        let ((), imported) =
            with_plan(plan, || Spi::run("CREATE INDEX u ON t USING hybrid (v vector_cosine_ops)").expect("index"));
        assert!(!imported.used && imported.refused.len() == 1, "{imported:?}");
    }

    #[pg_test(error = "archive does not fit index \"u\": the archive is of m = 16, the index of m = 12")]
    fn a_plan_that_does_not_fit_is_refused() {
        table_with_index(500, "");
        let (fit, kept) = archive("t_v_idx");
        with_plan(plan(&fit, Misfit::Refuse, &kept), || {
            Spi::run("CREATE INDEX u ON t USING hybrid (v) WITH (m = 12)").expect("index");
        });
    }

    #[pg_test]
    fn a_plan_goes_with_the_error_that_ends_its_build() {
        table_with_index(100, "");
        let (fit, kept) = archive("t_v_idx");
        let plan = plan(&fit, Misfit::Refuse, &kept);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_plan(plan, || {
                assert!(is_waiting());
                std::panic::resume_unwind(Box::new("an ERROR of PostgreSQL"))
            })
        }));
        assert!(unwound.is_err() && !is_waiting());
    }

    #[pg_test]
    fn fingerprints_follow_hot_chains_and_leave_out_what_is_gone() {
        Spi::run("CREATE TABLE t (id int, v vector(2), k int, note int); INSERT INTO t SELECT i, ARRAY[i, 1]::real[]::vector, i % 3 FROM generate_series(1, 50) i")
            .expect("rows");
        Spi::run("CREATE INDEX t_v_idx ON t USING hybrid ((v::vector(2)), k) WHERE id > 5").expect("index");
        let opened = index_of("t_v_idx");
        let table = OpenTable::open(opened.table());
        let tids: Vec<_> = (1..=50).map(|offset| shape::HeapTid { block: 0, offset }).collect();
        let pool = Pool::new();
        let of = |id: i32, k: i64| fingerprint(&[id as f32, 1.0], &Keys::new(&[Some(k)]));
        let all = |changed: &dyn Fn(i32) -> Option<Fingerprint>| -> Vec<_> { (1..=50).map(changed).collect() };
        let found = Hashing::begin(opened.index(), &table, &tids, &pool, |_, _| {}).finish();
        assert_eq!(found, all(&|id| Some(of(id, i64::from(id % 3)))));
        // No column of the index changes: the row goes on under its old TID. Else it has another one.
        Spi::run(
            "UPDATE t SET note = 1 WHERE id = 50; UPDATE t SET v = '[7,7]' WHERE id = 20; DELETE FROM t WHERE id = 30",
        )
        .expect("changed");
        let found = Hashing::begin(opened.index(), &table, &tids, &pool, |_, _| {}).finish();
        let gone = [20, 30];
        assert_eq!(found, all(&|id| (!gone.contains(&id)).then(|| of(id, i64::from(id % 3)))));
    }
}
