//! Whether an operator class fits the access method.

use super::key::key_type;
use crate::am::keys::{Comparison, KeyType};
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
    let operators = operators.rows::<pg_sys::FormData_pg_amop>();
    let functions = functions.rows::<pg_sys::FormData_pg_amproc>();
    match key_type(input) {
        Some(of) => validate_keys(&name, of, &operators, &functions),
        None => validate_vectors(&name, input, &operators, &functions),
    }
}

/// Whether a family of key columns is sound: only comparisons of types that compare, all five where there is one.
fn validate_keys(
    name: &str,
    class: KeyType,
    operators: &[pg_sys::FormData_pg_amop],
    functions: &[pg_sys::FormData_pg_amproc],
) -> bool {
    let mut sound = true;
    for function in functions {
        let (function, number) = (signature(function.amproc), function.amprocnum);
        sound &= complain(name, &format!("contains function {function} with invalid support number {number}"));
    }
    let mut pairs = Vec::new();
    for operator in operators {
        let types = key_type(operator.amoplefttype).zip(key_type(operator.amoprighttype));
        let search = operator.amoppurpose == pg_sys::AMOP_SEARCH as std::ffi::c_char;
        // SAFETY: a lookup by OID.
        let boolean = unsafe { pg_sys::get_op_rettype(operator.amopopr) } == pg_sys::BOOLOID;
        let strategy = u16::try_from(operator.amopstrategy).ok().and_then(Comparison::of_strategy);
        match types.filter(|&(left, right)| left.compares_with(class) && right.compares_with(class)) {
            Some(types) if search && boolean && strategy.is_some() => pairs.push(types),
            Some(_) => {
                let what =
                    format!("contains an operator with strategy {} that is no comparison", operator.amopstrategy);
                sound &= complain(name, &what);
            }
            None => sound &= complain(name, "contains an operator between types that key columns do not compare"),
        }
    }
    for of in KeyType::ALL.into_iter().filter(|&of| of == class || pairs.contains(&(of, of))) {
        let incomplete = |&other: &KeyType| {
            let found = pairs.iter().filter(|&&pair| pair == (of, other)).count();
            found != Comparison::ALL.len() && (found > 0 || of == other)
        };
        if let Some(other) = KeyType::ALL.into_iter().find(incomplete) {
            sound &= complain(name, &format!("is missing operators between {of:?} and {other:?}"));
        }
    }
    sound
}

/// Whether a family of vectors is sound: a distance, and a function that tells the metric.
fn validate_vectors(
    name: &str,
    input: pg_sys::Oid,
    operators: &[pg_sys::FormData_pg_amop],
    functions: &[pg_sys::FormData_pg_amproc],
) -> bool {
    let mut sound = true;
    for operator in operators {
        let strategy = operator.amopstrategy;
        if strategy != DISTANCE || operator.amoppurpose != pg_sys::AMOP_ORDER as std::ffi::c_char {
            sound &= complain(name, &format!("contains an operator with strategy {strategy} that is not FOR ORDER BY"));
        // SAFETY: a lookup by OID.
        } else if unsafe { pg_sys::get_op_rettype(operator.amopopr) } != pg_sys::FLOAT8OID
            || (operator.amoplefttype, operator.amoprighttype) != (input, input)
        {
            let what =
                "contains a distance operator that is not of the class's type or does not return double precision";
            sound &= complain(name, what);
        }
    }
    for function in functions {
        if function.amprocnum != METRIC || !tells_metric(function.amproc) {
            let (function, number) = (signature(function.amproc), function.amprocnum);
            let what = format!("contains function {function} with wrong signature for support number {number}");
            sound &= complain(name, &what);
        }
    }
    if operators.is_empty() {
        sound &= complain(name, "has no distance operator");
    }
    if functions.is_empty() {
        sound &= complain(name, "has no support function that tells its metric");
    }
    sound
}
