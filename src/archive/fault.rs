//! What a store's errors are in SQL: code, message, hint. The one place that knows.

use crate::error::Fault;
use blobstore::options::{self, Definition, Scope};
use blobstore::{Error, Result};
use pgrx::PgSqlErrorCode as Code;

/// Unwraps, or raises what went wrong with the store behind a server.
pub(crate) fn or_raise<T>(server: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| fault(server, &error).raise())
}

/// An error of the store behind a server, to be raised.
pub(crate) fn fault(server: &str, error: &Error) -> Fault {
    let (code, hint) = of(error);
    let message = match error {
        Error::Cancelled => "canceling statement due to user request".to_string(),
        _ => format!("server \"{server}\": {error}"),
    };
    let fault = Fault::new(code, message);
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// An error in the options of a server or user mapping that is being made, to be raised.
pub(super) fn of_option(scope: Scope, given: &[(String, String)], error: &Error) -> Fault {
    let Error::Option { option, hint, .. } = error else { return fault("", error) };
    let is_given = given.iter().any(|(name, _)| name == option);
    let kind = given.iter().find(|(name, _)| name == "type").map(|(_, kind)| kind.as_str());
    let code = match options::definition(scope, option) {
        Some(definition) if is_given && kind.is_some_and(|kind| is_foreign(definition, kind)) => {
            Code::ERRCODE_FDW_INVALID_OPTION_NAME
        }
        None => Code::ERRCODE_FDW_INVALID_OPTION_NAME,
        Some(_) if is_given => Code::ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
        Some(_) => Code::ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED,
    };
    let fault = Fault::new(code, error.to_string());
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// Whether an option means nothing for a kind of store that there is.
fn is_foreign(definition: &Definition, kind: &str) -> bool {
    options::KINDS.contains(&kind) && !definition.kinds.contains(&kind)
}

/// SQLSTATE and hint of an error.
fn of(error: &Error) -> (Code, Option<String>) {
    let hint = |hint: &str| Some(hint.to_string());
    match error {
        Error::Option { hint, .. } => (Code::ERRCODE_INVALID_PARAMETER_VALUE, hint.clone()),
        Error::NotFound { .. } => (
            Code::ERRCODE_UNDEFINED_FILE,
            hint("It was removed, its time in the store is over, or the server's options name another store."),
        ),
        Error::Corrupt { .. } => {
            (Code::ERRCODE_DATA_CORRUPTED, hint("Nothing was changed. Use another archive, or export again."))
        }
        Error::Refused { status: Some(401 | 403), .. } => {
            (Code::ERRCODE_INSUFFICIENT_PRIVILEGE, hint("Look at the secrets in the user mapping of the server."))
        }
        Error::Refused { .. } => (Code::ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION, None),
        Error::Unreachable { .. } | Error::TimedOut => (
            Code::ERRCODE_CONNECTION_FAILURE,
            hint("Try again later, or look at the server's options; hybrid_server_check tries them."),
        ),
        Error::Cancelled => (Code::ERRCODE_QUERY_CANCELED, None),
        Error::Unsupported { .. } => (Code::ERRCODE_FEATURE_NOT_SUPPORTED, None),
        Error::Protocol { .. } => {
            (Code::ERRCODE_PROTOCOL_VIOLATION, hint("Look whether the server's options name a store of their type."))
        }
        Error::File { .. } => (Code::ERRCODE_IO_ERROR, None),
    }
}
