//! Tables as typed descriptions: made from the catalogs, and made into tables again.

mod create;
mod describe;
mod indexes;
mod left;
mod resolve;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

pub use create::{create, set_positions};
pub use describe::{describe, describe_index};
pub use indexes::{create_hybrid_index, create_indexes};
