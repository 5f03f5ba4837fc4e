//! Which lists a row goes to: that of the nearest centroid, and a second one.
//!
//! The second list is chosen as in SOAR (Sun et al., "SOAR: improved indexing for approximate nearest neighbor search",
//! NeurIPS 2023): its residual r' should not point where the first residual r points, for then a query that misses the
//! first list would miss the second as well. It minimises |r'|² + lambda * `<r / |r|, r'>`², with lambda = 1.

use super::bits::Coder;
use super::kmeans::{Job, Vectors, Work, by_list, group, norm2};
use crate::distance::{Least, kernels};
use crate::error::Result;
use crate::sq8;

/// No second list.
pub const NO_LIST: u32 = u32::MAX;

impl Vectors for Centroids {
    fn len(&self) -> usize {
        self.params.len()
    }

    fn read(&self, i: usize, out: &mut [f32]) {
        out.copy_from_slice(self.value(i));
    }
}

/// Centroids as an index stores them, with all that is derived from that.
pub struct Centroids {
    dimensions: usize,
    width: usize,
    codes: Vec<u8>,
    params: Vec<sq8::Params>,
    values: Vec<f32>,
    rotated: Vec<f32>,
}

impl Centroids {
    /// Quantises centroids, one after the other in `values`; `coder` is that of an index with codes.
    pub fn new(values: &[f32], dimensions: usize, coder: Option<&Coder>) -> Self {
        let mut codes = vec![0; values.len()];
        let params = values.chunks_exact(dimensions).zip(codes.chunks_exact_mut(dimensions));
        let params = params.map(|(values, code)| sq8::encode(values, code)).collect();
        Self::from_codes(codes, params, dimensions, coder)
    }

    /// The centroids that an index stores.
    pub fn from_codes(codes: Vec<u8>, params: Vec<sq8::Params>, dimensions: usize, coder: Option<&Coder>) -> Self {
        assert_eq!(codes.len(), params.len() * dimensions, "a code has one byte for each dimension");
        let mut values = vec![0.0; codes.len()];
        let width = coder.map_or(0, Coder::width);
        let mut rotated = vec![0.0; params.len() * width];
        for (i, p) in params.iter().enumerate() {
            let range = i * dimensions..(i + 1) * dimensions;
            for (value, &code) in values[range.clone()].iter_mut().zip(&codes[range.clone()]) {
                // Rounding may lift the largest f32 over the edge.
                *value = (p.offset + p.scale * f32::from(code)).clamp(f32::MIN, f32::MAX);
            }
            if let Some(coder) = coder {
                coder.rotate(&values[range], &mut rotated[i * width..(i + 1) * width]);
            }
        }
        Self { dimensions, width, codes, params, values, rotated }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Values of each.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Code of centroid `i`.
    pub fn code(&self, i: usize) -> &[u8] {
        &self.codes[i * self.dimensions..(i + 1) * self.dimensions]
    }

    /// What belongs to the code of centroid `i`.
    pub fn params(&self, i: usize) -> &sq8::Params {
        &self.params[i]
    }

    /// Centroid `i` as its code says.
    pub fn value(&self, i: usize) -> &[f32] {
        &self.values[i * self.dimensions..(i + 1) * self.dimensions]
    }

    /// The `count` centroids nearest to a vector, ascending.
    fn nearest_to(&self, vector: &[f32], count: usize) -> Vec<u32> {
        let distances = (0..self.len() as u32).map(|i| ((kernels().l2_squared)(vector, self.value(i as usize)), i));
        let mut distances: Vec<(f32, u32)> = distances.collect();
        distances.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut nearest: Vec<u32> = distances[..count].iter().map(|d| d.1).collect();
        nearest.sort_unstable();
        nearest
    }

    /// [`Self::value`], rotated; empty where there is no coder.
    pub fn rotated(&self, i: usize) -> &[f32] {
        &self.rotated[i * self.width..(i + 1) * self.width]
    }
}

/// With more lists than this, a vector is compared with some of them only.
const TWO_LEVEL_FROM: usize = 4096;

/// Two lists for each vector: the nearest, and a second one, [`NO_LIST`] where there is one list only. For all metrics,
/// near means a short residual.
///
/// With more than some thousand lists, both are the best of the quarter nearest to the vector's group of lists: measured
/// with 894 lists, residuals are 1 % longer and recall is 0.002 lower.
///
/// # Errors
/// Those of `work`'s poll; [`Error::Stopped`](crate::error::Error::Stopped).
pub fn assign(vectors: &impl Vectors, centroids: &Centroids, work: &mut Work) -> Result<Vec<[u32; 2]>> {
    let most = if centroids.len() > TWO_LEVEL_FROM { (centroids.len() / 4).max(1024) } else { centroids.len() };
    assign_to(vectors, centroids, most, work)
}

/// [`assign`], comparing each vector with `most` lists.
fn assign_to(vectors: &impl Vectors, centroids: &Centroids, most: usize, work: &mut Work) -> Result<Vec<[u32; 2]>> {
    work.drive(|job| {
        let mut out = vec![[0, NO_LIST]; vectors.len()];
        let all: Vec<u32> = (0..centroids.len() as u32).collect();
        if most < all.len() {
            assign_by_group(vectors, centroids, most, job, &mut out)?;
        } else if all.len() > 1 {
            Lists::new(centroids, &all, job)?.assign(vectors, |i| i, job, &mut out)?;
        }
        Ok(out)
    })
}

/// Vectors of a group of lists are compared with the lists nearest to the group's centre.
fn assign_by_group(
    vectors: &impl Vectors,
    centroids: &Centroids,
    most: usize,
    job: &Job,
    out: &mut [[u32; 2]],
) -> Result<()> {
    let groups = (centroids.len() as f64).sqrt() as usize;
    let centers = group(centroids, centroids.dimensions, groups, job)?;
    let panels = Panels::new(&centers, centroids.dimensions);
    let mut nearest = vec![Nearest::NONE; vectors.len()];
    job.each(
        &mut nearest,
        BLOCK_ROWS,
        || panels.scanner(),
        |scanner, i, nearest| {
            scanner.load(i * BLOCK_ROWS..i * BLOCK_ROWS + nearest.len(), |row, values| vectors.read(row, values));
            scanner.nearest(&panels, nearest);
        },
    )?;
    let (order, ranges) = by_list(&nearest, centers.len() / centroids.dimensions);
    drop(nearest);
    for (range, center) in ranges.into_iter().zip(centers.chunks_exact(centroids.dimensions)) {
        let members = &order[range];
        if members.is_empty() {
            continue;
        }
        let mut found = vec![[0, NO_LIST]; members.len()];
        let lists = centroids.nearest_to(center, most);
        Lists::new(centroids, &lists, job)?.assign(vectors, |i| members[i] as usize, job, &mut found)?;
        members.iter().zip(found).for_each(|(&row, found)| out[row as usize] = found);
    }
    Ok(())
}

/// Some of the centroids, ready to be compared with vectors.
struct Lists<'a> {
    numbers: &'a [u32],
    panels: Panels,
    products: Products,
}

impl<'a> Lists<'a> {
    fn new(centroids: &Centroids, numbers: &'a [u32], job: &Job) -> Result<Self> {
        let values: Vec<f32> = numbers.iter().flat_map(|&i| centroids.value(i as usize)).copied().collect();
        let panels = Panels::new(&values, centroids.dimensions);
        let products = Products::new(&panels, &values, job)?;
        Ok(Self { numbers, panels, products })
    }

    /// Both lists of each vector, of which the `i`-th is number `row(i)`.
    fn assign(
        &self,
        vectors: &impl Vectors,
        row: impl Fn(usize) -> usize + Sync,
        job: &Job,
        out: &mut [[u32; 2]],
    ) -> Result<()> {
        job.each(
            out,
            BLOCK_ROWS,
            || self.panels.scanner(),
            |scanner, i, out| {
                let rows = i * BLOCK_ROWS..i * BLOCK_ROWS + out.len();
                scanner.load(rows, |i, values| vectors.read(row(i), values));
                scanner.both(&self.panels, &self.products, out);
                out.iter_mut().flatten().for_each(|list| *list = self.numbers[*list as usize]);
                job.count(out.len());
            },
        )
    }
}

/// Rows that are compared with all centroids together.
pub(super) const BLOCK_ROWS: usize = 48;
/// Centroids of one panel.
const PANEL: usize = 32;

/// The nearest centroid so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearest {
    pub distance2: f32,
    pub list: u32,
}

impl Nearest {
    pub const NONE: Self = Self { distance2: f32::INFINITY, list: 0 };
}

/// Centroids, laid out for [`Kernels::dot_panel`](crate::distance::Kernels::dot_panel).
pub(super) struct Panels {
    dimensions: usize,
    len: usize,
    values: Vec<f32>,
    /// Squared norms; infinite for the centroids that fill up the last panel.
    norms2: Vec<[f32; PANEL]>,
}

impl Panels {
    pub fn new(centroids: &[f32], dimensions: usize) -> Self {
        let len = centroids.len() / dimensions;
        let panels = len.div_ceil(PANEL);
        let mut values = vec![0.0; panels * PANEL * dimensions];
        let mut norms2 = vec![[f32::INFINITY; PANEL]; panels];
        for (i, centroid) in centroids.chunks_exact(dimensions).enumerate() {
            let (panel, lane) = (i / PANEL, i % PANEL);
            norms2[panel][lane] = norm2(centroid);
            let panel = &mut values[panel * PANEL * dimensions..(panel + 1) * PANEL * dimensions];
            panel[lane..].iter_mut().step_by(PANEL).zip(centroid).for_each(|(to, &from)| *to = from);
        }
        Self { dimensions, len, values, norms2 }
    }

    pub fn scanner(&self) -> Scanner {
        Scanner {
            dimensions: self.dimensions,
            rows: Vec::with_capacity(BLOCK_ROWS * self.dimensions),
            norms2: Vec::with_capacity(BLOCK_ROWS),
            dots: Vec::new(),
            least: Vec::with_capacity(BLOCK_ROWS),
        }
    }

    fn panel(&self, i: usize) -> &[f32] {
        &self.values[i * PANEL * self.dimensions..(i + 1) * PANEL * self.dimensions]
    }
}

/// Inner products of all pairs of centroids.
struct Products {
    /// For each centroid, panels as in [`Panels`].
    values: Vec<[f32; PANEL]>,
}

impl Products {
    fn new(panels: &Panels, centroids: &[f32], job: &Job) -> Result<Self> {
        let stride = panels.norms2.len();
        let mut values = vec![[0.0; PANEL]; panels.len * stride];
        job.each(
            &mut values,
            stride,
            || (),
            |(), i, out| {
                let row = &centroids[i * panels.dimensions..(i + 1) * panels.dimensions];
                for (panel, out) in out.iter_mut().enumerate() {
                    (kernels().dot_panel)(row, panels.dimensions, panels.panel(panel), std::slice::from_mut(out));
                }
            },
        )?;
        Ok(Self { values })
    }
}

/// Buffers of one thread.
pub(super) struct Scanner {
    dimensions: usize,
    rows: Vec<f32>,
    norms2: Vec<f32>,
    /// Inner products of every row with the centroids of a panel; panel by panel where all are needed.
    dots: Vec<[f32; PANEL]>,
    least: Vec<Least>,
}

/// The least score and its centroid; of equal ones the first. `None` where all are infinite or NaN.
fn least_of(least: &Least) -> Option<(f32, u32)> {
    let score = least.score.iter().fold(f32::INFINITY, |a, &b| if b < a { b } else { a });
    let lanes = (0..PANEL).filter(|&lane| least.score[lane] == score);
    let first = lanes.map(|lane| least.panel[lane] * PANEL as u32 + lane as u32).min();
    first.filter(|_| score < f32::INFINITY).map(|first| (score, first))
}

impl Scanner {
    /// Reads rows, at most [`BLOCK_ROWS`].
    pub fn load<T>(&mut self, rows: impl ExactSizeIterator<Item = T>, read: impl Fn(T, &mut [f32])) {
        self.rows.resize(rows.len() * self.dimensions, 0.0);
        self.norms2.clear();
        for (row, values) in rows.zip(self.rows.chunks_exact_mut(self.dimensions)) {
            read(row, values);
            self.norms2.push(norm2(values));
        }
    }

    /// Improves what is known of the rows by these centroids.
    pub fn nearest(&mut self, panels: &Panels, out: &mut [Nearest]) {
        let count = self.norms2.len();
        self.least.clear();
        self.least.resize(count, Least::NONE);
        self.dots.resize(BLOCK_ROWS, [0.0; PANEL]);
        for (i, norms2) in panels.norms2.iter().enumerate() {
            (kernels().dot_panel)(&self.rows, self.dimensions, panels.panel(i), &mut self.dots);
            (kernels().least_distance)(i as u32, norms2, &self.dots[..count], &mut self.least);
        }
        for ((least, &norm2), out) in self.least.iter().zip(&self.norms2).zip(out) {
            if let Some((score, list)) = least_of(least) {
                let distance2 = (score + norm2).max(0.0);
                if distance2 < out.distance2 {
                    *out = Nearest { distance2, list };
                }
            }
        }
    }

    /// Both lists of each row.
    fn both(&mut self, panels: &Panels, products: &Products, out: &mut [[u32; 2]]) {
        let count = self.norms2.len();
        self.least.clear();
        self.least.resize(count, Least::NONE);
        self.dots.resize(panels.norms2.len() * BLOCK_ROWS, [0.0; PANEL]);
        for (i, dots) in self.dots.chunks_exact_mut(BLOCK_ROWS).enumerate() {
            (kernels().dot_panel)(&self.rows, self.dimensions, panels.panel(i), dots);
            (kernels().least_distance)(i as u32, &panels.norms2[i], &dots[..count], &mut self.least);
        }
        for (row, out) in out.iter_mut().enumerate().take(count) {
            let (score, first) = least_of(&self.least[row]).unwrap_or((0.0, 0));
            *out = [first, self.second(row, (score, first), panels, products)];
        }
    }

    /// The list whose residual is short and does not point where that of the first list points.
    fn second(&self, row: usize, (score, first): (f32, u32), panels: &Panels, products: &Products) -> u32 {
        let (panel, lane, stride) = (first as usize / PANEL, first as usize % PANEL, panels.norms2.len());
        let norm2 = self.norms2[row];
        // <r, r'> = <x - c, x - c'> = |x|² - <x, c> - <x, c'> + <c, c'>
        let along = norm2 - self.dots[panel * BLOCK_ROWS + row][lane];
        let residual2 = score + norm2;
        // Where the residual has no length worth a direction, the second nearest.
        let weight = if residual2 > 1e-6 * norm2 { 1.0 / residual2 } else { 0.0 };
        let (along, weight) = if weight.is_finite() && along.is_finite() { (along, weight) } else { (0.0, 0.0) };
        let mut least = Least::NONE;
        let pairs = &products.values[first as usize * stride..(first as usize + 1) * stride];
        for (i, (norms2, pairs)) in panels.norms2.iter().zip(pairs).enumerate() {
            let mut norms2 = norms2;
            let without_first;
            if i == panel {
                without_first = std::array::from_fn(|l| if l == lane { f32::INFINITY } else { norms2[l] });
                norms2 = &without_first;
            }
            let values = [norms2, &self.dots[i * BLOCK_ROWS + row], pairs];
            (kernels().least_second)(i as u32, values, along, weight, &mut least);
        }
        least_of(&least).map_or(u32::from(first == 0), |(_, second)| second)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kmeans::tests::{Rows, clustered, with_work};
    use super::super::rotate::Random;
    use super::*;
    use crate::distance::Metric;
    use crate::error::Error;

    fn distance2(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
    }

    /// What the second list minimises: |r'|² + (<r, r'> / |r|)².
    fn second_cost(row: &[f32], first: &[f32], second: &[f32]) -> f64 {
        let parts = row.iter().zip(first.iter().zip(second));
        let along: f64 = parts.map(|(&x, (&c, &d))| f64::from(x - c) * f64::from(x - d)).sum();
        distance2(row, second) + along * along / distance2(row, first).max(1e-30)
    }

    #[test]
    fn lists_are_the_nearest_and_the_best_second() {
        for (dimensions, lists) in [(3, 5), (20, 2), (100, 70), (33, 200)] {
            let rows = clustered(400, dimensions, 30, 7);
            let centroids = Centroids::new(&clustered(lists, dimensions, 30, 7).values, dimensions, None);
            let found = with_work(|work| assign(&rows, &centroids, work)).unwrap();
            for (row, [first, second]) in rows.values.chunks(dimensions).zip(found) {
                let value = |list: u32| centroids.value(list as usize);
                let all = || 0..lists as u32;
                let least = all().map(|l| distance2(row, value(l))).fold(f64::INFINITY, f64::min);
                assert!(distance2(row, value(first)) <= least * 1.0001 + 1e-4);
                assert_ne!(first, second);
                let cost = |list| second_cost(row, value(first), value(list));
                let least = all().filter(|&l| l != first).map(cost).fold(f64::INFINITY, f64::min);
                assert!(cost(second) <= least * 1.001 + 1e-3, "{} is not {least}", cost(second));
            }
        }
    }

    #[test]
    fn few_lists_and_no_rows() {
        let rows = clustered(10, 5, 2, 1);
        let one = Centroids::new(&[1.0; 5], 5, None);
        assert_eq!(with_work(|work| assign(&rows, &one, work)).unwrap(), [[0, NO_LIST]; 10]);
        let none = Rows { dimensions: 5, values: Vec::new() };
        assert!(with_work(|work| assign(&none, &one, work)).unwrap().is_empty());
    }

    #[test]
    fn a_part_of_the_lists_is_enough() {
        let (dimensions, lists) = (24, 1200);
        let rows = clustered(6000, dimensions, 300, 3);
        let centroids = with_work(|work| super::super::kmeans::train(&rows, dimensions, lists, Metric::L2, 1, work));
        let centroids = Centroids::new(&centroids.unwrap(), dimensions, None);
        let all = with_work(|work| assign_to(&rows, &centroids, usize::MAX, work)).unwrap();
        let part = with_work(|work| assign_to(&rows, &centroids, 300, work)).unwrap();
        let same = |which: usize| all.iter().zip(&part).filter(|(a, b)| a[which] == b[which]).count();
        assert!(same(0) > 5800 && same(1) > 5500, "{} and {} of 6000 are the same", same(0), same(1));
        assert!(part.iter().all(|[first, second]| first != second));
    }

    #[test]
    fn rows_on_centroids_equal_rows_and_extremes_have_two_lists() {
        let mut random = Random(1);
        let mut values: Vec<f32> = (0..50 * 8).map(|_| random.unit() as f32).collect();
        values.extend([0.0; 8 * 60]);
        values.extend([1e30; 8].iter().chain(&[-1e30; 8]).chain(&[f32::MAX; 8]).chain(&[1e-45; 8]));
        let rows = Rows { dimensions: 8, values };
        for centroids in [rows.values.clone(), vec![0.0; 8 * 40], vec![1e30; 8 * 40]] {
            let coder = Coder::new(Metric::L2, 8);
            let centroids = Centroids::new(&centroids, 8, Some(&coder));
            let found = with_work(|work| assign(&rows, &centroids, work)).unwrap();
            let lists = centroids.len() as u32;
            assert!(found.iter().all(|[a, b]| a != b && *a < lists && *b < lists));
        }
    }

    #[test]
    fn assignment_stops() {
        let rows = clustered(20_000, 64, 10, 1);
        let centroids = Centroids::new(&clustered(500, 64, 10, 1).values, 64, None);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let stop = crate::hnsw::build::Stop::new();
        let mut poll = |done| if done > 100 { Err(Error::Full) } else { Ok(()) };
        let mut work = Work { pool: &pool, threads: 2, stop: &stop, poll: &mut poll };
        assert_eq!(assign(&rows, &centroids, &mut work), Err(Error::Full));
    }
}
