//! `hybrid_segments`.

use super::Inspected;
use ann::hnsw::check::Counts;
use ann::index::SegmentKind;
use ann::page::{Kind, PageStore};
use pgrx::prelude::*;
use std::collections::HashMap;

/// Pages of an index by what they are.
pub(super) struct PageCensus {
    /// By segment id.
    pub by_segment: HashMap<u32, i64>,
    /// Given up or never written.
    pub free: i64,
}

/// Looks at the tag of every page.
pub(super) fn census(inspected: &Inspected) -> PageCensus {
    let mut census = PageCensus { by_segment: HashMap::new(), free: 0 };
    for block in 0..inspected.store.block_count() {
        pgrx::check_for_interrupts!();
        match inspected.or_raise(inspected.store.read(block, |page| page.tag())) {
            Some(tag) if tag.kind != Kind::Free => *census.by_segment.entry(tag.segment).or_default() += 1,
            _ => census.free += 1,
        }
    }
    census
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_segments(
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(id, i64),
        name!(kind, String),
        name!(state, String),
        name!(rows, i64),
        name!(dead_rows, i64),
        name!(lists, Option<i32>),
        name!(min_key, Option<String>),
        name!(max_key, Option<String>),
        name!(pages, i64),
        name!(created, TimestampWithTimeZone),
        name!(exported, Option<TimestampWithTimeZone>),
    ),
> {
    let inspected = Inspected::open(index);
    let census = census(&inspected);
    let rows: Vec<_> = inspected
        .directory
        .segments
        .iter()
        .map(|entry| {
            let Counts { rows, routers, .. } = inspected.or_raise(inspected.segment(entry).tally());
            let head = inspected.or_raise(inspected.segment(entry).read_head());
            let (min_key, max_key) = inspected.key_range(entry);
            (
                i64::from(entry.id),
                entry.kind.name().to_string(),
                if entry.active { "active" } else { "sealed" }.to_string(),
                rows as i64,
                routers as i64,
                (entry.kind == SegmentKind::Ivf).then_some(head.lists as i32),
                min_key,
                max_key,
                census.by_segment.get(&entry.id).copied().unwrap_or(0),
                crate::pg::settings::timestamp(entry.created),
                None,
            )
        })
        .collect();
    TableIterator::new(rows)
}
