//! Whether an operator class fits the access method.

use pgrx::{PgLogLevel, PgSqlErrorCode, ereport, pg_guard, pg_sys};

/// Strategy of the distance operator.
const DISTANCE: i16 = 1;
/// Support function that tells the metric.
const METRIC: i16 = 1;

fn complain(family: &str, what: String) -> bool {
    let message = format!("operator family {family} of access method hybrid {what}");
    ereport!(PgLogLevel::INFO, PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message);
    false
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
    let name = family.to_u32().to_string();
    let operators = CatalogList::of_family(pg_sys::SysCacheIdentifier::AMOPSTRATEGY, family);
    let functions = CatalogList::of_family(pg_sys::SysCacheIdentifier::AMPROCNUM, family);
    let mut sound = true;
    let operators = operators.rows::<pg_sys::FormData_pg_amop>();
    for operator in &operators {
        let order = operator.amoppurpose == pg_sys::AMOP_ORDER as std::ffi::c_char;
        if operator.amopstrategy != DISTANCE || !order {
            sound &= complain(
                &name,
                format!("contains an operator with strategy {} that is not FOR ORDER BY", operator.amopstrategy),
            );
        // SAFETY: a lookup by OID.
        } else if unsafe { pg_sys::get_op_rettype(operator.amopopr) } != pg_sys::FLOAT8OID {
            sound &= complain(&name, "contains a distance operator that does not return double precision".into());
        }
    }
    let functions = functions.rows::<pg_sys::FormData_pg_amproc>();
    for function in &functions {
        // SAFETY: a lookup by OID.
        let returns = unsafe { pg_sys::get_func_rettype(function.amproc) };
        if function.amprocnum != METRIC || returns != pg_sys::INT4OID {
            sound &= complain(&name, format!("contains a support function {} of the wrong type", function.amprocnum));
        }
    }
    if operators.is_empty() {
        sound &= complain(&name, "has no distance operator".into());
    }
    if functions.is_empty() {
        sound &= complain(&name, "has no support function that tells its metric".into());
    }
    sound
}
