//! `hybrid_page`: what a page is.

use super::Inspected;
use crate::error::Fault;
use ann::index::SegmentKind;
use ann::page::{Kind, PageStore};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_page(
    index: pg_sys::Oid,
    block: i64,
) -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(segment, Option<i64>),
        name!(slots_used, Option<i32>),
        name!(slots, Option<i32>),
        name!(next, Option<i64>),
    ),
> {
    let inspected = Inspected::open(index);
    let blocks = inspected.store.block_count();
    let Some(block) = u32::try_from(block).ok().filter(|&b| b < blocks) else {
        let message = format!("block number {block} is out of range");
        Fault::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
            .detail(format!("The index has blocks 0 to {}.", blocks - 1))
            .raise()
    };
    let (tag, zero) = inspected.or_raise(inspected.store.read(block, |page| (page.tag(), page.is_zero())));
    let Some(tag) = tag else {
        let kind = if zero { "zero" } else { "unknown" };
        return TableIterator::once((kind.to_string(), None, None, None, None));
    };
    let segment = inspected.directory.segments.iter().find(|s| s.id == tag.segment);
    let shape = inspected.shapes.of(segment.map_or(SegmentKind::Hnsw, |s| s.kind));
    let slots = match tag.kind {
        Kind::Element => Some(shape.element.per_page),
        Kind::Upper => Some(shape.upper.per_page),
        Kind::Overflow => Some(shape.chunk.per_page),
        Kind::Tail => Some(shape.tail.per_page),
        _ => None,
    };
    TableIterator::once((
        tag.kind.name().to_string(),
        (tag.segment > 0).then_some(i64::from(tag.segment)),
        slots.map(|_| i32::from(tag.used)),
        slots.map(|s| s as i32),
        (tag.next != ann::page::NONE).then_some(i64::from(tag.next)),
    ))
}
