//! `CREATE INDEX`, `REINDEX`: encode the rows, link them on threads, write the pages, log them.

use super::import::{self, Archived, Import, Structure, interruptible};
use super::keys::age_key;
use super::pipeline::{Encoded, Lot, Pipeline, WAITING};
use super::{check_dimensions, or_raise};
use crate::error::Fault;
use crate::pg::arena::BuildArena;
use crate::pg::key::KeyColumns;
use crate::pg::progress::{self, Phase};
use crate::pg::relation::{Index, OpenTable};
use crate::pg::reloptions::{self, Options};
use crate::pg::settings::{maintenance_work_mem, now};
use crate::pg::thread::{Pool, wait_a_moment};
use ann::age::{AgeCut, MICROSECONDS_A_DAY, Recency};
use ann::error::Error;
use ann::hnsw::build::{Graph, Node};
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::index::{self, Directory, Head, MAX_SEGMENTS, Meta, Parameters, SegmentEntry, SegmentKind};
use ann::ivf::kmeans::Work;
use ann::ivf::write::Plan;
use ann::keys::Row;
use ann::page::{BlockNumber, Kind, META_BLOCK, Page, Tag};
use ann::relink::{Claimed, Gathered, Links, assignment};
use ann::shape::Shape;
use ann::sq8::Params;
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
    let import = Import::take(index, &builder.parameters).or_else(|| builder.find_archive());
    if let Some(import) = import {
        builder.arena = BuildArena::new(import::share_of_memory());
        builder.import = Some(import);
        builder.lot = Lot::new(builder.parameters.metric, builder.parameters.dimensions, true);
    }
    warn_of_idle_options(index, &builder.parameters);
    progress::phase(Phase::Load);
    let heap_tuples = scan(&mut |row, vector| builder.add(&row, vector));
    builder.finish(heap_tuples)
}

/// Options that only an index with an age key makes use of, and those that change nothing. No error: a dump with such an
/// index must load.
fn warn_of_idle_options(index: Index, parameters: &Parameters) {
    if parameters.rerank != 0 {
        let message = format!("option \"rerank\" has no effect in index \"{}\": it keeps sq8", index.name());
        let hint = "Rows are put in order by their exact distances, whatever the index keeps.";
        Fault::new(PgSqlErrorCode::ERRCODE_WARNING, message).hint(hint).report(PgLogLevel::WARNING);
    }
    let idle = if parameters.age_key.is_none() { reloptions::for_age_key(index) } else { Vec::new() };
    for option in idle {
        let message = format!("option \"{option}\" has no effect in index \"{}\"", index.name());
        let hint = "It needs an age key: a column of type date, timestamp or timestamptz after the vector.";
        Fault::new(PgSqlErrorCode::ERRCODE_WARNING, message).hint(hint).report(PgLogLevel::WARNING);
    }
}

/// Rows of the largest IVF segment.
const LARGEST_PARTITION: u64 = 10_000_000;
/// Elements of the smallest: intervals of fewer go with the next.
const SMALLEST_PARTITION: usize = 4096;
/// IVF segments that a build makes of the intervals of time; the last one has the rest.
const MOST_PARTITIONS: usize = 100;

/// Appends a page to an index that is being built.
fn append(index: Index, block: BlockNumber, page: &Page) -> ann::error::Result<()> {
    pgrx::check_for_interrupts!();
    let written = index.append_unlogged(page);
    assert_eq!(written, block, "nobody else extends an index that is being built");
    Ok(())
}

/// Id, blocks and template of the head for a segment of so many pages, from `first` on.
fn next_segment(
    index: Index,
    segments: &[SegmentEntry],
    first: BlockNumber,
    pages: usize,
) -> (u32, Vec<BlockNumber>, Head) {
    let end = BlockNumber::try_from(first as usize + pages).map_err(|_| ann::error::Error::Full);
    (segments.len() as u32 + 1, (first..or_raise(index, end)).collect(), Head::new(now()))
}

struct Builder {
    index: Index,
    parameters: Parameters,
    shape: Shape,
    arena: BuildArena,
    /// What of the rows is old, as of the beginning of the build.
    recency: Recency,
    cut: Option<AgeCut>,
    /// Rows for graphs; where arrival tells what is recent, all that may be.
    rows: Rows<BuildArena>,
    /// Rows for IVF segments.
    old: Rows<BuildArena>,
    /// Rows that were read, and those that are being encoded.
    lot: Lot,
    pipeline: Pipeline<Lot, Lot>,
    pool: Option<Pool>,
    segments: Vec<SegmentEntry>,
    next_block: BlockNumber,
    index_tuples: u64,
    noticed: bool,
    /// Archived segments, and the rows that they know.
    import: Option<Import>,
}

/// Says, once, how much memory would have kept the build out of temporary files.
fn notice_spill(noticed: &mut bool, arena: &BuildArena) {
    if arena.spilled() == 0 || std::mem::replace(noticed, true) {
        return;
    }
    let needed = (arena.requested() >> 20) + 1;
    pgrx::notice!(
        "hybrid index build uses temporary files: {} MB did not fit into maintenance_work_mem, {needed} MB would hold it",
        arena.spilled() >> 20
    );
}

/// Blocks of the metapage and the directory, which are written last.
const FIRST_SEGMENT_BLOCK: BlockNumber = 2;

impl Builder {
    fn new(index: Index) -> Self {
        let parameters = parameters(index);
        let [meta, directory, _] = index::empty_index(&parameters, now());
        let recency = parameters.recency();
        index.append_unlogged(&meta);
        index.append_unlogged(&directory);
        Self {
            index,
            shape: parameters.shape(),
            arena: BuildArena::new(maintenance_work_mem()),
            recency,
            cut: match recency {
                Recency::ByAge { age, threshold } => Some(AgeCut::new(age, threshold, now())),
                _ => None,
            },
            rows: Rows::new(parameters.dimensions, parameters.keys),
            old: Rows::new(parameters.dimensions, parameters.keys),
            lot: Lot::new(parameters.metric, parameters.dimensions, false),
            pipeline: Pipeline::new(Lot::encode, WAITING),
            parameters,
            pool: None,
            segments: Vec::new(),
            next_block: FIRST_SEGMENT_BLOCK,
            index_tuples: 0,
            noticed: false,
            import: None,
        }
    }

    /// What CREATE INDEX is to take instead of building everything: by its option `source`, or else by the setting
    /// `hybrid.import_from`. Neither is for REINDEX, nor for a table without rows.
    fn find_archive(&self) -> Option<Import> {
        let index = self.index;
        if index.is_reindexed() || OpenTable::of_index(index).is_empty() {
            return None;
        }
        let fit = import::Fit::of(&self.parameters);
        // A dump carries the option: what it names may be gone by now.
        let sources = [Options::of(index).source, crate::guc::import_from()];
        let mut plans =
            sources.iter().flatten().map(|source| crate::archive::import::plan_for_create(index, source, &fit));
        let plan = plans.find_map(|plan| plan)?;
        Some(Import::new(plan, &self.parameters))
    }

    fn add(&mut self, row: &Row, vector: &[f32]) {
        check_dimensions(self.parameters.dimensions, vector.len());
        if self.lot.push(row, vector) {
            let full = self.lot.take();
            let pool = self.pool.get_or_insert_with(Pool::new);
            if let Some(encoded) = self.pipeline.put(pool, full) {
                self.add_encoded(&encoded);
            }
        }
    }

    /// Adds what was read so far.
    fn add_rest(&mut self) {
        while let Some(encoded) = self.pipeline.next() {
            self.add_encoded(&encoded);
        }
        let rest = self.lot.take().encode();
        self.add_encoded(&rest);
    }

    fn add_encoded(&mut self, lot: &Lot) {
        for Encoded { row, params, code, print } in lot.encoded() {
            self.index_tuples += 1;
            progress::tuples_done(self.index_tuples);
            if let Some((import, print)) = self.import.as_mut().zip(print)
                && import.claim(self.index, row, print, (&params, code))
            {
                continue;
            }
            self.place(row, &params, code);
            self.write_what_is_full();
        }
    }

    /// Keeps a row for the segment that it belongs to.
    fn place(&mut self, row: &Row, params: &Params, code: &[u8]) {
        let is_old = match self.recency {
            Recency::None => true,
            Recency::ByAge { .. } => self.cut.is_some_and(|cut| cut.is_old(&row.keys)),
            Recency::All | Recency::ByArrival(_) => false,
        };
        let rows = if is_old { &mut self.old } else { &mut self.rows };
        or_raise(self.index, rows.push(&mut self.arena, params, code, row));
    }

    /// Writes segments of as many rows as they should have at most, and forgets those rows.
    fn write_what_is_full(&mut self) {
        let (graph, old) = (self.rows.codes.len() as u64, self.old.codes.len() as u64);
        let room = self.segments.len() + 1 < MAX_SEGMENTS;
        match self.recency {
            // Which rows are recent shows when the last one is there.
            Recency::ByArrival(recent) if graph >= recent.saturating_add(LARGEST_PARTITION) => self.set_older_apart(),
            Recency::ByArrival(_) => return,
            _ if graph >= self.parameters.segment_rows && room => self.write_graph(false),
            _ if old >= LARGEST_PARTITION => self.write_partitions(),
            _ => return,
        }
        if self.rows.is_empty() && self.old.is_empty() {
            self.arena.reset();
        }
        progress::phase(Phase::Load);
    }

    /// Where arrival decides: all but the newest rows are old.
    fn set_older_apart(&mut self) {
        let Recency::ByArrival(recent) = self.recency else { return };
        let elements = self.rows.codes.len() as u64;
        if elements <= recent {
            return;
        }
        let newest = or_raise(self.index, self.rows.split_off(&mut self.arena, (elements - recent) as Node));
        self.old = std::mem::replace(&mut self.rows, newest);
        self.write_partitions();
    }

    /// Writes the old rows as IVF segments: one for each interval of time, but none of few rows.
    fn write_partitions(&mut self) {
        let old = std::mem::replace(&mut self.old, Rows::new(self.parameters.dimensions, self.parameters.keys));
        let groups = self.partitions_of(&old);
        if groups.len() <= 1 {
            self.write_partition(old);
            return;
        }
        // The copies of one interval at a time: their memory is used again for the next.
        let mut arena = BuildArena::new(maintenance_work_mem() / 2);
        for nodes in groups {
            let mut part = Rows::new(self.parameters.dimensions, self.parameters.keys);
            or_raise(self.index, old.copy_to(&nodes, &mut arena, &mut part));
            self.write_partition(part);
            arena.reset();
        }
    }

    /// Elements by the interval that their first row lies in, in the order of time.
    fn partitions_of(&self, rows: &Rows<BuildArena>) -> Vec<Vec<Node>> {
        let interval = self.parameters.partition_interval.max(1);
        let Some(age) = self.parameters.age_key.filter(|_| interval < i64::MAX) else { return Vec::new() };
        let unit = if age.in_days { MICROSECONDS_A_DAY } else { 1 };
        // NULL is old: before all else.
        let interval_of = |row: Row| {
            row.keys.get(age.column).map_or(i64::MIN, |value| value.saturating_mul(unit).div_euclid(interval))
        };
        let mut nodes: Vec<(i64, Node)> = rows.firsts().map(|(node, row)| (interval_of(row), node)).collect();
        nodes.sort_unstable();
        let most = MOST_PARTITIONS.min(MAX_SEGMENTS.saturating_sub(self.segments.len() + 2)).max(1);
        let mut groups: Vec<Vec<Node>> = Vec::new();
        let mut last = None;
        for (interval, node) in nodes {
            let begin = last != Some(interval) && groups.last().is_none_or(|group| group.len() >= SMALLEST_PARTITION);
            if begin && groups.len() < most {
                groups.push(Vec::new());
            }
            last = Some(interval);
            if let Some(group) = groups.last_mut() {
                group.push(node);
            }
        }
        groups
    }

    /// Makes lists for rows and writes them as a segment.
    fn write_partition(&mut self, rows: Rows<BuildArena>) {
        let (codes, lists) = rows.finish();
        let shape = self.shape.without_neighbors();
        notice_spill(&mut self.noticed, &self.arena);
        progress::phase(Phase::Cluster);
        progress::tuples_total(codes.len() as u64);
        let pool = self.pool.get_or_insert_with(Pool::new);
        let mut poll = |done| {
            progress::tuples_done(done);
            wait_a_moment();
            Ok(())
        };
        let mut work = Work { pool: pool.rayon(), threads: pool.threads(), stop: pool.stop(), poll: &mut poll };
        let seed = u64::from(self.next_block);
        let plan = Plan::new((&codes, &lists, &shape), self.parameters.lists, seed, &mut work);
        let plan = or_raise(self.index, plan);
        progress::phase(Phase::Write);
        let (id, blocks, head) = next_segment(self.index, &self.segments, self.next_block, plan.pages_needed());
        let index = self.index;
        let written = plan.write((id, &blocks), &head, &mut work, |block, page| append(index, block, page));
        or_raise(index, written);
        self.add_segment(id, SegmentKind::Ivf, false, &blocks, head.created);
    }

    fn add_segment(&mut self, id: u32, kind: SegmentKind, active: bool, blocks: &[BlockNumber], created: i64) {
        self.segments.push(SegmentEntry { id, kind, active, head: blocks[0], created });
        self.next_block += blocks.len() as BlockNumber;
    }

    /// Writes what is left of the rows for graphs: sealed segments of as many elements as one should have at most, and the
    /// active one.
    fn write_graphs(&mut self) {
        let (elements, most) = (self.rows.codes.len() as u64, self.parameters.segment_rows);
        if elements > most {
            let all = std::mem::replace(&mut self.rows, Rows::new(self.parameters.dimensions, self.parameters.keys));
            // The copies of one segment at a time: their memory is used again for the next.
            let mut kept = std::mem::replace(&mut self.arena, BuildArena::new(maintenance_work_mem() / 2));
            let mut from = 0;
            while elements - from > most && self.segments.len() + 1 < MAX_SEGMENTS {
                let nodes: Vec<Node> = (from as Node..(from + most) as Node).collect();
                or_raise(self.index, all.copy_to(&nodes, &mut self.arena, &mut self.rows));
                self.write_graph(false);
                self.arena.reset();
                from += most;
            }
            let nodes: Vec<Node> = (from as Node..elements as Node).collect();
            or_raise(self.index, all.copy_to(&nodes, &mut self.arena, &mut self.rows));
            drop(all);
            kept.reset();
        }
        self.write_graph(true);
        self.arena.reset();
    }

    /// Links the rows gathered for graphs and writes them as a segment.
    fn write_graph(&mut self, active: bool) {
        let rows = std::mem::replace(&mut self.rows, Rows::new(self.parameters.dimensions, self.parameters.keys));
        let (codes, lists) = rows.finish();
        let count = codes.len();
        let seed = u64::from(self.next_block);
        let graph = Graph::new(&mut self.arena, &self.shape, self.parameters.ef_construction, codes, seed);
        let graph = or_raise(self.index, graph);
        notice_spill(&mut self.noticed, &self.arena);
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
        let pages = pages_needed(&graph, &lists, &self.shape);
        let (id, blocks, mut head) = next_segment(self.index, &self.segments, self.next_block, pages);
        head.active = active;
        let index = self.index;
        let write = |block, page: &Page| append(index, block, page);
        or_raise(index, write_segment(&graph, &lists, &self.shape, (id, &blocks), &head, write));
        self.add_segment(id, SegmentKind::Hnsw, active, &blocks, head.created);
    }

    /// Makes the archived segments of the rows that they know, in front of all others; what cannot be made again is built as
    /// other rows are.
    fn relink(&mut self) {
        let Some(mut import) = self.import.take() else { return };
        progress::phase(Phase::Relink);
        let (claimed, ranges) = import.claims();
        progress::tuples_total(claimed.len() as u64);
        let mut arena = BuildArena::new(import::share_of_memory());
        let (before, mut done) = (self.segments.len(), 0);
        for (mut archived, range) in std::mem::take(&mut import.segments).into_iter().zip(ranges) {
            let claims = &claimed[range];
            if !claims.is_empty() {
                match self.relink_segment(&mut archived, claims, &import.gathered, &mut arena) {
                    Ok(kept) => {
                        import.imported.linked += claims.len() as u64;
                        import.imported.segments += 1;
                        import.imported.dropped += u64::from(archived.elements()) - kept;
                    }
                    Err(Error::Structure(what)) => {
                        import.imported.refused.push(format!("{}: {what}", archived.name));
                        self.give_back(claims, &import.gathered);
                    }
                    Err(error) => or_raise(self.index, Err(error)),
                }
                notice_spill(&mut self.noticed, &arena);
                arena.reset();
            } else {
                import.imported.dropped += u64::from(archived.elements());
            }
            done += claims.len() as u64;
            progress::tuples_done(done);
        }
        notice_spill(&mut self.noticed, &import.arena);
        // The directory lists what is oldest first.
        self.segments.rotate_left(before);
        import.imported.inserted = self.index_tuples - import.imported.linked;
        import::report(self.index, import.imported, import.asked);
    }

    /// Gives rows that were kept for an archived segment to the build.
    fn give_back(&mut self, claims: &[Claimed], gathered: &Gathered<BuildArena>) {
        for claim in claims {
            let (params, code, row) = gathered.get(claim.node);
            self.place(&row, &params, code);
        }
    }

    /// Makes an archived segment of some rows and writes it. How many of its elements have one.
    fn relink_segment(
        &mut self,
        archived: &mut Archived,
        claims: &[Claimed],
        gathered: &Gathered<BuildArena>,
        arena: &mut BuildArena,
    ) -> ann::error::Result<u64> {
        if self.segments.len() + 2 >= MAX_SEGMENTS {
            return Err(Error::Structure(format!("an index does not have more than {MAX_SEGMENTS} segments")));
        }
        let created = archived.created.min(now());
        let pool = self.pool.get_or_insert_with(Pool::new);
        let mut poll = |_| {
            wait_a_moment();
            Ok(())
        };
        let mut work = Work { pool: pool.rayon(), threads: pool.threads(), stop: pool.stop(), poll: &mut poll };
        let index = self.index;
        let write = |block, page: &Page| append(index, block, page);
        match &mut archived.structure {
            Structure::Graph { header, source } => {
                let links = Links::read(arena, &self.shape, header, &mut interruptible(source))?;
                let (rows, mapping) = gathered.segment(claims, header.elements, arena)?;
                let (codes, lists) = rows.finish();
                let settings = (&self.shape, self.parameters.ef_construction, u64::from(self.next_block));
                let graph = Graph::from_structure(arena, settings, codes, (&links, &mapping), &mut work)?;
                let pages = pages_needed(&graph, &lists, &self.shape);
                let (id, blocks, head) = next_segment(index, &self.segments, self.next_block, pages);
                let head = Head { active: false, created, ..head };
                write_segment(&graph, &lists, &self.shape, (id, &blocks), &head, write)?;
                self.add_segment(id, SegmentKind::Hnsw, false, &blocks, created);
                Ok(mapping.kept() as u64)
            }
            Structure::Lists { header, centroids, source } => {
                let (rows, mapping) = gathered.segment(claims, header.elements, arena)?;
                let assignment = assignment(header, &mut interruptible(source), &mapping)?;
                let (codes, lists) = rows.finish();
                let shape = self.shape.without_neighbors();
                let plan = Plan::from_structure((&codes, &lists, &shape), centroids, assignment, &mut work)?;
                let (id, blocks, head) = next_segment(index, &self.segments, self.next_block, plan.pages_needed());
                plan.write((id, &blocks), &Head { created, ..head }, &mut work, write)?;
                self.add_segment(id, SegmentKind::Ivf, false, &blocks, created);
                Ok(mapping.kept() as u64)
            }
        }
    }

    fn finish(mut self, heap_tuples: f64) -> Built {
        self.add_rest();
        self.relink();
        self.set_older_apart();
        if !self.old.is_empty() {
            self.write_partitions();
        }
        self.write_graphs();
        let directory = Directory { generation: 1, segments: std::mem::take(&mut self.segments), dropped: Vec::new() };
        let next_segment = directory.segments.len() as u32 + 1;
        let mut page = Page::zeroed();
        page.set_tag(Tag::new(0, Kind::Directory));
        directory.encode(&mut page);
        self.index.write_unlogged(1, &page);
        let meta =
            Meta { parameters: self.parameters.clone(), generation: 1, root: 1, next_segment, history: META_BLOCK };
        let mut page = Page::zeroed();
        page.set_tag(Tag::new(0, Kind::Meta));
        meta.encode(&mut page);
        self.index.write_unlogged(0, &page);
        progress::phase(Phase::Log);
        self.index.log_all_pages();
        Built { heap_tuples, index_tuples: self.index_tuples }
    }
}
