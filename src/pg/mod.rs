//! PostgreSQL behind safe names. Invariant: `unsafe` appears in this folder only, each block with its proof.

pub mod arena;
pub mod array;
mod aside;
pub mod buffer;
pub mod catalog;
pub mod copy;
pub mod fmgr;
pub mod handler;
pub mod key;
pub mod lock;
mod planner;
pub mod progress;
pub mod relation;
pub mod reloptions;
pub mod rights;
pub mod rows;
pub mod settings;
pub mod snapshot;
pub mod thread;
pub mod unit;
mod validate;
pub mod varlena;
pub mod worker;
mod xid;
