//! Scans: `ORDER BY vector <-> query`, as many rows as the executor asks for.

use super::{check_keys, or_raise};
use crate::guc;
use crate::pg::buffer::IndexStore;
use crate::pg::relation::Index;
use crate::pg::reloptions::Options;
use crate::pg::settings::hash_memory;
use ann::hnsw::probe::Probe;
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{Directory, Shapes};
use ann::keys::Filter;
use ann::shape::HeapTid;

/// What is known of a row's distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// The executor computes it and puts rows in order.
    AtLeast(f64),
    /// Cosine distance to a zero vector.
    NotANumber,
    /// Distance to NULL.
    Null,
}

pub struct Row {
    pub tid: HeapTid,
    pub distance: Distance,
}

/// What a scan is asked for.
enum Query {
    Null,
    Vector(Vec<f32>),
}

/// A scan that runs.
struct Running {
    store: IndexStore,
    shapes: Shapes,
    scan: Scan,
    /// Distance of all rows, where it is the same.
    constant: Option<Distance>,
}

/// State of an index scan between calls.
pub struct ScanState {
    index: Index,
    query: Query,
    filter: Filter,
    recheck: bool,
    running: Option<Running>,
}

impl ScanState {
    pub fn new(index: Index) -> Self {
        Self { index, query: Query::Null, filter: Filter::none(), recheck: false, running: None }
    }

    pub fn index(&self) -> Index {
        self.index
    }

    /// Whether the filter lets rows through that do not meet the query's conditions.
    pub fn must_recheck(&self) -> bool {
        self.recheck
    }

    /// Starts over with a query, `None` being SQL's NULL, for rows that pass a filter.
    pub fn restart(&mut self, query: Option<&[f32]>, filter: Filter, recheck: bool) {
        self.running = None;
        (self.filter, self.recheck) = (filter, recheck);
        self.query = query.map_or(Query::Null, |q| Query::Vector(q.to_vec()));
    }

    pub fn finish(&mut self) {
        let dropped = self.running.take().map_or(0, |running| running.scan.dropped());
        if dropped > 0 {
            pgrx::debug1!(
                "scan of \"{}\" found {dropped} elements too late to return them in order",
                self.index.name()
            );
        }
    }

    /// Whether the search has begun: the next row begins it.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The next row.
    pub fn next(&mut self) -> Option<Row> {
        let index = self.index;
        let running = self.running.get_or_insert_with(|| start(index, &self.query, &self.filter));
        let hit = or_raise(index, running.scan.next(&running.store, &running.shapes))?;
        Some(Row { tid: hit.tid, distance: running.constant.unwrap_or(Distance::AtLeast(hit.bound)) })
    }
}

fn start(index: Index, query: &Query, filter: &Filter) -> Running {
    index.count_scan();
    let store = IndexStore::new(index);
    let (meta, directory) = or_raise(index, Directory::read(&store));
    check_keys(index, &meta.parameters);
    let (metric, dimensions) = (meta.parameters.metric, meta.parameters.dimensions);
    let (probe, constant) = match query {
        Query::Null => (None, Some(Distance::Null)),
        Query::Vector(vector) => {
            check_query(dimensions, vector.len());
            let probe = Probe::of_query(metric, vector);
            let constant = probe.is_none().then_some(Distance::NotANumber);
            (probe, constant)
        }
    };
    let limits = Limits {
        ef_search: guc::ef_search(Options::of(index).ef_search),
        memory: hash_memory(),
        max_tuples: guc::max_scan_tuples(),
        probes: 0,
    };
    let scan = Scan::new(probe, filter.clone(), &directory.segments, limits);
    Running { store, shapes: meta.parameters.shapes(), scan, constant }
}

/// The error that the operator would raise.
fn check_query(dimensions: usize, found: usize) {
    if dimensions != found {
        let message = format!("different vector dimensions {dimensions} and {found}");
        crate::error::raise(pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, message);
    }
}
