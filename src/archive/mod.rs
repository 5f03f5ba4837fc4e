//! Archives: stores of them behind foreign servers, and what this database put there.

mod fault;
mod queue;
mod record;
mod server;
mod source;
mod thread;
mod validator;

pub(crate) use source::Source;

pgrx::extension_sql_file!("../../sql/archive.sql", name = "archive", requires = ["admin"]);
