//! Archives: stores of them behind foreign servers, and what this database put there.
#![allow(dead_code, reason = "for the functions that export and import, which join these parts")]

mod fault;
mod queue;
mod record;
mod server;
mod source;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod thread;
mod validator;

pub(crate) use source::Source;

pgrx::extension_sql_file!("../../sql/archive.sql", name = "archive", requires = ["admin"]);
