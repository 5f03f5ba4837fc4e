//! Choosing neighbors.

/// The heuristic of Malkov & Yashunin 2018, algorithm 4, over candidates sorted by their distance: takes those that
/// are not nearer to one taken before than to the owner of the list, then fills up with the nearest others.
///
/// `distances` are those to the owner; `pair(i, j)` is the distance between two candidates. Returns (candidate,
/// whether it is diverse), nearest first, at most `capacity`.
pub fn choose(distances: &[f32], capacity: usize, mut pair: impl FnMut(usize, usize) -> f32) -> Vec<(usize, bool)> {
    let mut diverse: Vec<usize> = Vec::with_capacity(capacity);
    let mut pruned = Vec::new();
    for (i, &distance) in distances.iter().enumerate() {
        if diverse.len() == capacity {
            break;
        }
        if diverse.iter().all(|&d| pair(i, d) >= distance) {
            diverse.push(i);
        } else if pruned.len() < capacity {
            pruned.push(i);
        }
    }
    pruned.truncate(capacity - diverse.len());
    let mut chosen: Vec<(usize, bool)> =
        diverse.into_iter().map(|i| (i, true)).chain(pruned.into_iter().map(|i| (i, false))).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_of_each_direction_then_fills_with_the_nearest() {
        // Points on a line, the owner at 0: right 1, 2, 3 and left -4.
        let points = [1f32, 2.0, 3.0, -4.0];
        let distances = points.map(f32::abs);
        let pair = |i: usize, j: usize| (points[i] - points[j]).abs();
        assert_eq!(choose(&distances, 2, pair), [(0, true), (3, true)]);
        assert_eq!(choose(&distances, 3, pair), [(0, true), (1, false), (3, true)]);
    }
}
