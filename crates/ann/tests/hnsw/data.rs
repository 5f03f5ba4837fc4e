//! Deterministic vectors that look like embeddings: clusters, near-duplicates, equal rows.

/// SplitMix64 (Steele et al. 2014).
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// An integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// In 0..1.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Roughly normal with variance 1: a sum of uniforms (Irwin-Hall).
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A mixture of gaussians of unequal weight; one row in ten is a near-duplicate of an earlier one.
pub struct Mixture {
    rng: Rng,
    centers: Vec<Vec<f32>>,
    rows: Vec<Vec<f32>>,
}

impl Mixture {
    pub fn new(seed: u64, dimensions: usize, clusters: usize) -> Self {
        let mut rng = Rng::new(seed);
        let centers = (0..clusters).map(|_| (0..dimensions).map(|_| rng.normal()).collect()).collect();
        Self { rng, centers, rows: Vec::new() }
    }

    /// A row of its own, near the center of a cluster; the first clusters are the heavier ones.
    pub fn fresh(&mut self) -> Vec<f32> {
        let n = self.centers.len();
        let cluster = self.rng.below(n).min(self.rng.below(n));
        self.around(&self.centers[cluster].clone(), 0.4)
    }

    fn around(&mut self, center: &[f32], spread: f32) -> Vec<f32> {
        center.iter().map(|&c| c + spread * self.rng.normal()).collect()
    }

    fn row(&mut self) -> Vec<f32> {
        if !self.rows.is_empty() && self.rng.chance(10) {
            let twin = self.rows[self.rng.below(self.rows.len())].clone();
            return self.around(&twin, 1e-3);
        }
        self.fresh()
    }

    pub fn rows(&mut self, n: usize) -> Vec<Vec<f32>> {
        for _ in 0..n {
            let row = self.row();
            self.rows.push(row);
        }
        self.rows[self.rows.len() - n..].to_vec()
    }
}

/// `n` rows of which no two are equal.
pub fn clustered(seed: u64, n: usize, dimensions: usize) -> Vec<Vec<f32>> {
    Mixture::new(seed, dimensions, (n / 40).max(2)).rows(n)
}

/// `n` rows and `queries` more from the same clusters.
pub fn with_queries(seed: u64, n: usize, dimensions: usize, queries: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut mixture = Mixture::new(seed, dimensions, (n / 40).max(2));
    let rows = mixture.rows(n);
    (rows, (0..queries).map(|_| mixture.fresh()).collect())
}
