//! `CREATE INDEX`, `REINDEX`: encode the rows, link them on threads, write the pages, log them.

use super::keys::age_key;
use super::{check_dimensions, or_raise};
use crate::error::Fault;
use crate::pg::arena::BuildArena;
use crate::pg::key::KeyColumns;
use crate::pg::progress::{self, Phase};
use crate::pg::relation::Index;
use crate::pg::reloptions::{self, Options};
use crate::pg::settings::{maintenance_work_mem, now};
use crate::pg::thread::{Pool, wait_a_moment};
use ann::hnsw::build::Graph;
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::encode_row;
use ann::index::{self, Directory, Head, MAX_SEGMENTS, Meta, Parameters, SegmentEntry, SegmentKind};
use ann::keys::Row;
use ann::page::{BlockNumber, Kind, Page, Tag};
use ann::shape::Shape;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// What a build did.
pub struct Built {
    pub heap_tuples: f64,
    pub index_tuples: u64,
}

/// What is remembered in the index of how it was built.
fn parameters(index: Index) -> Parameters {
    let keys = KeyColumns::checked(index);
    let options = Options::of(index);
    let Some(dimensions) = index.declared_dimensions() else {
        Fault::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "column does not have dimensions")
            .detail(format!("Index \"{}\" is on a vector without a declared number of dimensions.", index.name()))
            .hint("Declare them, as in vector(384), or index an expression, as in ((embedding::vector(384))).")
            .raise()
    };
    Parameters {
        metric: index.metric(),
        dimensions,
        m: options.m,
        ef_construction: options.ef_construction,
        segment_rows: options.segment_rows,
        recent_rows: options.recent_rows,
        pending_rows: options.pending_rows,
        lists: options.lists,
        recent_threshold: options.recent_threshold,
        partition_interval: options.partition_interval,
        rerank: options.rerank,
        keys: keys.types().len(),
        age_key: age_key(keys.types()),
    }
}

/// The pages of an index without rows.
pub fn empty_pages(index: Index) -> [Box<Page>; 3] {
    index::empty_index(&parameters(index), now())
}

/// Builds the index from what `scan` shows: it calls its argument for each row and returns the rows of the table.
pub fn build(index: Index, scan: impl FnOnce(&mut dyn FnMut(Row, &[f32])) -> f64) -> Built {
    let mut builder = Builder::new(index);
    warn_of_idle_options(index, &builder.parameters);
    progress::phase(Phase::Load);
    let heap_tuples = scan(&mut |row, vector| builder.add(&row, vector));
    builder.finish(heap_tuples)
}

/// Options that only an index with an age key makes use of. No error: a dump with such an index must load.
fn warn_of_idle_options(index: Index, parameters: &Parameters) {
    let idle = if parameters.age_key.is_none() { reloptions::for_age_key(index) } else { Vec::new() };
    for option in idle {
        let message = format!("option \"{option}\" has no effect in index \"{}\"", index.name());
        let hint = "It needs an age key: a column of type date, timestamp or timestamptz after the vector.";
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "hybridvec")
            .set_hint(hint)
            .report(PgLogLevel::WARNING);
    }
}

struct Builder {
    index: Index,
    parameters: Parameters,
    shape: Shape,
    arena: BuildArena,
    rows: Rows<BuildArena>,
    code: Vec<u8>,
    pool: Option<Pool>,
    segments: Vec<SegmentEntry>,
    next_block: BlockNumber,
    index_tuples: u64,
    noticed: bool,
}

/// Blocks of the metapage and the directory, which are written last.
const FIRST_SEGMENT_BLOCK: BlockNumber = 2;

impl Builder {
    fn new(index: Index) -> Self {
        let parameters = parameters(index);
        let [meta, directory, _] = index::empty_index(&parameters, now());
        index.append_unlogged(&meta);
        index.append_unlogged(&directory);
        Self {
            index,
            shape: parameters.shape(),
            arena: BuildArena::new(maintenance_work_mem()),
            rows: Rows::new(parameters.dimensions, parameters.keys),
            code: vec![0; parameters.dimensions],
            parameters,
            pool: None,
            segments: Vec::new(),
            next_block: FIRST_SEGMENT_BLOCK,
            index_tuples: 0,
            noticed: false,
        }
    }

    fn add(&mut self, row: &Row, vector: &[f32]) {
        check_dimensions(self.parameters.dimensions, vector.len());
        let Some((_, params)) = encode_row(self.parameters.metric, vector, &mut self.code) else { return };
        or_raise(self.index, self.rows.push(&mut self.arena, &params, &self.code, row));
        self.index_tuples += 1;
        progress::tuples_done(self.index_tuples);
        let room = self.segments.len() + 1 < MAX_SEGMENTS;
        if self.rows.codes.len() as u64 >= self.parameters.segment_rows && room {
            self.write_segment(false);
            progress::phase(Phase::Load);
        }
    }

    /// Links the rows gathered so far and writes them as a segment.
    fn write_segment(&mut self, active: bool) {
        let rows = std::mem::replace(&mut self.rows, Rows::new(self.parameters.dimensions, self.parameters.keys));
        let (codes, lists) = rows.finish();
        let count = codes.len();
        let seed = u64::from(self.next_block);
        let graph = Graph::new(&mut self.arena, &self.shape, self.parameters.ef_construction, codes, seed);
        let graph = or_raise(self.index, graph);
        self.notice_spill();
        progress::phase(Phase::Link);
        progress::tuples_total(count as u64);
        let pool = self.pool.get_or_insert_with(Pool::new);
        let linked = graph.link_all((pool.rayon(), pool.threads()), pool.stop(), |done| {
            progress::tuples_done(done as u64);
            wait_a_moment();
            Ok(())
        });
        or_raise(self.index, linked);
        progress::phase(Phase::Write);
        let created = now();
        let id = self.segments.len() as u32 + 1;
        let head_block = self.next_block;
        let mut head = Head::new(created);
        head.active = active;
        let index = self.index;
        let end = head_block as usize + pages_needed(&graph, &lists, &self.shape);
        let end = or_raise(index, BlockNumber::try_from(end).map_err(|_| ann::error::Error::Full));
        let blocks: Vec<BlockNumber> = (head_block..end).collect();
        let written = write_segment(&graph, &lists, &self.shape, (id, &blocks), &head, |block, page| {
            pgrx::check_for_interrupts!();
            let written = index.append_unlogged(page);
            assert_eq!(written, block, "nobody else extends an index that is being built");
            Ok(())
        });
        or_raise(index, written);
        self.next_block = end;
        self.segments.push(SegmentEntry { id, kind: SegmentKind::Hnsw, active, head: head_block, created });
        drop(graph);
        self.arena.reset();
    }

    /// Says, once, how much memory would have kept the build out of temporary files.
    fn notice_spill(&mut self) {
        if self.arena.spilled() == 0 || self.noticed {
            return;
        }
        self.noticed = true;
        let needed = (self.arena.requested() >> 20) + 1;
        pgrx::notice!(
            "hybrid index build uses temporary files: {} MB did not fit into maintenance_work_mem, {needed} MB would hold it",
            self.arena.spilled() >> 20
        );
    }

    fn finish(mut self, heap_tuples: f64) -> Built {
        self.write_segment(true);
        let directory = Directory { generation: 1, segments: std::mem::take(&mut self.segments) };
        let next_segment = directory.segments.len() as u32 + 1;
        let mut page = Page::zeroed();
        page.set_tag(Tag::new(0, Kind::Directory));
        directory.encode(&mut page);
        self.index.write_unlogged(1, &page);
        let meta = Meta { parameters: self.parameters.clone(), generation: 1, root: 1, next_segment };
        let mut page = Page::zeroed();
        page.set_tag(Tag::new(0, Kind::Meta));
        meta.encode(&mut page);
        self.index.write_unlogged(0, &page);
        progress::phase(Phase::Log);
        self.index.log_all_pages();
        Built { heap_tuples, index_tuples: self.index_tuples }
    }
}
