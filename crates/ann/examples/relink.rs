//! Archives the graph and the lists of one of the vector sets and makes them again of some of the rows: CPU time and
//! recall beside those of a build.
//!
//! `cargo run --release -p ann --example relink -- DIR METRIC PERCENT...`, where DIR holds `base.f16` and `queries.f32`,
//! METRIC is `cos` or `l2`, and PERCENT of the rows are left out.

use ann::distance::{Metric, kernels};
use ann::hnsw::build::{Graph, HeapArena, Stop};
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{self, Head, Meta, Parameters, SegmentEntry, SegmentKind};
use ann::ivf::kmeans::Work;
use ann::ivf::write::Plan;
use ann::keys::{Filter, Keys, Row};
use ann::memory::MemoryStore;
use ann::relink::{
    CentroidCodes, Fingerprints, Gathered, GraphElement, GraphHeader, GraphReader, Links, ListElement, ListsHeader,
    ListsReader, Mapping, assignment, fingerprint,
};
use ann::shape::HeapTid;
use ann::sq8;
use half::f16;
use std::time::{Duration, Instant};

const K: usize = 10;
const THREADS: usize = 2;

/// An index of one segment.
struct Built {
    store: MemoryStore,
    entry: SegmentEntry,
    meta: Meta,
}

/// Which rows, and how they are compared.
struct Table<'a> {
    parameters: Parameters,
    base: &'a [f32],
    kept: Vec<u32>,
}

/// Seconds of CPU that this process used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

fn with_work<T>(run: impl FnOnce(&mut Work) -> T) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    };
    run(&mut Work { pool: &pool, threads: THREADS, stop: &Stop::new(), poll: &mut poll })
}

impl Table<'_> {
    fn vector(&self, row: u32) -> &[f32] {
        &self.base[row as usize * self.parameters.dimensions..][..self.parameters.dimensions]
    }

    fn encoded(&self, mut each: impl FnMut(u32, &sq8::Params, &[u8])) {
        let mut code = vec![0; self.parameters.dimensions];
        for &row in &self.kept {
            let vector = normalize(self.parameters.metric, self.vector(row)).expect("no zero vectors");
            let params = sq8::encode(&vector, &mut code);
            each(row, &params, &code);
        }
    }

    /// Rows as a build gathers them.
    fn rows(&self) -> Rows<HeapArena> {
        let mut rows = Rows::new(self.parameters.dimensions, 0);
        self.encoded(|row, params, code| _ = rows.push(&mut HeapArena, params, code, &row_of(row)).expect("fits"));
        rows
    }

    /// Rows as an import gathers them.
    fn claimed(&self, prints: &[(u32, [u8; 16])], elements: u32) -> (Rows<HeapArena>, Mapping) {
        let mut table = Fingerprints::default();
        prints.iter().for_each(|(ordinal, print)| table.add(0, *ordinal, *print).expect("room"));
        table.sort().expect("room");
        let mut gathered = Gathered::new(self.parameters.dimensions, 0);
        self.encoded(|row, params, code| {
            let print = fingerprint(self.vector(row), &Keys::default());
            assert!(table.claim(&print, gathered.len() as u32), "every row was archived");
            gathered.push(&mut HeapArena, params, code, &row_of(row)).expect("fits");
        });
        gathered.segment(&table.finish(), elements, &mut HeapArena).expect("fits")
    }

    fn write(
        &self,
        kind: SegmentKind,
        pages: usize,
        emit: impl FnOnce(&[u32], &mut dyn FnMut(&ann::page::Page)),
    ) -> Built {
        let store = MemoryStore::new();
        index::empty_index(&self.parameters, 0)[..2].iter().for_each(|page| _ = store.append(page));
        let blocks: Vec<u32> = (2..).take(pages).collect();
        emit(&blocks, &mut |page| _ = store.append(page));
        let meta = Meta::read(&store).expect("sound");
        Built { entry: SegmentEntry { id: 1, kind, active: false, head: 2, created: 0 }, store, meta }
    }

    fn write_graph(&self, graph: &Graph<HeapArena>, rows: &ann::hnsw::layout::RowLists) -> Built {
        let shape = self.parameters.shape();
        self.write(SegmentKind::Hnsw, pages_needed(graph, rows, &shape), |blocks, append| {
            let emit = |_, page: &_| {
                append(page);
                Ok(())
            };
            write_segment(graph, rows, &shape, (1, blocks), &Head::new(0), emit).expect("fits");
        })
    }

    fn write_lists(&self, plan: &Plan<HeapArena>, work: &mut Work) -> Built {
        self.write(SegmentKind::Ivf, plan.pages_needed(), |blocks, append| {
            let emit = |_, page: &_| {
                append(page);
                Ok(())
            };
            plan.write((1, blocks), &Head::new(0), work, emit).expect("fits");
        })
    }

    fn build_graph(&self) -> Built {
        let (codes, rows) = self.rows().finish();
        let parameters = &self.parameters;
        let graph =
            Graph::new(&mut HeapArena, &parameters.shape(), parameters.ef_construction, codes, 1).expect("fits");
        with_work(|work| graph.link_all((work.pool, THREADS), work.stop, |_| (work.poll)(0))).expect("not stopped");
        self.write_graph(&graph, &rows)
    }

    fn import_graph(&self, header: &GraphHeader, elements: &[GraphElement]) -> Built {
        let parameters = &self.parameters;
        let prints: Vec<_> =
            (0..).zip(elements).flat_map(|(o, e)| e.rows.iter().map(move |print| (o, *print))).collect();
        let (rows, mapping) = self.claimed(&prints, header.elements);
        let mut source: ann::relink::Source<GraphElement> =
            Box::new(|visit| (0..).zip(elements).try_for_each(|(ordinal, element)| visit(ordinal, element.clone())));
        let links = Links::read(&mut HeapArena, &parameters.shape(), header, &mut source).expect("sound");
        let (codes, rows) = rows.finish();
        let settings = (&parameters.shape(), parameters.ef_construction, 1);
        let graph = with_work(|work| {
            Graph::from_structure(&mut HeapArena, settings, codes, (&links, &mapping), work).expect("not stopped")
        });
        self.write_graph(&graph, &rows)
    }

    fn build_lists(&self) -> Built {
        let (codes, rows) = self.rows().finish();
        let shape = self.parameters.shapes().flat;
        with_work(|work| {
            let plan = Plan::new((&codes, &rows, &shape), 0, 1, work).expect("not stopped");
            self.write_lists(&plan, work)
        })
    }

    fn import_lists(&self, header: &ListsHeader, centroids: &CentroidCodes, elements: &[ListElement]) -> Built {
        let prints: Vec<_> =
            (0..).zip(elements).flat_map(|(o, e)| e.rows.iter().map(move |print| (o, *print))).collect();
        let (rows, mapping) = self.claimed(&prints, header.elements);
        let mut source: ann::relink::Source<ListElement> =
            Box::new(|visit| (0..).zip(elements).try_for_each(|(ordinal, element)| visit(ordinal, element.clone())));
        let assigned = assignment(header, &mut source, &mapping).expect("sound");
        let (codes, rows) = rows.finish();
        let shape = self.parameters.shapes().flat;
        with_work(|work| {
            let plan = Plan::from_structure((&codes, &rows, &shape), centroids, assigned, work).expect("sound");
            self.write_lists(&plan, work)
        })
    }

    /// Rows nearest to each query.
    fn truth(&self, queries: &[f32]) -> Vec<Vec<u32>> {
        let metric = self.parameters.metric;
        let all: Vec<_> = self.kept.iter().map(|&row| normalize(metric, self.vector(row)).expect("not zero")).collect();
        let nearest = |query: &[f32]| {
            let query = normalize(metric, query).expect("not zero");
            let distances = all.iter().zip(&self.kept).map(|(row, &id)| ((kernels().l2_squared)(&query, row), id));
            let mut distances: Vec<(f32, u32)> = distances.collect();
            distances.select_nth_unstable_by(K - 1, |a, b| a.0.total_cmp(&b.0));
            distances[..K].iter().map(|d| d.1).collect()
        };
        queries.chunks(self.parameters.dimensions).map(nearest).collect()
    }

    fn recall(&self, built: &Built, queries: &[f32], truth: &[Vec<u32>], (ef_search, probes): (usize, usize)) -> f64 {
        let (shapes, mut found) = (self.parameters.shapes(), 0);
        let limits = Limits { ef_search, memory: 64 << 20, max_tuples: 0, probes };
        for (query, truth) in queries.chunks(self.parameters.dimensions).zip(truth) {
            let probe = Probe::of_query(self.parameters.metric, query).expect("not zero");
            let mut scan = Scan::new(Some(probe), Filter::none(), &[built.entry], limits);
            for _ in 0..K {
                let hit = scan.next(&built.store, &shapes).expect("sound").expect("enough rows");
                found += usize::from(truth.contains(&hit.tid.block));
            }
        }
        found as f64 / (K * truth.len()) as f64
    }
}

fn row_of(row: u32) -> Row {
    Row::of_tid(HeapTid { block: row, offset: 1 })
}

fn timed<T>(make: impl FnOnce() -> T) -> (T, f64, Duration) {
    let (before, start) = (cpu(), Instant::now());
    let made = make();
    (made, cpu() - before, start.elapsed())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, metric, percents @ ..] = args.as_slice() else { panic!("arguments: DIR METRIC PERCENT...") };
    let metric = if metric == "cos" { Metric::Cosine } else { Metric::L2 };
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).expect(name);
    let queries: Vec<f32> = read("queries.f32").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let base: Vec<f32> = read("base.f16").chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let truth_len =
        std::fs::metadata(format!("{dir}/gt_cos.i32")).or_else(|_| std::fs::metadata(format!("{dir}/gt_l2.i32")));
    let dimensions = queries.len() / (truth_len.expect("a truth").len() as usize / 400);
    let parameters = Parameters {
        metric,
        dimensions,
        m: 16,
        ef_construction: 64,
        segment_rows: u64::MAX,
        recent_rows: 0,
        pending_rows: 0,
        lists: 0,
        recent_threshold: i64::MAX,
        partition_interval: i64::MAX,
        rerank: 0,
        keys: 0,
        age_key: None,
    };
    let rows = (base.len() / dimensions) as u32;
    let all = Table { parameters, base: &base, kept: (0..rows).collect() };
    let of =
        |rows: &[Row]| rows.iter().map(|row| fingerprint(all.vector(row.tid.block), &row.keys)).collect::<Vec<_>>();
    let (graph, cpu, _) = timed(|| all.build_graph());
    println!("{rows} rows; a graph is built in {cpu:.1} s of CPU");
    let (lists, cpu, _) = timed(|| all.build_lists());
    println!("lists are built in {cpu:.1} s of CPU");
    let ((graph_header, elements), cpu, _) = timed(|| {
        let (reader, mut elements) =
            (GraphReader::open(&graph.store, &graph.meta, &graph.entry).expect("sound"), vec![]);
        let read: ann::error::Result<()> = reader.each(|e| {
            elements.push(GraphElement { level: e.level, rows: of(&e.rows), neighbors: e.neighbors });
            Ok(())
        });
        read.expect("sound");
        (reader.header(), elements)
    });
    println!("the graph is read, with fingerprints, in {cpu:.2} s");
    let reader = ListsReader::open(&lists.store, &lists.meta, &lists.entry).expect("sound");
    let mut listed = vec![];
    let read: ann::error::Result<()> = reader.each(|e| {
        listed.push(ListElement { list: e.list, second: e.second, rows: of(&e.rows), further: false });
        Ok(())
    });
    read.expect("sound");
    let (lists_header, centroids) = (reader.header(), reader.centroids().expect("sound"));
    for percent in percents.iter().map(|p| p.parse::<u32>().expect("a number")) {
        let kept =
            (0..rows).filter(|row| row.wrapping_mul(0x9E37_79B1) >> 7 & 0xFFFF >= percent * 65536 / 100).collect();
        let table = Table { parameters: all.parameters.clone(), base: &base, kept };
        let truth = table.truth(&queries);
        for (name, (built, build_cpu, _), (imported, import_cpu, _)) in [
            ("graph", timed(|| table.build_graph()), timed(|| table.import_graph(&graph_header, &elements))),
            ("lists", timed(|| table.build_lists()), timed(|| table.import_lists(&lists_header, &centroids, &listed))),
        ] {
            print!("{percent:2} % left out, {name}: built in {build_cpu:.1} s, imported in {import_cpu:.1} s; recall");
            for ef in [20, 40, 80] {
                let recall = |built| table.recall(built, &queries, &truth, (ef, 0));
                print!("  {ef}: {:.4} / {:.4}", recall(&built), recall(&imported));
            }
            println!();
        }
    }
}
