//! The index as a whole, over pages in memory: crashes, races, random histories, building on threads.

mod build;
mod crash;
mod data;
mod harness;
mod model;
mod races;
mod strict;
