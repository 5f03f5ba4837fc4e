//! The index as a whole, over pages in memory: crashes, races, damage, random histories,
//! building on threads, recall, and what scans promise.

mod build;
mod compact;
mod crash;
mod damage;
mod data;
mod filtered;
mod harness;
mod model;
mod races;
mod recall;
mod relink;
mod scan;
mod strict;
