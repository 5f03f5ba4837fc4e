//! HNSW (Malkov & Yashunin 2018) on pages: `sq8` codes and level-0 neighbors share one element.

pub mod build;
pub mod check;
pub mod insert;
pub mod layout;
pub mod near;
pub mod probe;
pub mod read;
pub mod scan;
pub mod search;
mod select;
pub mod sweep;
