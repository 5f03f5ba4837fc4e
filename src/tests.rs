//! Tests that need both a server and what SQL does not show.

#[pgrx::pg_schema]
mod tests {
    use crate::pg::arena::BuildArena;
    use crate::pg::buffer::IndexStore;
    use crate::pg::lock::Maintenance;
    use crate::pg::relation::{OpenIndex, OpenTable};
    use crate::pg::reloptions::Options;
    use crate::pg::settings::with_settings;
    use ann::distance::Metric;
    use ann::hnsw::build::Arena;
    use ann::hnsw::probe::{Probe, Scaling, normalize};
    use ann::index::Directory;
    use ann::page::{Kind, META_BLOCK, Page, PageStore, Tag, Unit};
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
}
