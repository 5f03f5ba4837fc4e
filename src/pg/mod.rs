//! PostgreSQL behind safe names. Invariant: `unsafe` appears in this folder only, each block with its proof.

pub mod arena;
pub mod array;
pub mod buffer;
pub mod fmgr;
pub mod handler;
pub mod key;
mod planner;
pub mod progress;
pub mod relation;
pub mod reloptions;
pub mod rights;
pub mod settings;
pub mod thread;
pub mod unit;
mod validate;
pub mod varlena;
