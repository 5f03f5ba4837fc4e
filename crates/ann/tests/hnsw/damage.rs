//! Pages that lie: whatever bytes an index has, reading and changing it returns, with rows or with an error.

use crate::data::{Mixture, Rng};
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::scan::Limits;
use ann::index::{Directory, Head, Meta, Parameters};
use ann::memory::MemoryStore;
use ann::page::{BODY_SIZE, HEADER_SIZE, Kind, META_BLOCK, NONE, PAGE_SIZE, Page, PageStore, TRAILER_SIZE, Tag, Unit};
use ann::shape::{Shape, at, read_chunk, write_chunk};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Segments, levels, chunks in a row, and tails if the dimensions are many.
fn sound_index(parameters: &Parameters, n: usize) -> MemoryStore {
    let mut rows = Mixture::new(9, parameters.dimensions, 3).rows(n);
    let popular = rows[0].clone();
    rows[..n / 2].fill(popular);
    let store = inserted(parameters, &rows);
    assert_sound(&store, &parameters.shape());
    store
}

fn write(store: &MemoryStore, block: u32, change: impl FnOnce(&mut Page)) {
    let mut unit = store.unit();
    change(unit.page(block).expect("in range"));
    unit.commit().expect("not stopped");
}

fn copy(store: &MemoryStore, block: u32) -> Box<Page> {
    store.read(block, |page| Box::new(Page(page.0))).expect("in range")
}

/// Numbers that programs stumble over.
fn nasty(rng: &mut Rng, store: &MemoryStore, shape: &Shape) -> u32 {
    let block = rng.below(store.block_count() as usize + 1) as u32;
    let slots = rng.pick(&[shape.element, shape.upper, shape.chunk, shape.tail]);
    let slot = block * slots.per_page + rng.below(slots.per_page as usize) as u32;
    let float = rng.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 1e-45]).to_bits();
    let any = rng.next() as u32;
    rng.pick(&[0, 1, 2, 0xFFFF, NONE, NONE - 1, 1 << 31, block, slot, slot, slot, float, any])
}

/// Changes one thing somewhere, often where a structure keeps a count or a pointer.
fn damage(rng: &mut Rng, store: &MemoryStore, shape: &Shape) {
    let block = rng.below(store.block_count() as usize) as u32;
    let other = copy(store, rng.below(store.block_count() as usize) as u32);
    let value = nasty(rng, store, shape);
    let kind = copy(store, block).tag().map(|tag| tag.kind);
    let place = match (rng.below(10), kind) {
        (0, _) => return write(store, block, |page| *page = Page(other.0)),
        (1, _) => return write(store, block, |page| page.0 = [0; PAGE_SIZE]),
        (2, _) => HEADER_SIZE + rng.below(BODY_SIZE - 4),
        (3, _) => PAGE_SIZE - TRAILER_SIZE + rng.below(12),
        (_, Some(Kind::Element)) => {
            let field =
                rng.pick(&[at::ROW_COUNT, at::LEVEL, at::INLINE_COUNT, at::NEIGHBOR_COUNT, at::SCALE, at::OFFSET]);
            let field = rng.pick(&[field, at::NORM2, at::RESIDUAL, at::UPPER, at::OVERFLOW, shape.element.size - 4]);
            HEADER_SIZE + rng.below(shape.element.per_page as usize) * shape.element.size + field
        }
        (_, Some(Kind::Upper)) => {
            let slot = rng.below(shape.upper.per_page as usize) * shape.upper.size;
            HEADER_SIZE + slot + 4 * rng.below(shape.upper.size / 4)
        }
        (_, Some(Kind::Overflow)) => {
            HEADER_SIZE + rng.below(shape.chunk.per_page as usize / 8) * shape.chunk.size + rng.pick(&[0, 0, 4])
        }
        _ => HEADER_SIZE + 4 * rng.below(20),
    };
    let bytes = value.to_le_bytes();
    let len = rng.pick(&[1, 2, 4, 4]);
    write(store, block, |page| page.0[place..place + len].copy_from_slice(&bytes[..len]));
}

/// A store without the last pages.
fn truncated(store: &MemoryStore, blocks: u32) -> MemoryStore {
    let short = MemoryStore::new();
    (0..blocks).for_each(|block| _ = short.append(&copy(store, block)));
    short
}

/// What no use of a small index comes near.
const STEPS: u64 = 300_000;

/// Everything one can do with an index; each deed may fail by an error that says what is corrupt, and by no other.
fn use_all(store: &MemoryStore) {
    let run = |name: &str, deed: &dyn Fn(&Strict, &Parameters) -> Result<()>| {
        let strict = Strict::with_budget(store, STEPS);
        let result = Meta::read(store).and_then(|meta| deed(&strict, &meta.parameters));
        assert_ne!(result, Err(Error::Stopped), "{name} goes round in circles");
    };
    let vector = |p: &Parameters| (0..p.dimensions).map(|i| (i % 7) as f32 - 2.5).collect::<Vec<f32>>();
    let query = |p: &Parameters| Some(probe(p.metric, &vector(p)));
    run("check", &|s, p| each_segment(s, &p.shape(), |segment| segment.check(&mut Vec::new()).map(|_| ())));
    run("count", &|s, p| each_segment(s, &p.shape(), |segment| segment.count().map(|_| ())));
    run("full scan", &|s, p| scan_all(s, &p.shape(), None, WIDE).map(|_| ()));
    for ef_search in [1, 40] {
        let limits = Limits { ef_search, ..WIDE };
        run("scan", &|s, p| scan_all(s, &p.shape(), query(p), limits).map(|_| ()));
    }
    for row in 5000..5003 {
        run("insert", &|s, p| insert(s, p, row, &vector(p)));
        run("insert of the popular", &|s, p| insert(s, p, row + 100, &Mixture::new(9, p.dimensions, 3).rows(1)[0]));
    }
    run("vacuum", &|s, p| vacuum(s, &p.shape(), |row| row.is_multiple_of(2)).map(|_| ()));
    run("seal", &|s, _| seal(s));
    run("insert after seal", &|s, p| insert(s, p, 6000, &vector(p)));
}

fn survive(parameters: &Parameters, n: usize, seeds: std::ops::Range<u64>) {
    let sound = sound_index(parameters, n);
    let shape = parameters.shape();
    let mut failed = Vec::new();
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let mut store = sound.clone();
        if rng.chance(20) {
            store = truncated(&sound, rng.below(sound.block_count() as usize) as u32);
        } else {
            (0..1 + rng.below(4)).for_each(|_| damage(&mut rng, &store, &shape));
        }
        if catch_unwind(AssertUnwindSafe(|| use_all(&store))).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} seeds: {failed:?}", failed.len());
}

#[test]
fn damage_never_panics_nor_loops() {
    let parameters = Parameters { segment_rows: 20, ..parameters(Metric::L2, 250, 3, 8) };
    survive(&parameters, 120, 0..400);
}

#[test]
fn damage_never_panics_nor_loops_where_codes_have_tails() {
    let parameters = Parameters { segment_rows: 5, ..parameters(Metric::Cosine, 4500, 2, 6) };
    assert!(parameters.shape().tails > 0);
    survive(&parameters, 30, 1000..1100);
}

/// An index of one segment with chunks, and its head.
fn simple() -> (Parameters, MemoryStore, u32) {
    let parameters = parameters(Metric::L2, 250, 3, 8);
    let store = sound_index(&parameters, 120);
    let head = Directory::read(&store).expect("sound").1.segments[0].head;
    (parameters, store, head)
}

fn change_head(store: &MemoryStore, block: u32, change: impl FnOnce(&mut Head)) {
    write(store, block, |page| {
        let mut head = Head::decode(page, block, 1).expect("a head");
        change(&mut head);
        head.encode(page);
    });
}

fn first_of(store: &MemoryStore, kind: Kind) -> u32 {
    let is_kind = |&block: &u32| copy(store, block).tag().is_some_and(|tag| tag.kind == kind);
    (0..store.block_count()).find(is_kind).expect("there is one")
}

#[track_caller]
fn assert_corrupt<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_chain_of_chunks_that_bites_its_tail_is_an_error() {
    let (parameters, store, _) = simple();
    let shape = parameters.shape();
    let block = first_of(&store, Kind::Overflow);
    let used = u32::from(copy(&store, block).tag().expect("ours").used);
    assert!(used > 1, "a chain");
    write(&store, block, |page| {
        for index in 0..used {
            let slot = shape.chunk.slot(block, index).expect("fits");
            let (_, rows) = read_chunk(&shape, shape.chunk.get(page, slot));
            let next = shape.chunk.slot(block, (index + 1) % used).expect("fits");
            write_chunk(&shape, shape.chunk.get_mut(page, slot), next, &rows);
        }
    });
    let strict = Strict::with_budget(&store, STEPS);
    assert_corrupt(scan_all(&strict, &shape, None, WIDE));
    assert_corrupt(vacuum(&strict, &shape, |_| false));
}

#[test]
fn pages_in_a_circle_are_an_error() {
    let (parameters, store, head) = simple();
    let shape = parameters.shape();
    let head = store.read(head, |page| Head::decode(page, head, 1)).expect("in range").expect("a head");
    let tag = copy(&store, head.last[0]).tag().expect("ours");
    write(&store, head.last[0], |page| page.set_tag(Tag { next: head.first_element(), ..tag }));
    let strict = Strict::with_budget(&store, STEPS);
    for query in [None, Some(probe(Metric::L2, &[0.5; 250]))] {
        assert_corrupt(scan_all(&strict, &shape, query, WIDE));
    }
    assert_corrupt(vacuum(&strict, &shape, |_| false));
    assert_corrupt(each_segment(&strict, &shape, |segment| segment.count().map(|_| ())));
    each_segment(&strict, &shape, |segment| {
        assert!(!segment.check(&mut Vec::new())?.is_empty());
        Ok(())
    })
    .expect("a report");
}

/// Inserts once tried for ever: the directory sent them to a segment that refused them.
#[test]
fn a_sealed_segment_listed_as_active_is_an_error() {
    let (parameters, store, head) = simple();
    change_head(&store, head, |head| head.active = false);
    assert_corrupt(insert(&Strict::with_budget(&store, STEPS), &parameters, 9000, &[0.5; 250]));
}

/// On a server, a unit that locks a page it holds waits for itself, where no cancel reaches it.
#[test]
fn a_head_that_names_itself_as_a_page_with_room_is_an_error() {
    for kind in 0..4 {
        let (parameters, store, head) = simple();
        change_head(&store, head, |fields| fields.last[kind] = head);
        let strict = Strict::with_budget(&store, STEPS);
        let popular = Mixture::new(9, 250, 3).rows(1).remove(0);
        let results: Vec<Result<()>> = (9000..9050)
            .map(|row| {
                insert(&strict, &parameters, row, &if row.is_multiple_of(2) { popular.clone() } else { far_row(row) })
            })
            .collect();
        let corrupt = results.iter().filter(|r| matches!(r, Err(Error::Corrupt { .. }))).count();
        assert!(corrupt > 0 || kind == 3, "kind {kind}: {results:?}");
    }
}

fn far_row(row: u32) -> Vec<f32> {
    (0..250).map(|i| ((i * row) % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn a_metapage_without_a_beam_width_or_numbers_left_is_an_error() {
    let (parameters, store, _) = simple();
    let meta = Meta::read(&store).expect("sound");
    let spoil = |change: &dyn Fn(&mut Meta)| {
        let mut spoilt = meta.clone();
        change(&mut spoilt);
        write(&store, META_BLOCK, |page| spoilt.encode(page));
    };
    spoil(&|meta| meta.parameters.ef_construction = 0);
    assert_corrupt(insert(&store, &parameters, 9000, &[0.5; 250]));
    spoil(&|meta| meta.next_segment = u32::MAX);
    assert_corrupt(seal(&store));
}
