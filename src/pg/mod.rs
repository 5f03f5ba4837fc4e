//! PostgreSQL behind safe names. Invariant: `unsafe` appears in this folder only, each block with its proof.

pub mod array;
pub mod fmgr;
pub mod varlena;
