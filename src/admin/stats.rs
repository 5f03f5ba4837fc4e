//! `hybrid_stats`.

use super::Inspected;
use super::segments::census;
use crate::pg::key;
use crate::pg::reloptions::Options;
use ann::distance::{Metric, kernels};
use ann::hnsw::check::Counts;
use ann::index::{Parameters, SegmentKind};
use ann::page::{PAGE_SIZE, PageStore};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::L2 => "l2",
        Metric::InnerProduct => "ip",
        Metric::Cosine => "cosine",
        Metric::L1 => "l1",
    }
}

fn span(microseconds: i64) -> Value {
    if microseconds == i64::MAX { json!("infinity") } else { json!(format!("{} hours", microseconds / 3_600_000_000)) }
}

fn rerank_name(rerank: u8) -> &'static str {
    ["sq8", "f16", "f32"].get(usize::from(rerank)).copied().unwrap_or("unknown")
}

fn options_in_force(o: &Options) -> Value {
    json!({
        "m": o.m, "ef_construction": o.ef_construction, "lists": o.lists, "recent_threshold": span(o.recent_threshold),
        "recent_rows": o.recent_rows, "segment_rows": o.segment_rows, "pending_rows": o.pending_rows,
        "partition_interval": span(o.partition_interval), "rerank": rerank_name(o.rerank),
        "ef_search": crate::guc::ef_search(o.ef_search), "auto_compact": o.auto_compact,
    })
}

fn options_as_built(p: &Parameters) -> Value {
    json!({
        "m": p.m, "ef_construction": p.ef_construction, "lists": p.lists, "recent_threshold": span(p.recent_threshold),
        "recent_rows": p.recent_rows, "segment_rows": p.segment_rows, "pending_rows": p.pending_rows,
        "partition_interval": span(p.partition_interval), "rerank": rerank_name(p.rerank),
    })
}

/// The smallest age key among the rows of graphs.
fn oldest_recent(inspected: &Inspected) -> Option<String> {
    inspected.meta.parameters.age_key?;
    let (column, of) = inspected.shown_key()?;
    let mut oldest = None;
    for entry in inspected.directory.segments.iter().filter(|entry| entry.kind == SegmentKind::Hnsw) {
        inspected.or_raise(inspected.segment(entry).each_row(|row| {
            oldest = oldest.into_iter().chain(row.keys.get(column)).min();
        }));
    }
    oldest.map(|value| key::text(of, value))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_stats(
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(rows, i64),
        name!(dead_rows, i64),
        name!(elements, i64),
        name!(unreachable, i64),
        name!(dimensions, i32),
        name!(metric, String),
        name!(bytes_per_row, Option<f64>),
        name!(recent_rows, i64),
        name!(old_rows, i64),
        name!(oldest_recent, Option<String>),
        name!(segments, i32),
        name!(pages, i64),
        name!(free_pages, i64),
        name!(simd, String),
        name!(options, JsonB),
        name!(built_with, JsonB),
    ),
> {
    let inspected = Inspected::open(index);
    let (mut total, mut old_rows) = (Counts::default(), 0);
    for entry in &inspected.directory.segments {
        let counts = inspected.or_raise(inspected.segment(entry).count());
        total.rows += counts.rows;
        old_rows += if entry.kind == SegmentKind::Ivf { counts.rows } else { 0 };
        total.elements += counts.elements;
        total.routers += counts.routers;
        total.unreachable += counts.unreachable;
    }
    let blocks = inspected.store.block_count();
    let bytes = f64::from(blocks) * PAGE_SIZE as f64;
    let p = &inspected.meta.parameters;
    let options = Options::of(inspected.opened.index());
    TableIterator::once((
        total.rows as i64,
        total.routers as i64,
        total.elements as i64,
        total.unreachable as i64,
        p.dimensions as i32,
        metric_name(p.metric).to_string(),
        (total.rows > 0).then(|| (bytes / total.rows as f64 * 10.0).round() / 10.0),
        (total.rows - old_rows) as i64,
        old_rows as i64,
        oldest_recent(&inspected),
        inspected.directory.segments.len() as i32,
        i64::from(blocks),
        census(&inspected).free,
        kernels().name.to_string(),
        JsonB(options_in_force(&options)),
        JsonB(options_as_built(p)),
    ))
}
