//! SQL functions for looking after an index.

mod check;
mod page;
mod recall;
mod segments;
mod stats;

use crate::am::keys::KeyType;
use crate::pg::buffer::IndexStore;
use crate::pg::key::{self, KeyColumns};
use crate::pg::relation::OpenIndex;
use ann::hnsw::read::Segment;
use ann::index::{Directory, Head, Meta, SegmentEntry, Shapes};
use pgrx::pg_sys;

pgrx::extension_sql_file!("../../sql/admin.sql", name = "admin", requires = ["access_method"]);

/// An index that a function looks at.
struct Inspected {
    opened: OpenIndex,
    store: IndexStore,
    meta: Meta,
    directory: Directory,
    shapes: Shapes,
}

impl Inspected {
    /// Opens the index, if the caller may look at it.
    fn open(oid: pg_sys::Oid) -> Self {
        let opened = OpenIndex::open(oid);
        crate::pg::rights::check_may_inspect(&opened, true);
        let store = IndexStore::new(opened.index());
        let (meta, directory) = crate::am::or_raise(opened.index(), Directory::read(&store));
        let shapes = meta.parameters.shapes();
        Self { opened, store, meta, directory, shapes }
    }

    /// Reads the directory again.
    fn refresh(&mut self) {
        (self.meta, self.directory) = self.or_raise(Directory::read(&self.store));
    }

    fn segment(&self, entry: &SegmentEntry) -> Segment<'_, IndexStore> {
        Segment { store: &self.store, shape: self.shapes.of(entry.kind), id: entry.id, head: entry.head }
    }

    /// The key column that ranges are told of, with its type: the age key, else the first.
    fn shown_key(&self) -> Option<(usize, KeyType)> {
        let column = self.meta.parameters.age_key.map_or(0, |age| age.column);
        KeyColumns::of(self.opened.index()).types().get(column).map(|&of| (column, of))
    }

    /// Smallest and largest value of the key shown among all rows that a segment has or had, as text.
    fn key_range(&self, entry: &SegmentEntry) -> (Option<String>, Option<String>) {
        let Some((column, of)) = self.shown_key() else { return (None, None) };
        let summary = self.or_raise(Head::read(&self.store, entry)).summary;
        match summary.map(|summary| summary.column(column)) {
            Some(range) if range.min <= range.max => (Some(key::text(of, range.min)), Some(key::text(of, range.max))),
            _ => (None, None),
        }
    }

    /// Unwraps, or raises what is wrong with the index.
    fn or_raise<T>(&self, result: ann::error::Result<T>) -> T {
        crate::am::or_raise(self.opened.index(), result)
    }
}
