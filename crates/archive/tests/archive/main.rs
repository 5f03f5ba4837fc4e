//! Tests of the formats of an archive.

mod chunks;
mod damage;
mod data;
mod document;
mod fuzz;
mod golden;
mod manifest;
mod policy;
mod read;
mod rows;
mod sizes;
