//! Scans: `ORDER BY vector <-> query`, as many rows as the executor asks for.

use super::{check_keys, or_raise};
use crate::error::Fault;
use crate::guc;
use crate::pg::buffer::IndexStore;
use crate::pg::relation::Index;
use crate::pg::reloptions::Options;
use crate::pg::rights::in_recovery;
use crate::pg::settings::{hash_memory, now};
use crate::pg::worker;
use ann::compact::some_came_of_age;
use ann::error::Error;
use ann::hnsw::probe::Probe;
use ann::hnsw::scan::{Hit, Limits, Scan};
use ann::index::{Directory, Meta, Shapes};
use ann::keys::Filter;
use ann::shape::HeapTid;
use pgrx::PgSqlErrorCode;

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
    /// Of the directory that the scan works with.
    generation: u64,
    /// Whether it has returned a row.
    returned: bool,
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
        if self.running.is_none() {
            index.count_scan();
        }
        loop {
            let running = self.running.get_or_insert_with(|| start(index, &self.query, &self.filter));
            match running.scan.next(&running.store, &running.shapes) {
                Ok(hit) => {
                    running.returned = true;
                    let row = |Hit { tid, bound }| Row {
                        tid,
                        distance: running.constant.unwrap_or(Distance::AtLeast(bound)),
                    };
                    return hit.map(row);
                }
                Err(Error::Corrupt { .. }) if running.is_overtaken(index) => {
                    if running.returned {
                        raise_conflict(index);
                    }
                    self.running = None;
                }
                Err(error) => or_raise(index, Err(error)),
            }
        }
    }
}

impl Running {
    /// Whether the primary has moved rows since the scan began, whose old pages are another segment's by now. Replay ends
    /// queries that may need such pages before it gets there, but what it cannot know of must not look like damage.
    fn is_overtaken(&self, index: Index) -> bool {
        in_recovery() && or_raise(index, Meta::read(&self.store)).generation != self.generation
    }
}

#[cold]
fn raise_conflict(index: Index) -> ! {
    let message = "canceling statement due to conflict with recovery";
    Fault::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message)
        .detail(format!("Compaction of index \"{}\" has moved rows that the query must see.", index.name()))
        .hint("Try again; hot_standby_feedback = on keeps the pages as long as queries here need them.")
        .raise()
}

fn start(index: Index, query: &Query, filter: &Filter) -> Running {
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
    let options = Options::of(index);
    // Rows grow old also where nobody inserts any more. What is wrong with a segment that this search need not read is not
    // its business.
    let by_age = meta.parameters.age_key.is_some() && options.auto_compact;
    if by_age
        && !in_recovery()
        && worker::may_look(index)
        && matches!(some_came_of_age(&store, &meta, &directory, now()), Ok(true))
    {
        worker::note_due(index);
    }
    let limits = Limits {
        ef_search: guc::ef_search(options.ef_search),
        memory: hash_memory(),
        max_tuples: guc::max_scan_tuples(),
        probes: guc::probes(options.probes),
    };
    let scan = Scan::new(probe, filter.clone(), &directory.segments, limits);
    let (shapes, generation) = (meta.parameters.shapes(), meta.generation);
    Running { store, generation, returned: false, shapes, scan, constant }
}

/// The error that the operator would raise.
fn check_query(dimensions: usize, found: usize) {
    if dimensions != found {
        let message = format!("different vector dimensions {dimensions} and {found}");
        crate::error::raise(pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, message);
    }
}
