//! Properties of quilts and of hostile bytes.

use proptest::prelude::*;
use walrus::pack::{self, Item, Limits};
use walrus::quilt::{Reader, Tags};
use walrus::{Error, Patch, PatchId, Shards, price, quilt};

fn shards() -> impl Strategy<Value = Shards> {
    prop::sample::select(vec![4_u16, 7, 10, 13, 100]).prop_map(|n| Shards::new(n).unwrap())
}

fn patches() -> impl Strategy<Value = Vec<(String, Tags, Vec<u8>)>> {
    let tags = prop::collection::btree_map("[a-z]{1,5}", "[ -~]{0,20}", 0..3);
    let data = prop::collection::vec(any::<u8>(), 0..500);
    let identifiers = prop::collection::btree_set("[A-Za-z0-9][A-Za-z0-9._-]{0,20}", 1..6);
    identifiers.prop_flat_map(move |identifiers| {
        let count = identifiers.len();
        (Just(identifiers), prop::collection::vec((tags.clone(), data.clone()), count)).prop_map(
            |(identifiers, rest)| {
                identifiers.into_iter().zip(rest).map(|(identifier, (tags, data))| (identifier, tags, data)).collect()
            },
        )
    })
}

proptest! {
    #[test]
    fn what_is_put_in_is_read_again(shards in shards(), input in patches()) {
        let list: Vec<Patch> = input.iter().map(|(identifier, tags, data)| Patch { identifier, tags, data }).collect();
        match quilt::encode(shards, &list) {
            Ok(made) => {
                let reader = Reader::new(shards, &made.bytes).unwrap();
                prop_assert_eq!(&reader.patches().unwrap(), &made.patches);
                for (placed, input) in made.patches.iter().zip(&input) {
                    prop_assert_eq!(&reader.patch(placed.start).unwrap(), input);
                }
                // No smaller symbol would do.
                let entries = input.iter().map(|(id, tags, _)| quilt::index_entry_size(id, tags)).sum();
                let index = quilt::index_size(input.len(), entries);
                let columns = |symbol: u64| {
                    let column = shards.rows() as u64 * symbol;
                    let sizes = input.iter().map(|(id, tags, data)| quilt::patch_size(id, tags, data.len() as u64));
                    index.div_ceil(column) + sizes.map(|size| size.div_ceil(column)).sum::<u64>()
                };
                let symbol = made.symbol as u64;
                prop_assert!(columns(symbol) <= shards.columns() as u64);
                let smaller = symbol - 2;
                let index_fits = smaller > 0 && index.div_ceil(shards.rows() as u64 * smaller) <= 10;
                prop_assert!(!index_fits || columns(smaller) > shards.columns() as u64);
            }
            Err(Error::Patches { .. }) => prop_assert!(input.len() > shards.most_patches()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_quilt(mut bytes in prop::collection::vec(any::<u8>(), 56..=56), length in 0_u32..64) {
        let shards = Shards::new(10).unwrap();
        bytes[0] = 1;
        // The first four bytes of the index are the first cells of column 0.
        bytes[1] = length as u8;
        let reader = Reader::new(shards, &bytes).unwrap();
        let _ = reader.patches();
        for start in 0..10 {
            let _ = reader.patch(start);
        }
    }

    #[test]
    fn text_is_an_id_or_an_error(text in "[A-Za-z0-9_-]{0,60}") {
        if let Ok(id) = text.parse::<PatchId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    /// A plan holds every item once, costs what its containers cost, and never more than the two plain ways.
    #[test]
    fn a_plan_is_cheaper_than_the_plain_ways(lengths in prop::collection::vec(1_u64..3_000_000, 1..120)) {
        let shards = Shards::NETWORK;
        let limits = Limits { quilt_data: 1 << 40, quilt_body: 1 << 40, blob_body: 1 << 40 };
        let items: Vec<Item> = lengths.iter().map(|&length| Item { identifier: 40, length }).collect();
        let plan = pack::plan(shards, &items, &limits).unwrap();
        let mut seen: Vec<usize> = plan.containers.iter().flat_map(|container| container.items().to_vec()).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
        let units: u64 = plan.containers.iter().map(|container| match container {
            pack::Container::Blob(item) => price::blob_units(shards, items[*item].length).unwrap(),
            pack::Container::Quilt(list) => pack::quilt_units(shards, list.iter().map(|item| items[*item])).unwrap(),
        }).sum();
        prop_assert_eq!(plan.units, units);
        prop_assert!(plan.units <= pack::units_singly(shards, &items));
        prop_assert!(plan.units <= pack::quilt_units(shards, items.iter().copied()).unwrap());
    }
}
