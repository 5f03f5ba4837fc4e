//! What CREATE and ALTER SERVER and USER MAPPING of the wrapper `hybrid_store` take.

use super::fault;
use crate::error::Fault;
use crate::pg::encoding::Text;
use crate::pg::fdw::{Catalog, Options, may_read_files, may_write_files};
use blobstore::options::{self, Scope};
use pgrx::PgSqlErrorCode as Code;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn hybrid_store_validator(given: Vec<Option<Text>>, catalog: pg_sys::Oid) {
    let scope = match Catalog::of(catalog) {
        Some(Catalog::Server) => Scope::Server,
        Some(Catalog::Mapping) => Scope::UserMapping,
        Some(Catalog::Table) => {
            Fault::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, "a server of hybrid_store has no foreign tables")
                .detail("It is a store of archives of indexes and tables.")
                .hint("Functions such as hybrid_export, hybrid_import and hybrid_restore take the server's name.")
                .raise();
        }
        _ => Scope::Wrapper,
    };
    let given: Options = given
        .into_iter()
        .flatten()
        .map(|Text(option)| match option.split_once('=') {
            Some((name, value)) => (name.to_string(), value.to_string()),
            None => (option, String::new()),
        })
        .collect();
    if let Err(error) = options::validate(scope, &given) {
        fault::of_option(scope, &given, &error).raise();
    }
    check_rights(scope, &given);
}

/// Refuses options by which somebody would read or write files of the server's machine who may not.
fn check_rights(scope: Scope, given: &Options) {
    let directory = given.iter().any(|(name, value)| name == "type" && value == "directory");
    let roles: &[(&str, bool)] = match scope {
        Scope::Server if directory => {
            &[("pg_read_server_files", may_read_files()), ("pg_write_server_files", may_write_files())]
        }
        _ => &[("pg_read_server_files", may_read_files())],
    };
    let Some(option) = options::files(scope, given).next() else { return };
    if let Some((role, _)) = roles.iter().find(|(_, held)| !held) {
        let detail =
            format!("It names a file or directory of the database server, which needs the privileges of {role}.");
        Fault::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied to set the option \"{option}\""))
            .detail(detail)
            .raise();
    }
}
