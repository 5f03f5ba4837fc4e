//! Building on several threads, and stopping it.

use crate::data::clustered;
use crate::harness::*;
use ann::distance::Metric;
use ann::error::Error;
use ann::hnsw::build::Stop;
use std::cell::Cell;
use std::time::Duration;

#[test]
fn graphs_built_on_any_number_of_threads_are_sound_and_connected() {
    let parameters = parameters(Metric::L2, 12, 8, 32);
    let rows = clustered(3, 2000, 12);
    for threads in [1, 2, 4] {
        let store = built(&parameters, numbered(&rows), threads);
        assert_sound(&store, &parameters.shape());
        assert!(rows_of(&store, &parameters.shape()).into_iter().eq((0..2000).map(|row| (row, 1))));
        each_segment(&store, &parameters.shape(), |segment| {
            let counts = segment.count()?;
            assert!(counts.unreachable * 1000 < counts.elements, "{threads} threads: {counts:?}");
            // A thread that came down through a node not yet linked below linked its own node to that one only, and
            // nobody linked back: up to one row in fifty was out of reach.
            segment.elements(|slot, e| {
                assert!(e.neighbor_count() > 8, "{threads} threads: element {slot} has {}", e.neighbor_count());
            })
        })
        .expect("sound");
    }
}

#[test]
fn equal_rows_share_an_element_of_a_built_graph() {
    let parameters = parameters(Metric::Cosine, 9, 4, 16);
    let mut rows = clustered(4, 300, 9);
    let popular = rows[0].clone();
    rows[..150].fill(popular);
    let store = built(&parameters, numbered(&rows), 2);
    assert_sound(&store, &parameters.shape());
    each_segment(&store, &parameters.shape(), |segment| {
        let counts = segment.count()?;
        assert_eq!((counts.rows, counts.elements), (300, 151));
        Ok(())
    })
    .expect("sound");
    // Inserts go on where the build ended: full chunks, a full last page, levels.
    (300..360).for_each(|row| insert(&store, &parameters, row, &rows[row as usize % 300]).expect("sound"));
    assert_sound(&store, &parameters.shape());
    assert!(rows_of(&store, &parameters.shape()).into_iter().eq((0..360).map(|row| (row, 1))));
}

#[test]
fn a_built_graph_of_no_or_one_row_takes_inserts() {
    let parameters = parameters(Metric::L2, 9000, 2, 8);
    let rows = clustered(5, 6, 9000);
    for n in [0, 1] {
        let store = built(&parameters, numbered(&rows[..n]), 2);
        (n..6).for_each(|row| insert(&store, &parameters, row as u32, &rows[row]).expect("sound"));
        assert_sound(&store, &parameters.shape());
        assert!(rows_of(&store, &parameters.shape()).into_iter().eq((0..6).map(|row| (row, 1))));
    }
}

#[test]
fn a_cancelled_build_says_so_and_leaves_no_thread_behind() {
    let parameters = parameters(Metric::L1, 16, 8, 64);
    let rows = clustered(6, 3000, 16);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let (graph, _) = graph(&parameters, numbered(&rows));
    let stop = Stop::new();
    let seen = Cell::new(0);
    let result = graph.link_all((&pool, 2), &stop, |done| {
        seen.set(done);
        if done > 300 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert_eq!(result, Err(Error::Stopped));
    assert!(seen.get() < 3000, "the build ended before it was cancelled");
    let start = std::time::Instant::now();
    stop.stop_and_wait(Duration::from_secs(60));
    assert!(start.elapsed() < Duration::from_secs(30), "threads are still running");
    let links = |node| {
        let mut out = Vec::new();
        graph.neighbors(node, 0, &mut out);
        out
    };
    let before: Vec<_> = (0..3000).map(links).collect();
    std::thread::sleep(Duration::from_millis(20));
    assert!(before.into_iter().eq((0..3000).map(links)), "somebody still links");
    assert_eq!(pool.install(|| 7), 7, "the pool is of use");
}

#[test]
fn a_panic_of_the_leader_joins_the_threads() {
    let parameters = parameters(Metric::L2, 16, 8, 64);
    let rows = clustered(6, 2000, 16);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let (graph, _) = graph(&parameters, numbered(&rows));
    let stop = Stop::new();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        graph.link_all((&pool, 2), &stop, |_| std::panic::resume_unwind(Box::new("an ERROR of PostgreSQL")))
    }));
    assert!(unwound.is_err());
    assert_eq!(pool.install(|| 7), 7, "the pool is of use");
}

/// A build stopped from outside, as when the backend exits, was reported as done.
#[test]
fn a_build_stopped_from_outside_is_not_taken_for_a_whole_one() {
    let parameters = parameters(Metric::L2, 16, 8, 64);
    let rows = clustered(8, 3000, 16);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let (graph, _) = graph(&parameters, numbered(&rows));
    let stop = Stop::new();
    let result = graph.link_all((&pool, 2), &stop, |_| {
        stop.stop_and_wait(Duration::from_secs(60));
        Ok(())
    });
    assert_eq!(result, Err(Error::Stopped));
}
