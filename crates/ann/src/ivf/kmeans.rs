//! Centroids: k-means on a sample (k-means++ start, Lloyd's iterations, empty lists reseated), by many threads.
//!
//! The result depends on the vectors and the seed only, never on the number of threads.

use super::assign::{BLOCK_ROWS, Nearest, Panels};
use super::rotate::Random;
use crate::distance::{Metric, kernels};
use crate::error::{Error, Result};
use crate::hnsw::build::{CancelOnDrop, Running, Stop};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Vectors by number. Threads read them at the same time.
pub trait Vectors: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes vector `i`, below [`Self::len`], to `out`.
    fn read(&self, i: usize, out: &mut [f32]);
}

/// Rows of the training sample for each list.
const SAMPLE: usize = 96;
/// Rows for each list that the first centroids are chosen from.
const START_SAMPLE: usize = 32;
/// Lloyd's iterations, at most.
const ITERATIONS: usize = 10;
/// An iteration that takes off less than this share of the squared distances is the last.
const ENOUGH: f64 = 2e-3;
/// With more lists than this, lists are trained group by group. Measured with 894 lists: as good as all together.
const TWO_LEVEL_FROM: usize = 2048;
/// Fewer rows are not worth a list.
const LEAST_ROWS: u64 = 32;

/// Lists for so many rows: about 2 sqrt(rows).
pub fn lists_for(rows: u64) -> u32 {
    let by_root = 2.0 * (rows as f64).sqrt();
    by_root.min((rows / LEAST_ROWS) as f64).clamp(1.0, 65_536.0) as u32
}

/// How work is done: on threads that know nothing of the caller, while the caller polls.
pub struct Work<'a> {
    /// Where the threads are.
    pub pool: &'a rayon::ThreadPool,
    /// How many of them to use.
    pub threads: usize,
    /// Stops the threads from outside.
    pub stop: &'a Stop,
    /// Called by the caller's own thread again and again, with the vectors done so far (of all passes); it should wait a
    /// little. An error ends the work.
    pub poll: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl Work<'_> {
    /// Runs `job` on a thread of the pool while this one polls.
    ///
    /// # Errors
    /// Those of `poll` and of `job`; [`Error::Stopped`] where the threads were stopped.
    pub(crate) fn drive<T: Send>(&mut self, job: impl FnOnce(&Job) -> Result<T> + Send) -> Result<T> {
        let (stop, threads, poll) = (self.stop, self.threads.max(1), &mut self.poll);
        stop.cancel.store(false, Relaxed);
        let done = AtomicU64::new(0);
        let mut outcome = Err(Error::Stopped);
        self.pool.in_place_scope(|scope| {
            // Set on unwind too: the scope joins its threads before the panic goes on.
            let _cancel = CancelOnDrop(&stop.cancel);
            let running = Running::new(stop);
            let (done, outcome) = (&done, &mut outcome);
            scope.spawn(move |_| {
                let _running = running;
                *outcome = job(&Job { stop, threads, done });
            });
            // A thread that panics ends without an outcome; joining brings its panic here.
            while stop.running.load(Relaxed) > 0 {
                poll(done.load(Relaxed))?;
            }
            Ok(())
        })?;
        outcome
    }
}

/// The threads' side of [`Work`].
pub(crate) struct Job<'a> {
    stop: &'a Stop,
    threads: usize,
    done: &'a AtomicU64,
}

impl Job<'_> {
    /// # Errors
    /// [`Error::Stopped`] where the work is to stop.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.cancel.load(Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Counts vectors, for the caller to see.
    pub fn count(&self, vectors: usize) {
        self.done.fetch_add(vectors as u64, Relaxed);
    }

    /// Gives `out` in pieces of `size` values, with the number of the piece, to `work` on all threads. Each thread makes
    /// itself a `state`.
    pub fn each<T: Send, S>(
        &self,
        out: &mut [T],
        size: usize,
        state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize, &mut [T]) + Sync,
    ) -> Result<()> {
        let pieces = Mutex::new(out.chunks_mut(size.max(1)).enumerate());
        let next = || pieces.lock().unwrap_or_else(|e| e.into_inner()).next();
        rayon::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|_| {
                    let mut state = state();
                    while let (Ok(()), Some((i, piece))) = (self.go_on(), next()) {
                        work(&mut state, i, piece);
                    }
                });
            }
        });
        self.go_on()
    }
}

/// Trains `lists` centroids (fewer where there are fewer vectors, at least one), one after the other in the result.
///
/// For cosine, and for inner product of vectors of much the same length, they are grouped by direction (spherical
/// k-means), and a list's centroid is that direction, as long as the list's vectors are on average, times the average
/// cosine between vectors and directions: the same for all lists, so that unit vectors' lists are ranked by angle alone,
/// yet residuals are almost as small as those to the means. Otherwise, by Euclidean distance around means.
///
/// # Errors
/// Those of `work`'s poll; [`Error::Stopped`].
pub fn train(
    vectors: &impl Vectors,
    dimensions: usize,
    lists: u32,
    metric: Metric,
    seed: u64,
    work: &mut Work,
) -> Result<Vec<f32>> {
    let lists = (lists as usize).clamp(1, vectors.len().max(1));
    if vectors.is_empty() {
        return Ok(vec![0.0; dimensions]);
    }
    let spherical = match metric {
        Metric::Cosine => true,
        Metric::InnerProduct => equally_long(vectors, dimensions),
        _ => false,
    };
    let trainer = Trainer { vectors, dimensions, spherical, unit: metric == Metric::Cosine };
    work.drive(|job| {
        let mut random = Random(seed);
        let all = 0..vectors.len() as u32;
        let sample: Vec<u32> = spread(all.len(), lists.saturating_mul(SAMPLE), &mut random).map(|i| i as u32).collect();
        if lists <= TWO_LEVEL_FROM {
            let (mut centroids, nearest) = trainer.flat(job, &sample, lists, &mut random)?;
            trainer.stretch(&sample, &mut centroids, &nearest);
            return Ok(centroids);
        }
        trainer.two_level(job, &sample, lists, &mut random)
    })
}

/// Centers of `groups` groups of vectors.
pub(super) fn group(vectors: &impl Vectors, dimensions: usize, groups: usize, job: &Job) -> Result<Vec<f32>> {
    let trainer = Trainer { vectors, dimensions, spherical: false, unit: false };
    let all: Vec<u32> = (0..vectors.len() as u32).collect();
    Ok(trainer.flat(job, &all, groups, &mut Random(1))?.0)
}

/// Whether lengths differ little from vector to vector. Where they do not, k-means by direction puts long and short ones
/// together: measured on images, that doubles the rows to scan under inner product.
fn equally_long(vectors: &impl Vectors, dimensions: usize) -> bool {
    const SOME: usize = 1000;
    let mut row = vec![0.0; dimensions];
    let mut random = Random(1);
    let lengths = spread(vectors.len(), SOME, &mut random).map(|i| {
        vectors.read(i, &mut row);
        norm(&row)
    });
    let (sum, squares) = lengths.fold((0.0, 0.0), |(sum, squares), length| (sum + length, squares + length * length));
    let mean = sum / vectors.len().min(SOME) as f64;
    squares / vectors.len().min(SOME) as f64 - mean * mean < 0.01 * mean * mean
}

/// At most `wanted` of `n` numbers, ascending: one from each of as many equal spans.
fn spread(n: usize, wanted: usize, random: &mut Random) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(n);
    let bound = move |i: usize| (i as u128 * n as u128 / wanted as u128) as usize;
    (0..wanted).map(move |i| bound(i) + random.below((bound(i + 1) - bound(i)) as u64) as usize)
}

struct Trainer<'a, V> {
    vectors: &'a V,
    dimensions: usize,
    spherical: bool,
    /// Vectors have length one as they are.
    unit: bool,
}

impl<V: Vectors> Trainer<'_, V> {
    /// Centroids of the rows, and the list of each row.
    fn flat(&self, job: &Job, rows: &[u32], lists: usize, random: &mut Random) -> Result<(Vec<f32>, Vec<Nearest>)> {
        let mut centroids = self.start(job, rows, lists, random)?;
        let (mut nearest, mut before) = (vec![Nearest::NONE; rows.len()], f64::INFINITY);
        for i in 0..3 * ITERATIONS {
            let error = self.assign(job, rows, &centroids, &mut nearest)?;
            let converged = before.is_finite() && before - error <= ENOUGH * before;
            before = error;
            // Invariant: rows were assigned to the centroids that are returned, and no list is empty as far as that
            // can be had: reseated centroids are tried before anything else moves.
            if !self.reseat(rows, &mut centroids, &nearest) {
                if converged || i >= ITERATIONS {
                    break;
                }
                self.update(job, rows, &mut centroids, &nearest)?;
            }
        }
        Ok((centroids, nearest))
    }

    /// The first centroids: rows, each drawn with a probability in proportion to its squared distance to those drawn
    /// before (k-means++: Arthur & Vassilvitskii, SODA 2007). A quarter as many as there are is drawn at a time, since a
    /// pass over the rows costs about the same for 32 centroids as for one.
    fn start(&self, job: &Job, rows: &[u32], lists: usize, random: &mut Random) -> Result<Vec<f32>> {
        let pool: Vec<u32> = spread(rows.len(), lists.saturating_mul(START_SAMPLE), random).map(|i| rows[i]).collect();
        let mut nearest = vec![Nearest::NONE; pool.len()];
        let mut chosen = vec![random.below(pool.len() as u64) as usize];
        let mut fresh = self.read(&[pool[chosen[0]]]);
        let mut centroids = fresh.clone();
        while chosen.len() < lists {
            let panels = Panels::new(&fresh, self.dimensions);
            self.scan(job, &pool, &panels, &mut nearest)?;
            let mut weights: Vec<f64> = nearest.iter().map(|n| f64::from(n.distance2).clamp(0.0, 1e300)).collect();
            chosen.iter().for_each(|&i| weights[i] = 0.0);
            let wanted = (chosen.len() / 4).max(1).min(lists - chosen.len());
            let drawn = draw(&mut weights, wanted, &chosen, random);
            fresh = self.read(&drawn.iter().map(|&i| pool[i]).collect::<Vec<_>>());
            centroids.extend_from_slice(&fresh);
            chosen.extend(drawn);
        }
        Ok(centroids)
    }

    fn read(&self, rows: &[u32]) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * self.dimensions];
        for (&row, values) in rows.iter().zip(values.chunks_exact_mut(self.dimensions)) {
            self.read_one(row, values);
        }
        values
    }

    /// A row as it is trained on.
    fn read_one(&self, row: u32, out: &mut [f32]) {
        self.vectors.read(row as usize, out);
        if self.spherical && !self.unit {
            normalize(out);
        }
    }

    /// Puts each row where it is nearest; the sum of the squared distances.
    fn assign(&self, job: &Job, rows: &[u32], centroids: &[f32], nearest: &mut [Nearest]) -> Result<f64> {
        nearest.fill(Nearest::NONE);
        self.scan(job, rows, &Panels::new(centroids, self.dimensions), nearest)?;
        Ok(nearest.iter().map(|n| f64::from(n.distance2)).sum())
    }

    /// Lets each row know of more centroids: distances only fall.
    fn scan(&self, job: &Job, rows: &[u32], panels: &Panels, nearest: &mut [Nearest]) -> Result<()> {
        job.each(
            nearest,
            BLOCK_ROWS,
            || panels.scanner(),
            |scanner, i, nearest| {
                let rows = &rows[i * BLOCK_ROWS..][..nearest.len()];
                scanner.load(rows.iter(), |&row, values| self.read_one(row, values));
                scanner.nearest(panels, nearest);
                job.count(rows.len());
            },
        )
    }

    /// Moves each centroid to the mean of its rows.
    fn update(&self, job: &Job, rows: &[u32], centroids: &mut [f32], nearest: &[Nearest]) -> Result<()> {
        let (order, ranges) = by_list(nearest, centroids.len() / self.dimensions);
        let state = || (vec![0f32; self.dimensions], vec![0f64; self.dimensions]);
        job.each(centroids, self.dimensions, state, |(row, sum), list, centroid| {
            let members = &order[ranges[list].clone()];
            if members.is_empty() {
                return;
            }
            sum.fill(0.0);
            for &i in members {
                self.read_one(rows[i as usize], row);
                sum.iter_mut().zip(row.iter()).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            self.place(sum, members.len(), centroid);
        })
    }

    fn place(&self, sum: &[f64], count: usize, centroid: &mut [f32]) {
        let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        let length = if self.spherical { norm } else { count as f64 };
        // Members that cancel each other have no direction: the centroid stays.
        if length > 0.0 {
            centroid.iter_mut().zip(sum).for_each(|(c, x)| *c = (x / length) as f32);
        }
    }

    /// Moves the centroids of empty lists to rows far from their own, one of each list at a time; whether there were any.
    fn reseat(&self, rows: &[u32], centroids: &mut [f32], nearest: &[Nearest]) -> bool {
        let lists = centroids.len() / self.dimensions;
        let mut sizes = vec![0u32; lists];
        nearest.iter().for_each(|n| sizes[n.list as usize] += 1);
        let mut empty: Vec<usize> = (0..lists).filter(|&list| sizes[list] == 0).collect();
        if empty.is_empty() {
            return false;
        }
        let mut far: Vec<usize> = (0..rows.len()).filter(|&i| nearest[i].distance2 > 0.0).collect();
        far.sort_by(|&a, &b| nearest[b].distance2.total_cmp(&nearest[a].distance2));
        let mut moved = false;
        for i in far {
            let from = nearest[i].list as usize;
            // Rows that lie together would make empty lists of each other.
            if sizes[from] < 2 {
                continue;
            }
            let Some(list) = empty.pop() else { break };
            sizes[from] -= 1;
            self.read_one(rows[i], &mut centroids[list * self.dimensions..][..self.dimensions]);
            moved = true;
        }
        moved
    }

    /// Groups first, then the lists of each group from its own rows.
    fn two_level(&self, job: &Job, rows: &[u32], lists: usize, random: &mut Random) -> Result<Vec<f32>> {
        let groups = (lists as f64).sqrt() as usize;
        let some: Vec<u32> = spread(rows.len(), groups * SAMPLE * 2, random).map(|i| rows[i]).collect();
        let (coarse, _) = self.flat(job, &some, groups, random)?;
        let mut nearest = vec![Nearest::NONE; rows.len()];
        self.assign(job, rows, &coarse, &mut nearest)?;
        let (order, ranges) = by_list(&nearest, groups);
        let mut centroids = Vec::with_capacity(lists * self.dimensions);
        let (mut grouped, mut lists_of) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (range, share) in ranges.iter().zip(shares(&ranges, rows.len(), lists)) {
            if share > 0 {
                let members: Vec<u32> = order[range.clone()].iter().map(|&i| rows[i as usize]).collect();
                let (own, nearest) = self.flat(job, &members, share, random)?;
                let first = (centroids.len() / self.dimensions) as u32;
                lists_of.extend(nearest.iter().map(|n| Nearest { list: first + n.list, ..*n }));
                grouped.extend(members);
                centroids.extend(own);
            }
        }
        self.stretch(&grouped, &mut centroids, &lists_of);
        Ok(centroids)
    }

    /// Gives directions the lengths that [`train`] says.
    fn stretch(&self, rows: &[u32], centroids: &mut [f32], nearest: &[Nearest]) {
        if !self.spherical {
            return;
        }
        let (mut row, mut lengths) =
            (vec![0.0; self.dimensions], vec![(0f64, 0f64); centroids.len() / self.dimensions]);
        let (mut cosines, mut counted) = (0f64, 0f64);
        for (&i, nearest) in rows.iter().zip(nearest) {
            let length = if self.unit {
                1.0
            } else {
                self.vectors.read(i as usize, &mut row);
                norm(&row)
            };
            if length > 0.0 {
                // Between unit vectors.
                cosines += 1.0 - f64::from(nearest.distance2).min(4.0) / 2.0;
                counted += 1.0;
            }
            let list = &mut lengths[nearest.list as usize];
            *list = (list.0 + length, list.1 + 1.0);
        }
        let cosine = if cosines > 0.0 { cosines / counted } else { 1.0 };
        for (centroid, (length, count)) in centroids.chunks_exact_mut(self.dimensions).zip(lengths) {
            if length > 0.0 {
                let factor = cosine * length / count;
                centroid.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
            }
        }
    }
}

/// How many of the lists each group gets: in proportion to its rows, in all `lists`, never more than it has rows.
fn shares(ranges: &[Range<usize>], rows: usize, lists: usize) -> impl Iterator<Item = usize> {
    let bound = move |at: usize| (at as u128 * lists as u128 / rows as u128) as usize;
    ranges.iter().map(move |range| bound(range.end) - bound(range.start))
}

/// Row numbers list by list, and where each list lies among them.
pub(super) fn by_list(nearest: &[Nearest], lists: usize) -> (Vec<u32>, Vec<Range<usize>>) {
    let mut ends = vec![0usize; lists + 1];
    nearest.iter().for_each(|n| ends[n.list as usize + 1] += 1);
    for list in 0..lists {
        ends[list + 1] += ends[list];
    }
    let ranges = (0..lists).map(|list| ends[list]..ends[list + 1]).collect();
    let mut order = vec![0; nearest.len()];
    for (i, n) in nearest.iter().enumerate() {
        let end = &mut ends[n.list as usize];
        order[*end] = i as u32;
        *end += 1;
    }
    (order, ranges)
}

/// Draws `wanted` different rows by weight; where weights run out, any that are not in `chosen`.
fn draw(weights: &mut [f64], wanted: usize, chosen: &[usize], random: &mut Random) -> Vec<usize> {
    let mut drawn = Vec::with_capacity(wanted);
    let mut sums = Vec::with_capacity(weights.len());
    let mut attempts = 0;
    while drawn.len() < wanted {
        // Rows drawn since the sums were made are drawn again in vain: make them anew when that is often.
        if attempts % (2 * wanted) == 0 {
            sums.clear();
            sums.extend(weights.iter().scan(0f64, |sum, &w| {
                *sum += w;
                Some(*sum)
            }));
        }
        attempts += 1;
        let total = sums.last().copied().unwrap_or(0.0);
        if total <= 0.0 || !total.is_finite() {
            break;
        }
        let target = random.unit() * total;
        let i = sums.partition_point(|&sum| sum <= target).min(weights.len() - 1);
        if weights[i] > 0.0 {
            weights[i] = 0.0;
            drawn.push(i);
        }
    }
    let mut taken = vec![false; weights.len()];
    chosen.iter().chain(&drawn).for_each(|&i| taken[i] = true);
    drawn.extend((0..weights.len()).filter(|&i| !taken[i]).take(wanted - drawn.len()));
    drawn
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// To length one; zero vectors stay.
fn normalize(vector: &mut [f32]) {
    let inverse = 1.0 / norm2(vector).sqrt();
    if inverse.is_normal() && inverse < 1e15 {
        return vector.iter_mut().for_each(|x| *x *= inverse);
    }
    // Squares that f32 does not hold.
    let norm = norm(vector);
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Squared norm in f32, infinite where that does not hold it.
pub(super) fn norm2(vector: &[f32]) -> f32 {
    (kernels().dot)(vector, vector)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    pub struct Rows {
        pub dimensions: usize,
        pub values: Vec<f32>,
    }

    impl Vectors for Rows {
        fn len(&self) -> usize {
            self.values.len() / self.dimensions
        }

        fn read(&self, i: usize, out: &mut [f32]) {
            out.copy_from_slice(&self.values[i * self.dimensions..(i + 1) * self.dimensions]);
        }
    }

    /// Rows around `clusters` centers.
    pub fn clustered(rows: usize, dimensions: usize, clusters: usize, seed: u64) -> Rows {
        let mut random = Random(seed);
        let centers: Vec<f32> = (0..clusters * dimensions).map(|_| random.unit() as f32 * 10.0 - 5.0).collect();
        let values = (0..rows).flat_map(|_| {
            let center = &centers[random.below(clusters as u64) as usize * dimensions..][..dimensions];
            center.iter().map(|c| c + random.unit() as f32).collect::<Vec<_>>()
        });
        Rows { dimensions, values: values.collect() }
    }

    pub fn with_work<T>(run: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        with_threads(2, run)
    }

    fn with_threads<T>(threads: usize, run: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut poll = |_| {
            std::thread::sleep(Duration::from_micros(100));
            Ok(())
        };
        run(&mut Work { pool: &pool, threads, stop: &Stop::new(), poll: &mut poll })
    }

    /// Rows of each list, by brute force; and the mean squared distance.
    fn sizes(rows: &Rows, centroids: &[f32]) -> (Vec<usize>, f64) {
        let d = rows.dimensions;
        let mut sizes = vec![0; centroids.len() / d];
        let mut total = 0.0;
        for row in rows.values.chunks(d) {
            let distance2 = |c: &[f32]| row.iter().zip(c).map(|(&x, &y)| f64::from(x - y).powi(2)).sum::<f64>();
            let all = centroids.chunks(d).map(distance2).enumerate();
            let (list, least) = all.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a list");
            sizes[list] += 1;
            total += least;
        }
        (sizes, total / rows.len() as f64)
    }

    #[test]
    fn clusters_are_found() {
        let rows = clustered(3000, 16, 40, 5);
        let centroids = with_work(|work| train(&rows, 16, 40, Metric::L2, 1, work)).unwrap();
        let (sizes, error) = sizes(&rows, &centroids);
        assert!(sizes.iter().all(|&n| n > 0));
        // 16 / 12 within each cluster; two clusters in one list, and one split, would cost about 60 / 40 each.
        assert!(error < 16.0 / 12.0 + 10.0, "mean squared distance {error}");
    }

    #[test]
    fn no_list_is_empty_where_rows_are_distinct() {
        for (rows, dimensions, clusters, lists) in
            [(200, 4, 3, 200), (500, 2, 500, 100), (1000, 8, 2, 300), (64, 3, 1, 63), (900, 5, 1, 1)]
        {
            let rows = clustered(rows, dimensions, clusters, 11);
            let centroids = with_work(|work| train(&rows, dimensions, lists, Metric::L2, 1, work)).unwrap();
            let (sizes, _) = sizes(&rows, &centroids);
            assert_eq!(sizes.len(), lists as usize);
            let empty = sizes.iter().filter(|&&n| n == 0).count();
            assert_eq!(empty, 0, "of {lists} lists for {} rows in {clusters} clusters", rows.len());
        }
    }

    #[test]
    fn many_lists_are_trained_by_groups() {
        let rows = clustered(5000, 4, 700, 2);
        let centroids = with_work(|work| train(&rows, 4, 2500, Metric::L2, 1, work)).unwrap();
        let (sizes, error) = sizes(&rows, &centroids);
        assert_eq!(sizes.len(), 2500);
        let empty = sizes.iter().filter(|&&n| n == 0).count();
        assert!(empty < 25, "{empty} empty lists");
        assert!(error < 0.08, "mean squared distance {error}");
        for metric in [Metric::Cosine, Metric::InnerProduct] {
            let centroids = with_work(|work| train(&rows, 4, 2500, metric, 1, work)).unwrap();
            assert!(centroids.len() == 2500 * 4 && centroids.iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn duplicates_zeros_and_extremes_train() {
        let mut values = clustered(100, 6, 5, 1).values;
        values.extend(std::iter::repeat_n([0.5; 6], 5000).flatten());
        values.extend([0.0; 6 * 1000]);
        let mostly_equal = Rows { dimensions: 6, values };
        let all_equal = Rows { dimensions: 6, values: vec![0.25; 6 * 3000] };
        let zeros = Rows { dimensions: 6, values: vec![0.0; 6 * 3000] };
        let huge = Rows { dimensions: 6, values: (0..6000).map(|i| (i % 7) as f32 * 1e30 - 3e30).collect() };
        let largest = Rows { dimensions: 6, values: (0..6000).map(|i| [f32::MAX, f32::MIN, 1e-45][i % 3]).collect() };
        let few = clustered(3, 6, 2, 1);
        let none = Rows { dimensions: 6, values: Vec::new() };
        for rows in [&mostly_equal, &all_equal, &zeros, &huge, &largest, &few, &none] {
            for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1] {
                let centroids = with_work(|work| train(rows, 6, 80, metric, 1, work)).unwrap();
                assert_eq!(centroids.len(), 6 * rows.len().clamp(1, 80));
                assert!(centroids.iter().all(|x| x.is_finite()), "{metric:?}");
            }
        }
        let centroids = with_work(|work| train(&mostly_equal, 6, 80, Metric::L2, 1, work)).unwrap();
        let (_, error) = sizes(&mostly_equal, &centroids);
        assert!(error < 0.01, "mean squared distance {error}");
    }

    #[test]
    fn inner_product_centroids_are_as_long_as_their_rows() {
        for scales in [1, 5] {
            let mut rows = clustered(2000, 10, 20, 4);
            for (i, row) in rows.values.chunks_mut(10).enumerate() {
                normalize(row);
                row.iter_mut().for_each(|x| *x *= 7.0 + (i % scales) as f32 * 7.0);
            }
            assert_eq!(equally_long(&rows, 10), scales == 1);
            let centroids = with_work(|work| train(&rows, 10, 20, Metric::InnerProduct, 1, work)).unwrap();
            let mean = |values: &[f32]| values.chunks(10).map(norm).sum::<f64>() / (values.len() / 10) as f64;
            let (centroid, row) = (mean(&centroids), mean(&rows.values));
            // Long rows spread further and have more lists.
            assert!((0.8..1.3).contains(&(centroid / row)), "{centroid} for rows of {row}");
        }
    }

    #[test]
    fn threads_change_nothing() {
        let rows = clustered(5000, 12, 50, 9);
        let train = |threads, seed| {
            with_threads(threads, |work| train(&rows, 12, 60, Metric::Cosine, seed, work)).expect("not stopped")
        };
        assert_eq!(train(1, 5), train(3, 5));
        assert_ne!(train(1, 5), train(1, 6));
    }

    #[test]
    fn lists_grow_as_the_root() {
        for (rows, lists) in
            [(0, 1), (1, 1), (63, 1), (64, 2), (4096, 128), (10_000, 200), (200_000, 894), (1 << 40, 65_536)]
        {
            assert_eq!(lists_for(rows), lists, "{rows} rows");
        }
        assert_eq!(lists_for(u64::MAX), 65_536);
    }

    #[test]
    fn training_stops_at_once() {
        let rows = clustered(100_000, 64, 100, 1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let stop = Stop::new();
        // By an error of the poll, at several stages.
        for after in [0, 1000, 50_000, 200_000] {
            let mut cancelled = None;
            let mut poll = |done| {
                std::thread::sleep(Duration::from_micros(100));
                if done >= after {
                    cancelled = Some(Instant::now());
                    return Err(Error::Limit("canceled".into()));
                }
                Ok(())
            };
            let mut work = Work { pool: &pool, threads: 2, stop: &stop, poll: &mut poll };
            assert_eq!(train(&rows, 64, 600, Metric::L2, 1, &mut work), Err(Error::Limit("canceled".into())));
            assert!(cancelled.unwrap().elapsed() < Duration::from_secs(1), "after {after}");
        }
        // From outside.
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.stop_and_wait(Duration::from_secs(5));
                assert!(stop.running.load(Relaxed) == 0);
            });
            let mut poll = |_| {
                std::thread::sleep(Duration::from_micros(100));
                Ok(())
            };
            let mut work = Work { pool: &pool, threads: 2, stop: &stop, poll: &mut poll };
            assert_eq!(train(&rows, 64, 600, Metric::L2, 1, &mut work), Err(Error::Stopped));
        });
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
