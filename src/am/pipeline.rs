//! Lots of rows that threads work on while the next lot is read.

use crate::error::raise;
use crate::pg::thread::Pool;
use ann::distance::Metric;
use ann::hnsw::probe::encode_row;
use ann::keys::Row;
use ann::relink::{Fingerprint, fingerprint};
use ann::sq8::Params;
use pgrx::PgSqlErrorCode;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes of vectors that go to a thread together.
pub(super) const LOT_BYTES: usize = 128 << 10;
/// Lots of a build that are worked on or wait.
pub(super) const WAITING: usize = 16;

/// Lots come out in the order in which they went in.
///
/// Invariant: `work` owns what it is given, so an ERROR may leave it behind.
pub(super) struct Pipeline<I, O> {
    work: fn(I) -> O,
    waiting: VecDeque<Receiver<O>>,
    most: usize,
}

impl<I: Send + 'static, O: Send + 'static> Pipeline<I, O> {
    /// In which `most` lots wait.
    pub fn new(work: fn(I) -> O, most: usize) -> Self {
        Self { work, waiting: VecDeque::new(), most }
    }

    /// Hands a lot over. The oldest, if too many wait, or if there is no second thread to do it.
    pub fn put(&mut self, pool: &Pool, lot: I) -> Option<O> {
        let work = self.work;
        if pool.threads() == 1 {
            return Some(work(lot));
        }
        let (done, result) = sync_channel(1);
        // A panic that leaves a spawned job ends the process.
        pool.rayon().spawn(move || _ = catch_unwind(AssertUnwindSafe(|| done.send(work(lot)))));
        self.waiting.push_back(result);
        if self.waiting.len() > self.most { self.next() } else { None }
    }

    /// The oldest lot, when it is done.
    pub fn next(&mut self) -> Option<O> {
        let result = self.waiting.pop_front()?.recv();
        let failed = |_| raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a thread failed; the server's log has more");
        Some(result.unwrap_or_else(failed))
    }
}

/// Rows of a scan, and what is made of them.
pub(super) struct Lot {
    metric: Metric,
    dimensions: usize,
    with_prints: bool,
    rows: Vec<Row>,
    vectors: Vec<f32>,
    /// Of a row that is indexed.
    params: Vec<Option<Params>>,
    codes: Vec<u8>,
    prints: Vec<Fingerprint>,
}

/// A row that is indexed.
pub(super) struct Encoded<'a> {
    pub row: &'a Row,
    pub params: Params,
    pub code: &'a [u8],
    /// Where it was asked for.
    pub print: Option<Fingerprint>,
}

impl Lot {
    /// For vectors of so many dimensions; `with_prints`: with the fingerprints of rows.
    pub fn new(metric: Metric, dimensions: usize, with_prints: bool) -> Self {
        let vectors = Vec::with_capacity(LOT_BYTES / size_of::<f32>() + dimensions);
        let (rows, params, codes, prints) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { metric, dimensions, with_prints, rows, vectors, params, codes, prints }
    }

    /// The lot, which leaves an empty one for the same.
    pub fn take(&mut self) -> Self {
        let empty = Self::new(self.metric, self.dimensions, self.with_prints);
        std::mem::replace(self, empty)
    }

    /// Adds a row of as many dimensions. Whether the lot is full.
    pub fn push(&mut self, row: &Row, vector: &[f32]) -> bool {
        self.rows.push(*row);
        self.vectors.extend_from_slice(vector);
        size_of_val(&self.vectors[..]) >= LOT_BYTES
    }

    /// Encodes the rows.
    pub fn encode(mut self) -> Self {
        self.codes.resize(self.vectors.len(), 0);
        let vectors = self.vectors.chunks_exact(self.dimensions);
        for ((row, vector), code) in self.rows.iter().zip(vectors).zip(self.codes.chunks_exact_mut(self.dimensions)) {
            self.params.push(encode_row(self.metric, vector, code).map(|(_, params)| params));
            if self.with_prints {
                self.prints.push(fingerprint(vector, &row.keys));
            }
        }
        self
    }

    /// What was encoded, but for rows that are not indexed.
    pub fn encoded(&self) -> impl Iterator<Item = Encoded<'_>> {
        let codes = self.codes.chunks_exact(self.dimensions);
        let all = self.rows.iter().zip(&self.params).zip(codes).enumerate();
        all.filter_map(|(i, ((row, params), code))| {
            params.map(|params| Encoded { row, params, code, print: self.prints.get(i).copied() })
        })
    }
}
