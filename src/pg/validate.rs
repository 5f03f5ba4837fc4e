//! Whether an operator class fits the access method.

use pgrx::{PgLogLevel, PgSqlErrorCode, ereport, pg_guard, pg_sys};
use std::ffi::CStr;

/// Strategy of the distance operator.
const DISTANCE: i16 = 1;
/// Support function that tells the metric.
const METRIC: i16 = 1;

/// Says what is wrong with the operator family `family`; false.
fn complain(family: &str, what: &str) -> bool {
    let message = format!("operator family \"{family}\" of access method hybrid {what}");
    ereport!(PgLogLevel::INFO, PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message);
    false
}

/// A function's name with its argument types, as PostgreSQL's own validators print it.
fn signature(function: pg_sys::Oid) -> String {
    // SAFETY: formats a function's name into a palloc'd C string.
    unsafe { CStr::from_ptr(pg_sys::format_procedure(function)) }.to_string_lossy().into_owned()
}

fn family_name(family: pg_sys::Oid) -> String {
    let cache = pg_sys::SysCacheIdentifier::OPFAMILYOID as i32;
    // SAFETY: a lookup in a system cache by OID; the tuple, if there is one, is a pg_opfamily row, released after use.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, family.into());
        if tuple.is_null() {
            return family.to_u32().to_string();
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opfamily>();
        let name = CStr::from_ptr((*row).opfname.data.as_ptr()).to_string_lossy().into_owned();
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// Whether a function can tell the metric: `() RETURNS integer`.
pub(super) fn tells_metric(function: pg_sys::Oid) -> bool {
    // SAFETY: lookups by OID.
    unsafe { pg_sys::get_func_rettype(function) == pg_sys::INT4OID && pg_sys::get_func_nargs(function) == 0 }
}

/// A list of catalog rows, released when dropped.
struct CatalogList(*mut pg_sys::catclist);

impl CatalogList {
    fn of_family(cache: pg_sys::SysCacheIdentifier::Type, family: pg_sys::Oid) -> Self {
        let none = pg_sys::Datum::from(0);
        // SAFETY: a lookup in a system cache whose first key is the family.
        Self(unsafe { pg_sys::SearchSysCacheList(cache as i32, 1, family.into(), none, none) })
    }

    fn rows<T: Copy>(&self) -> Vec<T> {
        // SAFETY: the list has `n_members` tuples, whose fixed part is a `T` (the caches below tell which).
        unsafe {
            let members = (*self.0).members.as_slice((*self.0).n_members as usize);
            members.iter().map(|&m| *pg_sys::GETSTRUCT(&raw mut (*m).tuple).cast::<T>()).collect()
        }
    }
}

impl Drop for CatalogList {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: acquired in `of_family`.
            unsafe { pg_sys::ReleaseCatCacheList(self.0) };
        }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amvalidate(class: pg_sys::Oid) -> bool {
    // SAFETY: a lookup of an operator class that PostgreSQL says exists.
    let family = unsafe { pg_sys::get_opclass_family(class) };
    // SAFETY: as above.
    let input = unsafe { pg_sys::get_opclass_input_type(class) };
    let name = family_name(family);
    let operators = CatalogList::of_family(pg_sys::SysCacheIdentifier::AMOPSTRATEGY, family);
    let functions = CatalogList::of_family(pg_sys::SysCacheIdentifier::AMPROCNUM, family);
    let mut sound = true;
    let operators = operators.rows::<pg_sys::FormData_pg_amop>();
    for operator in &operators {
        let strategy = operator.amopstrategy;
        if strategy != DISTANCE || operator.amoppurpose != pg_sys::AMOP_ORDER as std::ffi::c_char {
            sound &=
                complain(&name, &format!("contains an operator with strategy {strategy} that is not FOR ORDER BY"));
        // SAFETY: a lookup by OID.
        } else if unsafe { pg_sys::get_op_rettype(operator.amopopr) } != pg_sys::FLOAT8OID
            || (operator.amoplefttype, operator.amoprighttype) != (input, input)
        {
            let what =
                "contains a distance operator that is not of the class's type or does not return double precision";
            sound &= complain(&name, what);
        }
    }
    let functions = functions.rows::<pg_sys::FormData_pg_amproc>();
    for function in &functions {
        if function.amprocnum != METRIC || !tells_metric(function.amproc) {
            let (function, number) = (signature(function.amproc), function.amprocnum);
            let what = format!("contains function {function} with wrong signature for support number {number}");
            sound &= complain(&name, &what);
        }
    }
    if operators.is_empty() {
        sound &= complain(&name, "has no distance operator");
    }
    if functions.is_empty() {
        sound &= complain(&name, "has no support function that tells its metric");
    }
    sound
}
