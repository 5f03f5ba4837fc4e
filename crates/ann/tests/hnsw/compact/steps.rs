//! Each step alone: what is due when, and a crash after any unit of it.

use super::*;

#[test]
fn inserts_append_to_a_pending_list_and_ask_for_a_flush() {
    let case = Case::new(pending(Metric::L2, 20, 30), 600);
    let store = case.store(0);
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true)], "no page is spent on a list before a row comes");
    for i in 0..600 {
        let before = store.commits();
        let backlog = case.insert(&Strict::new(&store), i..i + 1);
        assert!(i == 0 || store.commits() - before == 1, "row {i} took {} units", store.commits() - before);
        let expected = if i + 1 < 30 { Backlog::Small } else { Backlog::Due };
        assert!(backlog == expected || i + 1 >= 480 && backlog == Backlog::Full, "row {i}: {backlog:?}");
    }
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true), (SegmentKind::Pending, true)]);
    case.assert_rows(&store, 0..600);
    // Full is told once a page: whoever can does something about it.
    let per_page = case.shape().without_neighbors().element.per_page as usize;
    let mut rows = Case::new(pending(Metric::L2, 20, 30), 800);
    rows.rows.truncate(800);
    let full = (600..800).filter(|&i| rows.insert(&store, i..i + 1) == Backlog::Full).count();
    assert_eq!(full, (600..800).filter(|i| i % per_page == 0).count());
    assert!(full > 0);
}

#[test]
fn a_relieving_insert_moves_as_many_rows_as_it_has_patience_for() {
    let case = Case::new(pending(Metric::L2, 20, 10), 200);
    let store = case.store(200);
    let report = relieve(&Strict::new(&store), &Helper::impatient(0, 8)).expect("sound").expect("something was done");
    assert_eq!((report.rows, report.inputs.len()), (7, 0));
    case.assert_rows(&store, 0..200);
    let report = relieve(&Strict::new(&store), &Helper::at(0)).expect("sound").expect("something was done");
    assert_eq!((report.rows, report.inputs.len()), (193, 1));
    case.assert_rows(&store, 0..200);
    assert_eq!(relieve(&store, &Helper::at(0)), Ok(None), "nothing is left to do");
}

#[test]
fn a_flush_may_crash_at_any_unit() {
    for parameters in [
        pending(Metric::Cosine, 300, 20),
        Parameters { segment_rows: 8, ..pending(Metric::L2, 600, 20) },
        Parameters { segment_rows: 4, ..pending(Metric::L1, 9000, 12) },
        by_age(40, 20),
    ] {
        let case = Case::new(parameters, 61);
        let rows = case.parameters.pending_rows as usize;
        // Into an empty graph, then into one that has rows already.
        let store = case.store(rows);
        case.crash_everywhere(&store, rows, 0, Action::Flush);
        compact(&store, 0).expect("sound");
        case.insert(&store, rows..3 * rows);
        case.crash_everywhere(&store, 3 * rows, 0, Action::Flush);
    }
}

/// Rows of a pending list are committed: searches must find them at any moment of the move, also after a crash.
#[test]
fn a_row_leaves_the_list_only_when_paths_lead_to_it_in_the_graph() {
    // Lists with room for all, so none is out of reach because of others.
    let parameters = Parameters { m: 16, ..pending(Metric::L2, 300, 10) };
    let case = Case::distinct(parameters, 30);
    let start = case.store(25);
    let step = due(&start, 0).expect("sound").expect("due");
    for units in 0.. {
        let store = start.clone();
        store.stop_after(units);
        let result = run(&Strict::new(&store), &step, &Helper::at(0));
        store.restart();
        let mut rows = 0;
        each_segment(&store, &case.shape(), |segment| {
            let counts = segment.count()?;
            let is_graph = segment.shape.m > 0;
            assert!(!is_graph || counts.unreachable == 0, "after {units} units");
            rows += counts.rows;
            Ok(())
        })
        .expect("sound");
        assert_eq!(rows, 25);
        if result.is_ok() {
            return;
        }
    }
}

#[test]
fn a_flush_of_old_rows_builds_an_old_partition_and_may_crash_at_any_unit() {
    let case = Case::new(by_age(40, 40), 61);
    let (store, now) = (case.store(40), 100 * DAY);
    assert_eq!(due(&store, now).expect("sound").expect("due").target(), Some(SegmentKind::Ivf));
    assert_eq!(
        due(&store, 20 * DAY).expect("sound").expect("due").target(),
        Some(SegmentKind::Hnsw),
        "half are recent"
    );
    case.crash_everywhere(&store, 40, now, Action::Flush);
    compact(&store, now).expect("sound");
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true), (SegmentKind::Ivf, false), (SegmentKind::Pending, true)]);
}

#[test]
fn a_large_backlog_goes_into_a_segment_of_its_own() {
    for (threshold, target) in [(i64::MAX, SegmentKind::Hnsw), (DAY, SegmentKind::Ivf)] {
        let parameters = Parameters { recent_threshold: threshold, ..pending(Metric::L2, 4, 1000) };
        let case = Case::new(parameters, 4200);
        let store = case.store(4200);
        let step = due(&store, 0).expect("sound").expect("due");
        assert_eq!((step.action(), step.target()), (Action::Flush, Some(target)));
        let report = run(&Strict::new(&store), &step, &Helper::at(0)).expect("sound").expect("done");
        assert_eq!((report.rows, report.inputs.len()), (4200, 1));
        assert!(kinds(&store).contains(&(target, false)));
        case.assert_rows(&store, 0..4200);
    }
}

#[test]
fn graphs_that_are_old_migrate_and_may_crash_at_any_unit() {
    let case = Case::distinct(by_age(40, 10), 81);
    let store = graphs(&case, &[0..30, 30..60, 60..80]);
    let now = 45 * DAY;
    let step = due(&store, now).expect("sound").expect("due");
    let oldest = Directory::read(&store).expect("sound").1.segments[0].id;
    assert_eq!((step.action(), step.inputs(), step.target()), (Action::Migrate, &[oldest][..], Some(SegmentKind::Ivf)));
    case.crash_everywhere(&store, 80, now, Action::Migrate);
    compact(&store, now).expect("sound");
    let partitions = kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count();
    assert_eq!((partitions, kinds(&store).len()), (1, 5));
    // 95 of 100 rows old are enough: rows from the future do not keep the others back.
    assert!(due(&store, 68 * DAY).expect("sound").is_none());
    assert_eq!(due(&store, 69 * DAY + 1).expect("sound").map(|s| s.action()), Some(Action::Migrate));
}

#[test]
fn graphs_beyond_the_newest_rows_migrate() {
    let parameters = Parameters { recent_threshold: 1, recent_rows: 40, ..pending(Metric::L2, 8, 10) };
    let case = Case::distinct(parameters, 100);
    let store = graphs(&case, &[0..30, 30..60, 60..80]);
    let ids: Vec<u32> = Directory::read(&store).expect("sound").1.segments.iter().map(|s| s.id).collect();
    assert_eq!(due(&store, 0).expect("sound").expect("due").inputs(), [ids[0]], "50 rows are newer");
    compact(&store, 0).expect("sound");
    case.assert_rows(&store, 0..80);
    assert_eq!(kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 1);
}

#[test]
fn nothing_stays_in_graphs_where_no_row_is_recent() {
    let parameters = Parameters { recent_rows: 0, recent_threshold: 1, ..pending(Metric::L2, 8, 10) };
    let case = Case::new(parameters, 60);
    let store = case.store(0);
    for i in 0..6 {
        case.insert(&store, i * 10..i * 10 + 10);
        compact(&store, 0).expect("sound");
    }
    case.assert_rows(&store, 0..60);
    let kinds = kinds(&store);
    assert!(kinds.iter().all(|k| k.0 == SegmentKind::Ivf || k.1), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 3, "of six four were merged");
}

#[test]
fn many_graphs_are_merged_and_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::InnerProduct, 40, 10), 91);
    let ranges: Vec<_> = (0..7).map(|i| i * 10..i * 10 + 10).collect();
    let store = graphs(&case, &ranges);
    case.crash_everywhere(&store, 70, 0, Action::Merge);
    compact(&store, 0).expect("sound");
    assert_eq!(kinds(&store).iter().filter(|k| **k == (SegmentKind::Hnsw, false)).count(), 1);
}

#[test]
fn partitions_are_merged_within_their_interval_and_may_crash_at_any_unit() {
    let case = Case::new(Parameters { partition_interval: 30 * DAY, ..by_age(40, 10) }, 121);
    let store = case.store(0);
    let now = 1000 * DAY;
    let mut merged = 0;
    for i in 0..9 {
        case.insert(&store, i * 8..i * 8 + 10 - 2);
        relieve(&store, &Helper::at(0)).expect("sound");
        let (meta, directory) = Directory::read(&store).expect("sound");
        ann::index::seal(&store, &meta, &directory, 0).expect("sound");
        while let Some(step) = due(&store, now).expect("sound") {
            if step.action() == Action::Merge && merged == 0 {
                case.crash_everywhere(&store, i * 8 + 8, now, Action::Merge);
            }
            merged += usize::from(step.action() == Action::Merge);
            run(&store, &step, &Helper::at(now)).expect("sound");
        }
    }
    // Rows 24 to 31 and 56 to 63 cross an interval's border: five of nine segments do not.
    assert_eq!(merged, 0, "no interval has four segments of its own");
    case.assert_rows(&store, 0..72);
    let case = Case::new(Parameters { partition_interval: i64::MAX, ..case.parameters }, 121);
    let store = case.store(0);
    for i in 0..4 {
        case.insert(&store, i * 8..i * 8 + 8);
        relieve(&store, &Helper::at(0)).expect("sound");
        let (meta, directory) = Directory::read(&store).expect("sound");
        ann::index::seal(&store, &meta, &directory, 0).expect("sound");
        while let Some(step) = due(&store, now).expect("sound").filter(|s| s.action() != Action::Merge) {
            run(&store, &step, &Helper::at(now)).expect("sound");
        }
    }
    case.crash_everywhere(&store, 32, now, Action::Merge);
    compact(&store, now).expect("sound");
    assert_eq!(kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 1);
}

#[test]
fn a_segment_of_dead_rows_is_cleaned_up_and_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::L2, 40, 10), 81);
    let store = graphs(&case, &[0..60, 60..80]);
    vacuum(&store, &case.shape(), |row| (20..60).contains(&row)).expect("sound");
    assert_eq!(due(&store, 0).expect("sound").map(|s| s.action()), Some(Action::CleanUp));
    let live = || (0..20).chain(60..80);
    let step = due(&store, 0).expect("sound").expect("due");
    for units in 0.. {
        let crashed = store.clone();
        crashed.stop_after(units);
        let result = run(&Strict::new(&crashed), &step, &Helper::at(0));
        crashed.restart();
        case.assert_rows(&crashed, live());
        case.release_all(&crashed, 0);
        case.assert_rows(&crashed, live());
        if result.is_ok() {
            break;
        }
    }
    vacuum(&store, &case.shape(), |_| true).expect("sound");
    case.release_all(&store, 0);
    case.assert_rows(&store, []);
    assert_eq!(kinds(&store), [(SegmentKind::Pending, true), (SegmentKind::Hnsw, true)], "what is empty goes");
}

#[test]
fn pages_wait_for_whoever_may_read_them_and_giving_them_up_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::Cosine, 9000, 6), 41);
    let store = graphs(&case, &[0..6, 6..12, 12..18, 18..24, 24..30, 30..36, 36..40]);
    store.set_xids(50, 20);
    compact(&store, 0).expect("sound");
    let dropped = Directory::read(&store).expect("sound").1.dropped;
    assert!(dropped.len() >= 4 && dropped.iter().all(|d| d.safexid == 10 || d.safexid == 50), "{dropped:?}");
    let pages = store.block_count();
    assert!(due(&store, 0).expect("sound").is_none(), "somebody of before the flip may still read");
    store.set_xids(60, 51);
    case.crash_everywhere(&store, 40, 0, Action::Free);
    for units in 0.. {
        let crashed = store.clone();
        crashed.stop_after(units);
        let result = compact(&crashed, 0);
        crashed.restart();
        compact(&crashed, 0).expect("goes on");
        // Without a VACUUM.
        assert_no_page_lost(&crashed, true);
        if result.is_ok() {
            break;
        }
    }
    let step = due(&store, 0).expect("sound").expect("due");
    run(&store, &step, &Helper::at(0)).expect("sound");
    assert_eq!(store.told().last(), Some(&50), "standbys are told before pages are used again");
    assert_no_page_lost(&store, false);
    // The pages are used again.
    case.insert(&store, 40..41);
    relieve(&store, &Helper::at(0)).expect("sound");
    assert!(store.block_count() <= pages + 1, "{} pages, {pages} before", store.block_count());
}

#[test]
fn any_number_of_dropped_segments_may_wait() {
    let case = Case::new(pending(Metric::L2, 8, 2), 700);
    let store = case.store(0);
    // Somebody has been reading from before the first row on.
    for i in 0..300 {
        case.insert(&store, i * 2..i * 2 + 2);
        store.set_xids(10 + i as u64, 10);
        compact(&store, 0).expect("sound");
    }
    case.assert_rows(&store, 0..600);
    let (_, directory) = Directory::read(&store).expect("sound");
    assert!(directory.dropped.len() < 20 && directory.has_room(), "{} wait", directory.dropped.len());
    let known = Known::read(&store).expect("sound");
    let orphans = (1..store.block_count())
        .filter(|&b| store.read(b, |p| p.tag()).expect("in range").is_some_and(|tag| known.is_orphan(tag)));
    assert_eq!(orphans.count(), 0, "dropped segments are not taken for orphans");
    store.set_xids(5000, 4000);
    case.crash_everywhere(&store, 600, 0, Action::Free);
    compact(&store, 0).expect("sound");
    assert_eq!(Directory::read(&store).expect("sound").1.dropped, []);
    assert_no_page_lost(&store, false);
}

/// A flush is due at each plan.
#[test]
fn a_stream_of_inserts_does_not_keep_merges_from_being_done() {
    let case = Case::distinct(Parameters { recent_rows: 0, recent_threshold: 1, ..pending(Metric::L2, 3, 2) }, 300);
    let store = case.store(0);
    let mut merges = 0;
    for i in 0..150 {
        case.insert(&store, 2 * i..2 * i + 2);
        let step = due(&store, 0).expect("sound").expect("due");
        merges += usize::from(step.action() == Action::Merge);
        run(&store, &step, &Helper::at(0)).expect("sound");
    }
    assert!(merges > 9 && kinds(&store).len() < 40, "{merges} merges, {} segments", kinds(&store).len());
    case.assert_rows(&store, 0..300);
}

#[test]
fn ten_thousand_intervals_do_not_fill_the_directory() {
    let case = Case::distinct(Parameters { partition_interval: DAY / 10, ..by_age(3, 1) }, 160);
    let store = case.store(0);
    for i in 0..160 {
        case.insert(&store, i..i + 1);
        store.set_xids(10 + i as u64, 10 + i as u64);
        compact(&store, 1000 * DAY).expect("sound");
    }
    case.assert_rows(&store, 0..160);
    assert!(kinds(&store).len() <= 102, "{} segments", kinds(&store).len());
    let summary = |s| Head::read(&store, s).expect("sound").summary.expect("kept").column(0);
    let (_, directory) = Directory::read(&store).expect("sound");
    let partitions = directory.segments.iter().filter(|s| s.kind == SegmentKind::Ivf);
    // Neighbors in time were merged: no two overlap.
    let mut ranges: Vec<(i64, i64)> = partitions.map(|s| (summary(s).min, summary(s).max)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0), "{ranges:?}");
}

#[test]
fn vacuum_finds_the_pages_of_a_segment_that_was_never_finished() {
    let case = Case::new(by_age(40, 40), 41);
    let (store, now) = (case.store(40), 100 * DAY);
    let step = due(&store, now).expect("sound").expect("due");
    store.stop_after(6);
    assert_eq!(run(&store, &step, &Helper::at(now)), Err(Error::Stopped));
    store.restart();
    let orphans = || {
        let known = Known::read(&store).expect("sound");
        let tags = (1..store.block_count()).filter_map(|b| store.read(b, |p| p.tag()).expect("in range"));
        tags.filter(|&tag| known.is_orphan(tag)).count()
    };
    assert!(orphans() > 0, "the crash came too early");
    free_pages(&store);
    assert_eq!(orphans(), 0);
    case.assert_rows(&store, 0..40);
    case.release_all(&store, now);
    case.assert_rows(&store, 0..40);
}

#[test]
fn a_step_gives_way_at_any_time() {
    let case = Case::new(by_age(40, 40), 41);
    let store = case.store(40);
    for now in [0, 100 * DAY] {
        let step = due(&store, now).expect("sound").expect("due");
        let mut done = false;
        for patience in 1.. {
            let store = store.clone();
            let report = run(&Strict::new(&store), &step, &Helper::impatient(now, patience)).expect("sound");
            case.assert_rows(&store, 0..40);
            done = report.is_some_and(|r| !r.inputs.is_empty());
            if done || patience > 10_000 {
                break;
            }
        }
        assert!(done, "never had enough patience");
    }
}

#[test]
fn the_history_tells_what_was_done() {
    let case = Case::new(by_age(40, 10), 200);
    let store = case.store(20);
    assert_eq!(history(&store), Ok(Vec::new()));
    let mut reports = compact(&store, 0).expect("sound");
    assert_eq!(history(&store).expect("sound"), reports);
    case.insert(&store, 20..40);
    reports.extend(compact(&store, 1000 * DAY).expect("sound"));
    let kept = history(&store).expect("sound");
    assert_eq!(kept, reports);
    assert_eq!(kept.last().expect("some").action, Action::Flush);
}
