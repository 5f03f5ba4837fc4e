//! HNSW (Malkov & Yashunin 2018) on pages: `sq8` codes and level-0 neighbors share one element.

pub mod build;
pub mod layout;
pub mod near;
pub mod probe;
pub mod read;
pub mod search;
