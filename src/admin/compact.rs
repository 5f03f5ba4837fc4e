//! `hybrid_compact`, `hybrid_history`.

use super::Inspected;
use crate::pg::relation::OpenIndex;
use crate::pg::rights;
use crate::pg::settings::timestamp;
use ann::compact::Report;
use pgrx::datum::Interval;
use pgrx::prelude::*;

fn ids(list: &[u32]) -> Vec<i64> {
    list.iter().map(|&id| i64::from(id)).collect()
}

type Row = (String, Vec<i64>, Option<i64>, i64, TimestampWithTimeZone, Interval);

fn row(report: Report) -> Row {
    let took = Interval::from_micros(report.finished - report.started);
    let output = report.output.map(i64::from);
    (report.action.name().to_string(), ids(&report.inputs), output, report.rows as i64, timestamp(report.started), took)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_compact(
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(action, String),
        name!(segments_in, Vec<i64>),
        name!(segment_out, Option<i64>),
        name!(rows, i64),
        name!(started, TimestampWithTimeZone),
        name!(duration, Interval),
    ),
> {
    rights::check_not_in_recovery(c"hybrid_compact()");
    let (opened, table) = OpenIndex::open_to_write(index);
    rights::check_may_maintain(&opened);
    let reports = crate::am::compact::compact_all(opened.index(), &table);
    let did = |report: &Report| report.rows > 0 || !report.inputs.is_empty();
    TableIterator::new(reports.into_iter().filter(did).map(row).collect::<Vec<_>>())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_history(
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(action, String),
        name!(segments_in, Vec<i64>),
        name!(segment_out, Option<i64>),
        name!(rows, i64),
        name!(started, TimestampWithTimeZone),
        name!(duration, Interval),
    ),
> {
    let inspected = Inspected::open(index);
    let reports = inspected.or_raise(ann::compact::history(&inspected.store));
    TableIterator::new(reports.into_iter().map(row).collect::<Vec<_>>())
}
