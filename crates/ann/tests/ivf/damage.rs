//! Pages that lie: whatever bytes an IVF segment has, reading it returns, with rows or with an error.

use crate::data::{Mixture, Rng};
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::scan::Limits;
use ann::index::{Directory, Head, Meta, Parameters, SegmentKind, chain_index};
use ann::ivf::check::forms;
use ann::ivf::layout::at as centroid_at;
use ann::keys::{Condition, Filter, Keys};
use ann::memory::MemoryStore;
use ann::page::{BODY_SIZE, HEADER_SIZE, Kind, NONE, PAGE_SIZE, Page, PageStore, TRAILER_SIZE, Tag, Unit};
use ann::shape::{Shape, at};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn sound_index(parameters: &Parameters, n: usize) -> MemoryStore {
    let mut vectors = Mixture::new(9, parameters.dimensions, 3).rows(n);
    let popular = vectors[0].clone();
    vectors[..n / 4].fill(popular);
    let mut rows = table(0, vectors);
    if parameters.keys > 0 {
        rows.iter_mut().for_each(|row| row.keys = Keys::new(&[Some(i64::from(row.id))]));
    }
    let store = empty(parameters);
    add_ivf(&store, parameters, &rows, 6);
    assert_sound(&store);
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
    let slot = block * shape.element.per_page + rng.below(shape.element.per_page as usize) as u32;
    let float = rng.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 1e-45]).to_bits();
    let any = rng.next() as u32;
    rng.pick(&[0, 1, 2, 16, 0xFFFF, NONE, NONE - 1, 1 << 31, block, block, slot, slot, float, float, any])
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
            let field = rng.pick(&[at::ROW_COUNT, at::INLINE_COUNT, at::SCALE, at::NORM2, at::RESIDUAL, at::OVERFLOW]);
            HEADER_SIZE + rng.below(shape.element.per_page as usize) * shape.element.size + field
        }
        (_, Some(Kind::Centroid)) => {
            let record = rng.below(6) * forms(shape).record_size() % (BODY_SIZE - 200);
            HEADER_SIZE + record + rng.below(centroid_at::SUMMARY / 4 + 4) * 4
        }
        (_, Some(Kind::Posting)) => HEADER_SIZE + 16 * rng.below(BODY_SIZE / 16) + 4 * rng.below(3),
        _ => HEADER_SIZE + 4 * rng.below(54),
    };
    let bytes = value.to_le_bytes();
    let len = rng.pick(&[1, 2, 4, 4]);
    write(store, block, |page| page.0[place..place + len].copy_from_slice(&bytes[..len]));
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
    run("check", &|s, _| each_segment(s, |segment| segment.check(&mut Vec::new()).map(|_| ())));
    run("count", &|s, _| each_segment(s, |segment| segment.count().map(|_| ())));
    run("full scan", &|s, _| scan_all(s, None, &Filter::none(), WIDE).map(|_| ()));
    for limits in [NARROW, WIDE, Limits { ef_search: 1, probes: 100, ..WIDE }] {
        run("scan", &|s, p| scan_all(s, Some(&vector(p)), &Filter::none(), limits).map(|_| ()));
        run("filtered scan", &|s, p| {
            let mut filter = Filter::none();
            if p.keys > 0 {
                filter.and(Condition { column: 0, min: 10, max: 60, null: false });
            }
            scan_all(s, Some(&vector(p)), &filter, limits).map(|_| ())
        });
    }
    run("vacuum", &|s, _| vacuum(s, |row| row.is_multiple_of(2)));
}

fn survive(parameters: &Parameters, n: usize, seeds: std::ops::Range<u64>) {
    let sound = sound_index(parameters, n);
    let shape = *parameters.shapes().of(SegmentKind::Ivf);
    let mut failed = Vec::new();
    for seed in seeds {
        let (mut rng, store) = (Rng::new(seed), sound.clone());
        (0..1 + rng.below(4)).for_each(|_| damage(&mut rng, &store, &shape));
        if catch_unwind(AssertUnwindSafe(|| use_all(&store))).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} seeds: {failed:?}", failed.len());
}

#[test]
fn damage_never_panics_nor_loops() {
    survive(&parameters(Metric::L2, 250, 1), 200, 0..300);
    survive(&parameters(Metric::InnerProduct, 60, 0), 300, 500..700);
}

#[test]
fn damage_never_panics_nor_loops_where_codes_have_tails_or_there_are_none() {
    let with_tails = parameters(Metric::Cosine, 4500, 0);
    assert!(with_tails.shapes().flat.tails > 0);
    survive(&with_tails, 80, 1000..1080);
    survive(&parameters(Metric::L1, 40, 1), 300, 2000..2150);
}

/// The lists of a segment, as the check is to find them.
fn problems(store: &MemoryStore) -> Vec<String> {
    let mut problems = Vec::new();
    each_segment(store, |segment| {
        problems.extend(segment.check(&mut Vec::new())?.into_iter().map(|problem| problem.what));
        Ok(())
    })
    .expect("a report");
    problems
}

fn first_of(store: &MemoryStore, kind: Kind) -> u32 {
    let is_kind = |&block: &u32| copy(store, block).tag().is_some_and(|tag| tag.kind == kind);
    (0..store.block_count()).find(is_kind).expect("there is one")
}

/// Each of these once would have passed unseen, and hidden rows from searches.
#[test]
fn the_check_finds_what_hides_rows() {
    let parameters = parameters(Metric::L2, 30, 1);
    let sound = sound_index(&parameters, 300);
    let forms = forms(&parameters.shapes().flat);
    let spoil = |kind: Kind, at: usize, value: u32| {
        let store = sound.clone();
        let block = first_of(&store, kind);
        write(&store, block, |page| page.body_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes()));
        problems(&store)
    };
    assert!(problems(&sound).is_empty());
    let slots = forms.code_bytes + ann::ivf::layout::block_at::SLOT;
    let keys = forms.code_bytes + ann::ivf::layout::block_at::KEYS;
    for (kind, at, value) in [
        (Kind::Centroid, centroid_at::POSTINGS, 1),
        (Kind::Centroid, centroid_at::POSTINGS, 100_000),
        (Kind::Centroid, centroid_at::POSTING_OFFSET, 16),
        (Kind::Centroid, centroid_at::POSTING_OFFSET, 17),
        (Kind::Centroid, centroid_at::ELEMENTS, 0),
        (Kind::Centroid, centroid_at::FIRST_ELEMENT, 3),
        (Kind::Centroid, centroid_at::SUMMARY + 8, 295),
        (Kind::Posting, slots, NONE),
        (Kind::Posting, slots, 12),
        (Kind::Posting, keys + 8, 100_000),
    ] {
        assert!(!spoil(kind, at, value).is_empty(), "{kind:?}, byte {at}: {value}");
    }
    let head = Directory::read(&sound).expect("sound").1.segments[0];
    let store = sound.clone();
    write(&store, head.head, |page| {
        let mut fields = Head::decode(page, head.head, head.id).expect("a head");
        fields.lists -= 1;
        fields.encode(page);
    });
    assert!(!problems(&store).is_empty(), "a list that the head does not count");
    let last = Head::read(&sound, &head).expect("sound").last[chain_index(Kind::Posting)];
    let store = sound.clone();
    write(&store, last, |page| {
        let tag = page.tag().expect("ours");
        page.set_tag(Tag { used: tag.used - 1, ..tag });
    });
    assert!(!problems(&store).is_empty(), "a page of postings that is too short");
}
