//! Which objects share a quilt, and which are blobs of their own, so that the fewest units are paid.
//!
//! Every container costs about 61 units before its first byte (1000 shards), so few are better. But a patch takes whole
//! columns: 334 equal patches have one column each of the 667, and half of the quilt is paid for nothing. Patches of
//! similar length waste least together, therefore objects are ordered by length, and the cheapest way to cut that order
//! into containers is found by the true formula.

use crate::{Shards, price, quilt};

/// An object to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bytes of its identifier in a quilt, at most 127; patches have no tags.
    pub identifier: usize,
    pub length: u64,
}

/// What a publisher takes and what we want to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the objects of one quilt; a longer object may still be a container of its own.
    pub quilt_data: u64,
    /// Most bytes of the body of a request for a quilt.
    pub quilt_body: u64,
    /// Most bytes of the body of a request for a blob.
    pub blob_body: u64,
}

/// Bytes of a part of a `multipart/form-data` body besides the data and twice the identifier; generous.
const PART_OVERHEAD: u64 = 256;

/// Objects that are stored together, by their positions in the list of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    Blob(usize),
    Quilt(Vec<usize>),
}

impl Container {
    pub fn items(&self) -> &[usize] {
        match self {
            Self::Blob(item) => std::slice::from_ref(item),
            Self::Quilt(items) => items,
        }
    }
}

/// Containers for all items, each item in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub containers: Vec<Container>,
    /// Paid units of all containers.
    pub units: u64,
}

/// The cheapest containers for `items`, the fewest of equal price.
///
/// # Errors
/// The position of an item that no request can carry.
pub fn plan(shards: Shards, items: &[Item], limits: &Limits) -> Result<Plan, usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(items[item].length));
    if let Some(&item) = order.iter().find(|&&item| alone(shards, item, items[item], limits).is_none()) {
        return Err(item);
    }
    let packing = Packing { shards, items, order: &order, limits };
    let cuts = packing.cuts();
    // best[i]: units and containers of everything before cuts[i], and the cut before it.
    let mut best: Vec<(u64, usize, usize)> = vec![(0, 0, 0)];
    for (to, &end) in cuts.iter().enumerate().skip(1) {
        let mut found = (u64::MAX, usize::MAX, 0);
        for (from, &start) in cuts[..to].iter().enumerate().rev() {
            let Some((units, _)) = packing.container(start, end) else { break };
            let (before, containers, _) = best[from];
            found = found.min((before.saturating_add(units), containers.saturating_add(1), from));
        }
        best.push(found);
    }
    let mut plan = Plan { containers: Vec::new(), units: best[cuts.len() - 1].0 };
    let mut to = cuts.len() - 1;
    while to > 0 {
        let from = best[to].2;
        plan.containers.extend(packing.container(cuts[from], cuts[to]).map(|(_, container)| container));
        to = from;
    }
    plan.containers.reverse();
    Ok(plan)
}

/// Units of each item as a blob of its own, together.
pub fn units_singly(shards: Shards, items: &[Item]) -> u64 {
    items.iter().map(|item| price::blob_units(shards, item.length).unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
}

/// An object that shares its container with no other.
fn alone(shards: Shards, at: usize, item: Item, limits: &Limits) -> Option<(u64, Container)> {
    if item.length <= limits.blob_body {
        return price::blob_units(shards, item.length).ok().map(|units| (units, Container::Blob(at)));
    }
    if body(item) > limits.quilt_body {
        return None;
    }
    quilt_units(shards, std::iter::once(item)).map(|units| (units, Container::Quilt(vec![at])))
}

/// Units of a quilt of these items, `None` if there is no such quilt.
pub fn quilt_units(shards: Shards, items: impl Iterator<Item = Item>) -> Option<u64> {
    let mut entries = 0;
    let mut sizes = Vec::new();
    for item in items {
        // Both lengths of an identifier of at most 127 bytes take one byte, and an empty map of tags one byte.
        entries += 2 + 1 + item.identifier + 1;
        sizes.push(6 + 2 + 1 + item.identifier as u64 + item.length);
    }
    let symbol = quilt::symbol(shards, quilt::index_size(sizes.len(), entries), &sizes)?;
    Some(price::units(price::encoded_of_symbol(shards, symbol)))
}

fn body(item: Item) -> u64 {
    item.length + 2 * item.identifier as u64 + PART_OVERHEAD
}

struct Packing<'a> {
    shards: Shards,
    items: &'a [Item],
    /// Positions of the items, longest first.
    order: &'a [usize],
    limits: &'a Limits,
}

impl Packing<'_> {
    fn item(&self, place: usize) -> Item {
        self.items[self.order[place]]
    }

    /// The container of the items `start..end` of the order, `None` if there can be none.
    fn container(&self, start: usize, end: usize) -> Option<(u64, Container)> {
        if end - start == 1 {
            return alone(self.shards, self.order[start], self.item(start), self.limits);
        }
        if !self.fits(start, end) {
            return None;
        }
        let units = quilt_units(self.shards, (start..end).map(|place| self.item(place)))?;
        Some((units, Container::Quilt(self.order[start..end].to_vec())))
    }

    fn fits(&self, start: usize, end: usize) -> bool {
        let items = || (start..end).map(|place| self.item(place));
        end - start <= self.shards.most_patches()
            && items().map(|item| item.length).sum::<u64>() <= self.limits.quilt_data
            && items().map(body).sum::<u64>() <= self.limits.quilt_body
    }

    /// Where the order may be cut, ascending, from 0 to the number of items: everywhere if there are few items; else near
    /// both ends, where lengths jump, at the counts before a cliff, at
    /// equal shares, and where a greedy packer would cut, so that a way
    /// through exists.
    fn cuts(&self) -> Vec<usize> {
        const FEW: usize = 48;
        let count = self.order.len();
        if count <= FEW {
            return (0..=count).collect();
        }
        let mut cuts: Vec<usize> = (0..=8).chain(count - 8..=count).collect();
        let mut jumps: Vec<(u64, usize)> = (1..count)
            .map(|place| (self.item(place - 1).length * 1000 / self.item(place).length.max(1), place))
            .filter(|(ratio, _)| *ratio > 1100)
            .collect();
        jumps.sort_unstable_by(|a, b| b.cmp(a));
        cuts.extend(jumps.into_iter().take(16).map(|(_, place)| place));
        for share in 1..=8 {
            let before_cliff = self.shards.most_patches() / share;
            cuts.extend([before_cliff, count.saturating_sub(before_cliff)].into_iter().filter(|&cut| cut < count));
        }
        cuts.extend((1..24).map(|part| count * part / 24));
        let mut start = 0;
        for place in 1..count {
            if !self.fits(start, place + 1) {
                cuts.push(place);
                start = place;
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { quilt_data: 1 << 32, quilt_body: 1 << 32, blob_body: 10 << 20 };

    fn equal(count: usize, length: u64) -> Vec<Item> {
        vec![Item { identifier: 10, length }; count]
    }

    fn one_quilt(items: &[Item]) -> Option<u64> {
        quilt_units(Shards::NETWORK, items.iter().copied())
    }

    #[test]
    fn units_of_the_reference() {
        for (count, length, quilt, blobs) in [
            (600, 10 << 10, 92, 37_800),
            (600, 1 << 20, 3_059, 40_200),
            (64, 1 << 20, 361, 4_288),
            (333, 256 << 10, 438, 20_979),
            (334, 256 << 10, 812, 21_042),
            (666, 256 << 10, 812, 666 * 63),
        ] {
            let items = equal(count, length);
            assert_eq!(one_quilt(&items), Some(quilt), "{count} x {length}");
            assert_eq!(units_singly(Shards::NETWORK, &items), blobs, "{count} x {length}");
        }
        assert_eq!(one_quilt(&equal(667, 1)), None);
    }

    #[test]
    fn the_cliff_is_not_paid() {
        let items = equal(334, 256 << 10);
        let plan = plan(Shards::NETWORK, &items, &LIMITS).unwrap();
        assert_eq!(plan.units, 438 + 63, "a quilt of 333 and a blob");
        let mut counts: Vec<usize> = plan.containers.iter().map(|container| container.items().len()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 333]);
    }

    #[test]
    fn one_long_object_among_short_ones() {
        let mut items = equal(600, 1 << 10);
        items.push(Item { identifier: 10, length: 8 << 20 });
        let plan = plan(Shards::NETWORK, &items, &LIMITS).unwrap();
        assert!(plan.units < one_quilt(&items).unwrap());
        assert!(plan.containers.contains(&Container::Blob(600)), "{:?}", plan.containers.len());
    }

    #[test]
    fn few_objects() {
        let nothing = plan(Shards::NETWORK, &[], &LIMITS).unwrap();
        assert_eq!(nothing, Plan::default());
        let one = plan(Shards::NETWORK, &equal(1, 1 << 20), &LIMITS).unwrap();
        assert_eq!(one.containers, [Container::Blob(0)]);
        let two = plan(Shards::NETWORK, &equal(2, 1 << 20), &LIMITS).unwrap();
        assert!(matches!(&two.containers[..], [Container::Quilt(items)] if items.len() == 2));
    }

    #[test]
    fn limits_are_kept() {
        let limits = Limits { quilt_data: 32 << 20, quilt_body: 33 << 20, blob_body: 1 << 20 };
        let items = equal(50, 4 << 20);
        let plan = plan(Shards::NETWORK, &items, &limits).unwrap();
        let mut seen: Vec<usize> = plan.containers.iter().flat_map(|container| container.items().to_vec()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!(plan.containers.iter().all(|container| (1..=8).contains(&container.items().len())));
        assert!(plan.containers.iter().all(|container| matches!(container, Container::Quilt(_))));
        let too_long = Item { identifier: 10, length: 40 << 20 };
        assert_eq!(super::plan(Shards::NETWORK, &[items[0], too_long], &limits), Err(1));
    }

    #[test]
    fn many_short_objects_need_more_than_one_quilt() {
        let plan = plan(Shards::NETWORK, &equal(1500, 100), &LIMITS).unwrap();
        assert_eq!(plan.containers.len(), 3);
        // Three times 666, 666 and 168 would need symbols of 28 bytes for the index, which has one column left.
        assert!(plan.units <= 3 * 65, "equal shares cost {}, this {}", 3 * 65, plan.units);
    }
}
