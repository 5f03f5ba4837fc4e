//! Archives: tables and their rows, as they are backed up and restored.

#![allow(dead_code, unused_imports, reason = "the SQL functions that call this join it with the stores")]

#[cfg(any(test, feature = "pg_test"))]
mod roundtrip;
pub mod rows;
mod sql;
pub mod table;
