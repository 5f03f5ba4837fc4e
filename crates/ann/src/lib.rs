//! Approximate nearest neighbour search: distances, quantised codes, HNSW over page storage.
//!
//! Nothing here knows PostgreSQL, files or the network. Graphs are read and changed through
//! [`page::PageStore`]; the extension implements it on the buffer manager, tests implement it in memory.
//!
//! docs/page-format.md has the bytes, docs/concurrency.md the protocol, ARCHITECTURE.md the map.
//!
//! Architecture invariant: `unsafe` occurs only in [`distance`]: SIMD kernels and prefetch.

pub mod age;
pub mod compact;
pub mod distance;
pub mod error;
pub mod hnsw;
pub mod index;
pub mod ivf;
pub mod keys;
pub mod memory;
pub mod page;
pub mod relink;
pub mod shape;
pub mod sq8;
