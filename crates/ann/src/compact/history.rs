//! What compaction did: a ring of records on one page, written in the unit that made the change.

use super::{Action, Report};
use crate::error::{Error, Result};
use crate::index::{Flip, Meta};
use crate::page::{
    BODY_SIZE, Kind, META_BLOCK, Page, PageStore, Tag, Unit, get_u16, get_u32, get_u64, put_u16, put_u32, put_u64,
};

const HEADER: usize = 16;
const RECORD: usize = 64;
/// Records that are kept: the newest.
pub const HISTORY_RECORDS: usize = (BODY_SIZE - HEADER) / RECORD;
/// Inputs that a record names.
pub const MAX_INPUTS: usize = 8;

/// What compaction did, oldest first.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn history(store: &impl PageStore) -> Result<Vec<Report>> {
    let block = Meta::read(store)?.history;
    if block == META_BLOCK {
        return Ok(Vec::new());
    }
    store.read(block, |page| {
        page.expect(block, 0, Kind::History)?;
        let written = get_u64(page.body(), 0);
        let first = written.saturating_sub(HISTORY_RECORDS as u64);
        (first..written).map(|i| read(record(page.body(), i), block)).collect()
    })?
}

/// Adds a record to the unit of a structural change.
pub(super) fn add<U: Unit>(flip: &mut Flip<U>, report: &Report) -> Result<()> {
    if flip.meta.history == META_BLOCK {
        let (block, page) = flip.unit.allocate(Tag::new(0, Kind::History))?;
        flip.meta.history = block;
        note(page, report);
        return Ok(());
    }
    let block = flip.meta.history;
    let page = flip.unit.page(block)?;
    page.expect(block, 0, Kind::History)?;
    note(page, report);
    Ok(())
}

fn place(i: u64) -> std::ops::Range<usize> {
    let at = HEADER + (i % HISTORY_RECORDS as u64) as usize * RECORD;
    at..at + RECORD
}

fn record(body: &[u8], i: u64) -> &[u8] {
    &body[place(i)]
}

fn read(b: &[u8], block: u32) -> Result<Report> {
    let action =
        Action::from_byte(b[0]).ok_or_else(|| Error::corrupt(block, format!("has a record of action {}", b[0])))?;
    let inputs = (0..usize::from(get_u16(b, 2)).min(MAX_INPUTS)).map(|i| get_u32(b, 32 + 4 * i)).collect();
    let output = Some(get_u32(b, 4)).filter(|&id| id > 0);
    let (rows, started, finished) = (get_u64(b, 8), get_u64(b, 16) as i64, get_u64(b, 24) as i64);
    Ok(Report { action, inputs, output, rows, started, finished })
}

/// Adds a record to a page of the history.
pub fn note(page: &mut Page, report: &Report) {
    let body = page.body_mut();
    let written = get_u64(body, 0);
    put_u64(body, 0, written + 1);
    let b = &mut body[place(written)];
    b.fill(0);
    b[0] = report.action as u8;
    put_u16(b, 2, report.inputs.len().min(MAX_INPUTS) as u16);
    put_u32(b, 4, report.output.unwrap_or(0));
    put_u64(b, 8, report.rows);
    put_u64(b, 16, report.started as u64);
    put_u64(b, 24, report.finished as u64);
    for (i, &id) in report.inputs.iter().take(MAX_INPUTS).enumerate() {
        put_u32(b, 32 + 4 * i, id);
    }
}
