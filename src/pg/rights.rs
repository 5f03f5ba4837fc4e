//! Who may look at an index.

use super::relation::OpenIndex;
use crate::error::Fault;
use pgrx::{PgSqlErrorCode, pg_sys};

/// Refuses callers that may not read the whole table: they need SELECT on it with no row security in force, or to be a
/// member of pg_monitor where `monitor` says that this is enough.
///
/// # Errors
/// 42501.
pub fn check_may_inspect(opened: &OpenIndex, monitor: bool) {
    let table = opened.table();
    // SAFETY: lookups for a table that exists, since its index is open.
    let allowed = unsafe {
        let user = pg_sys::GetUserId();
        let monitors = monitor && pg_sys::has_privs_of_role(user, pg_sys::ROLE_PG_MONITOR.into());
        let select = pg_sys::pg_class_aclcheck(table, user, pg_sys::ACL_SELECT as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK;
        let rls = pg_sys::check_enable_rls(table, user, true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
        monitors || select && !rls
    };
    if !allowed {
        let message = format!("permission denied for the table of index \"{}\"", opened.index().name());
        let detail = if monitor {
            "SELECT on the table without row security, or membership of pg_monitor, is needed."
        } else {
            "SELECT on the table without row security is needed."
        };
        Fault::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).detail(detail).raise();
    }
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
pub fn check_not_in_recovery(function: &std::ffi::CStr) {
    // SAFETY: raises an ERROR, or does nothing.
    unsafe { pg_sys::PreventCommandDuringRecovery(function.as_ptr()) };
}

/// Whether this server is a standby, or recovers.
pub fn in_recovery() -> bool {
    // SAFETY: reads a flag.
    unsafe { pg_sys::RecoveryInProgress() }
}
