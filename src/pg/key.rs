//! Key columns of an index: their types, their values in a row, and as text.

use super::encoding::from_server_lossy;
use super::relation::{Index, tuple_attribute};
use crate::am::keys::KeyType;
use crate::error::Fault;
use ann::keys::{Keys, MAX_KEYS};
use pgrx::{PgSqlErrorCode, direct_function_call, pg_sys};
use std::ffi::CStr;

/// The type that an OID stands for, if key columns may have it.
pub(super) fn key_type(oid: pg_sys::Oid) -> Option<KeyType> {
    KeyType::ALL.into_iter().find(|&of| type_oid(of) == oid)
}

fn type_oid(of: KeyType) -> pg_sys::Oid {
    match of {
        KeyType::Int2 => pg_sys::INT2OID,
        KeyType::Int4 => pg_sys::INT4OID,
        KeyType::Int8 => pg_sys::INT8OID,
        KeyType::Bool => pg_sys::BOOLOID,
        KeyType::Date => pg_sys::DATEOID,
        KeyType::Timestamp => pg_sys::TIMESTAMPOID,
        KeyType::Timestamptz => pg_sys::TIMESTAMPTZOID,
    }
}

/// A value as the index stores it. The datum is of that type.
pub(super) fn stored(of: KeyType, datum: pg_sys::Datum) -> i64 {
    match of {
        KeyType::Int2 => i64::from(datum.value() as i16),
        KeyType::Int4 | KeyType::Date => i64::from(datum.value() as i32),
        KeyType::Int8 | KeyType::Timestamp | KeyType::Timestamptz => datum.value() as i64,
        KeyType::Bool => i64::from(datum.value() as u8 != 0),
    }
}

/// A stored value as its type's output function writes it.
pub fn text(of: KeyType, value: i64) -> String {
    let datum = match of {
        KeyType::Bool => pg_sys::Datum::from(value != 0),
        KeyType::Int2 | KeyType::Int4 | KeyType::Date => pg_sys::Datum::from(value as i32),
        KeyType::Int8 | KeyType::Timestamp | KeyType::Timestamptz => pg_sys::Datum::from(value),
    };
    let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: the output function of a type gets a value of that type, and returns a palloc'd C string.
    unsafe {
        pg_sys::getTypeOutputInfo(type_oid(of), &mut function, &mut is_varlena);
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(function, datum)).to_string_lossy().into_owned()
    }
}

/// A date or timestamp as time with time zone, as the server's comparisons convert it; and 1 or -1 where that is later
/// or earlier than all finite times.
pub fn instant(of: KeyType, value: i64) -> (i64, i32) {
    let mut overflow = 0;
    // SAFETY: both functions take a value of their type and a place for the overflow, and raise nothing.
    let instant = unsafe {
        match of {
            KeyType::Date => pg_sys::date2timestamptz_opt_overflow(value as pg_sys::DateADT, &mut overflow),
            _ => pg_sys::timestamp2timestamptz_opt_overflow(value, &mut overflow),
        }
    };
    (instant, overflow)
}

/// A time with time zone as local time; `None` near the ends of time, where the server cannot tell.
pub fn local_time(value: i64) -> Option<i64> {
    const MONTH: i64 = 30 * 86_400_000_000;
    // MIN_TIMESTAMP and END_TIMESTAMP of datatype/timestamp.h.
    const FINITE: std::ops::Range<i64> = -211_813_488_000_000_000 + MONTH..9_223_371_331_200_000_000 - MONTH;
    if value == i64::MIN || value == i64::MAX {
        return Some(value);
    }
    if !FINITE.contains(&value) {
        return None;
    }
    // SAFETY: the function takes a timestamptz and returns a timestamp.
    unsafe { direct_function_call::<i64>(pg_sys::timestamptz_timestamp, &[Some(pg_sys::Datum::from(value))]) }
}

/// The types of an index's key columns, in order.
#[derive(Clone, Copy)]
pub struct KeyColumns {
    types: [KeyType; MAX_KEYS],
    count: usize,
}

impl KeyColumns {
    /// Of an index that was created, so that its columns are known to fit.
    pub fn of(index: Index) -> Self {
        let mut columns = Self { types: [KeyType::Int8; MAX_KEYS], count: index.column_count().saturating_sub(1) };
        for (i, of) in columns.types.iter_mut().take(columns.count).enumerate() {
            *of = key_type(index.input_type(i + 1)).unwrap_or_else(|| refuse_key(index, i + 1));
        }
        columns
    }

    /// Of an index that is being created.
    ///
    /// # Errors
    /// 42P17 unless a vector comes first and keys follow it; 54011 if there are too many.
    pub fn checked(index: Index) -> Self {
        let keys = index.column_count() - 1;
        if key_type(index.input_type(0)).is_some() {
            let message = "the first column of a hybrid index must be a vector";
            Fault::new(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message)
                .detail(format!("Column \"{}\" comes first in index \"{}\".", column_name(index, 0), index.name()))
                .hint("Name the vector first and key columns after it, as in (embedding, created_at).")
                .raise();
        }
        if keys > MAX_KEYS {
            let message = format!("a hybrid index has at most {MAX_KEYS} key columns, not {keys}");
            Fault::new(PgSqlErrorCode::ERRCODE_TOO_MANY_COLUMNS, message)
                .hint("Leave out columns that few queries have conditions on.")
                .raise();
        }
        Self::of(index)
    }

    pub fn types(&self) -> &[KeyType] {
        &self.types[..self.count]
    }

    /// The values of a row.
    ///
    /// # Safety
    /// `values` and `isnull` are a row of the index: the vector, then the key columns.
    pub(super) unsafe fn values(&self, values: *const pg_sys::Datum, isnull: *const bool) -> Keys {
        let mut keys = [None; MAX_KEYS];
        for (i, key) in keys.iter_mut().take(self.count).enumerate() {
            // SAFETY: the caller's promise.
            *key = unsafe { (!*isnull.add(i + 1)).then(|| stored(self.types[i], *values.add(i + 1))) };
        }
        Keys::new(&keys[..self.count])
    }
}

fn column_name(index: Index, column: usize) -> String {
    // SAFETY: the index is open and has that column; a name ends with a zero byte.
    unsafe {
        let attribute = tuple_attribute((*index.as_ptr()).rd_att, column);
        from_server_lossy(CStr::from_ptr((*attribute).attname.data.as_ptr()))
    }
}

#[cold]
fn refuse_key(index: Index, column: usize) -> ! {
    // SAFETY: formats the name of a type into a palloc'd C string.
    let of = from_server_lossy(unsafe { CStr::from_ptr(pg_sys::format_type_be(index.input_type(column))) });
    let message = format!("a key column of a hybrid index cannot be of type {of}");
    Fault::new(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message)
        .detail(format!("Column \"{}\" of index \"{}\" is.", column_name(index, column), index.name()))
        .hint(
            "Create an index for each vector. Key columns are smallint, integer, bigint, boolean, date or timestamps.",
        )
        .raise()
}
