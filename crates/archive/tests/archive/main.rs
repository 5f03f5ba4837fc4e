//! Tests of the formats of an archive.

mod chunks;
mod data;
