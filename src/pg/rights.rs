//! Who may look at an index.

use super::encoding::{Text, from_server_lossy};
use super::relation::OpenIndex;
use super::settings::with_settings;
use crate::error::Fault;
use pgrx::spi::quote_identifier;
use pgrx::{PgSqlErrorCode, Spi, pg_sys};
use std::ffi::CStr;

/// Refuses callers that may not read the whole table: they need SELECT on it with no row security in force, or to be a
/// member of pg_monitor where `monitor` says that this is enough.
///
/// # Errors
/// 42501.
pub fn check_may_inspect(opened: &OpenIndex, monitor: bool) {
    let table = opened.table();
    // SAFETY: a lookup of the user's roles.
    let monitors = monitor && unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::ROLE_PG_MONITOR.into()) };
    // The table exists, since its index is open.
    let reads = || may(table, pg_sys::ACL_SELECT) && !is_filtered(table);
    if !(monitors || reads()) {
        let message = format!("permission denied for the table of index \"{}\"", opened.index().name());
        let detail = if monitor {
            "SELECT on the table without row security, or membership of pg_monitor, is needed."
        } else {
            "SELECT on the table without row security is needed."
        };
        Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).detail(detail).raise();
    }
}

/// Whether the user has this right on the whole table.
fn may(table: pg_sys::Oid, right: u32) -> bool {
    // SAFETY: a lookup; raises an ERROR if the table is gone.
    unsafe {
        pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), right as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether row security is in force for the user.
fn is_filtered(table: pg_sys::Oid) -> bool {
    // SAFETY: a lookup, which raises nothing where `noError` is set.
    unsafe {
        pg_sys::check_enable_rls(table, pg_sys::GetUserId(), true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// Name of a relation for a message.
fn name_of(relation: pg_sys::Oid) -> String {
    // SAFETY: a lookup that returns a copy, or null.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() { relation.to_u32().to_string() } else { from_server_lossy(CStr::from_ptr(name)) }
    }
}

/// Refuses callers that may not read every row of the table.
///
/// # Errors
/// 42501.
pub fn check_may_read(table: pg_sys::Oid) {
    let denied = if !may(table, pg_sys::ACL_SELECT) {
        "SELECT on the whole table is needed."
    } else if is_filtered(table) {
        "Row security is in force, so that not every row can be read."
    } else {
        return;
    };
    let message = format!("permission denied for table {}", name_of(table));
    Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).detail(denied).raise();
}

/// Refuses callers that may not insert any row they like.
///
/// # Errors
/// 42501; 0A000 with row security in force, as COPY does.
pub(super) fn check_may_insert(table: pg_sys::Oid) {
    if !may(table, pg_sys::ACL_INSERT) {
        let message = format!("permission denied for table {}", name_of(table));
        Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
            .detail("INSERT on the whole table is needed.")
            .raise();
    }
    if is_filtered(table) {
        let message = format!("row security is in force for table {}", name_of(table));
        Fault::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).raise();
    }
}

/// Whether a role's code may run as the user: it is the user, a role that the user is a member of, or a superuser.
pub fn is_trusted(role: pg_sys::Oid) -> bool {
    // SAFETY: lookups by OID. That a superuser is a member of every role does not count here.
    unsafe { pg_sys::superuser_arg(role) || pg_sys::is_member_of_role_nosuper(pg_sys::GetUserId(), role) }
}

/// Refuses callers that do not own the index; from version 17 on MAINTAIN on the table is enough.
///
/// # Errors
/// 42501.
pub fn check_may_maintain(opened: &OpenIndex) {
    // SAFETY: lookups for relations that exist, since they are open.
    let allowed = unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(feature = "pg15")]
        let owner = pg_sys::pg_class_ownercheck(opened.index().oid(), user);
        #[cfg(not(feature = "pg15"))]
        let owner = pg_sys::object_ownercheck(pg_sys::RelationRelationId, opened.index().oid(), user);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let owner = owner
            || pg_sys::pg_class_aclcheck(opened.table(), user, pg_sys::ACL_MAINTAIN as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK;
        owner
    };
    if !allowed {
        let message = format!("must be owner of index {}", opened.index().name());
        Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).raise();
    }
}

/// Refuses to write on a standby.
///
/// # Errors
/// 25006.
pub fn check_not_in_recovery(function: &CStr) {
    // SAFETY: raises an ERROR, or does nothing.
    unsafe { pg_sys::PreventCommandDuringRecovery(function.as_ptr()) };
}

/// Refuses to write on a standby and in a read-only transaction: before anything is stored elsewhere.
///
/// # Errors
/// 25006.
pub fn check_may_write(function: &CStr) {
    check_not_in_recovery(function);
    // SAFETY: raises an ERROR, or does nothing.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
}

/// Whether this server is a standby, or recovers.
pub fn in_recovery() -> bool {
    // SAFETY: reads a flag.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Runs `work` as the owner of the extension's tables, with nothing in the search path that others may have made. `work`
/// is given the quoted name of the extension's schema.
///
/// # Errors
/// Raises 42704 if the extension's tables are not in this database.
pub fn as_extension_owner<R>(work: impl FnOnce(&str) -> R) -> R {
    with_settings(&[(c"search_path", c"pg_catalog, pg_temp")], || {
        let (owner, schema) = tables_of_extension();
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        // SAFETY: the end of the transaction or subtransaction puts the user back after an ERROR.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(owner, context | restricted as i32);
        }
        let result = work(&quote_identifier(schema));
        // SAFETY: what was in force above.
        unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
        result
    })
}

/// Owner and schema of the tables. The search path is safe. Assigns no transaction id, as a standby has none.
fn tables_of_extension() -> (pg_sys::Oid, String) {
    let sql = "SELECT c.relowner, n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'hybrid_archives' WHERE e.extname = 'hybridvec'";
    match Spi::connect(|client| client.select(sql, Some(1), &[])?.first().get_two::<pg_sys::Oid, Text>()) {
        Ok((Some(owner), Some(Text(schema)))) => (owner, schema),
        _ => {
            let message = "the table hybrid_archives of extension \"hybridvec\" does not exist";
            Fault::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
                .hint("The extension may be older than its library: see ALTER EXTENSION hybridvec UPDATE.")
                .raise()
        }
    }
}
