//! hybridvec: a `vector` type and the index access method `hybrid` for PostgreSQL.

mod admin;
mod am;
mod archive;
mod error;
mod guc;
mod pg;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod types;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::reloptions::register();
    guc::register();
}

/// Version of the library, which may be newer than the extension's SQL.
#[pg_extern(immutable, parallel_safe)]
fn hybridvec_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
