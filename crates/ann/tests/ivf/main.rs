//! IVF segments over pages in memory: what scans promise of them, alone and beside graphs and pending lists; recall,
//! filters, vacuum, damage.

#[path = "../hnsw/data.rs"]
#[allow(dead_code, reason = "shared with the tests of graphs")]
mod data;
#[path = "../hnsw/strict.rs"]
#[allow(dead_code, reason = "shared with the tests of graphs")]
mod strict;

mod damage;
mod filter;
mod harness;
mod mixed;
mod recall;
mod relink;
mod scan;
