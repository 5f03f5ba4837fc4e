//! One-dimensional PostgreSQL arrays as slices.

use super::fmgr::sql_type;
use super::varlena::Detoasted;
use crate::error::raise;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::{FromDatum, PgSqlErrorCode, pg_sys, varatt_is_4b_u};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::{mem, slice};

/// Bytes before the elements of a one-dimensional array without nulls: the header, one dimension, one lower bound.
const HEADER_LEN: usize = mem::size_of::<pg_sys::ArrayType>() + 2 * mem::size_of::<i32>();

const _: () = assert!(HEADER_LEN == 24, "elements of 8 bytes follow the header without padding");

/// A type whose array elements lie side by side and may hold any bits.
///
/// # Safety
/// `OID` names a pass-by-value SQL type with the size and alignment of the Rust type.
pub unsafe trait Element: Copy {
    /// The SQL type.
    const OID: pg_sys::Oid;
}

// SAFETY: `integer` is an int32.
unsafe impl Element for i32 {
    const OID: pg_sys::Oid = pg_sys::INT4OID;
}
// SAFETY: `real` is a float4.
unsafe impl Element for f32 {
    const OID: pg_sys::Oid = pg_sys::FLOAT4OID;
}
// SAFETY: `double precision` is a float8.
unsafe impl Element for f64 {
    const OID: pg_sys::Oid = pg_sys::FLOAT8OID;
}

/// An array inside a datum, detoasted where necessary.
pub struct ArrayRef<'a> {
    array: NonNull<pg_sys::ArrayType>,
    /// Frees the copy, if there is one, when the reference is dropped.
    copy: Option<Detoasted>,
    datum: PhantomData<&'a pg_sys::ArrayType>,
}

impl ArrayRef<'_> {
    /// # Safety
    /// `datum` is not null and points to an array that outlives `'a`.
    unsafe fn from_datum(datum: pg_sys::Datum) -> Self {
        let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: the caller's promise; whatever is not plain, detoasting copies.
        let copy = unsafe { (!varatt_is_4b_u(varlena)).then(|| Detoasted::new(varlena)) };
        let plain = copy.as_ref().map_or(varlena, Detoasted::as_ptr);
        // SAFETY: neither a datum nor a copy of one is null.
        Self { array: unsafe { NonNull::new_unchecked(plain.cast()) }, copy, datum: PhantomData }
    }

    fn header(&self) -> &pg_sys::ArrayType {
        // SAFETY: `from_datum`'s promise: an array, which starts with this header.
        unsafe { self.array.as_ref() }
    }

    /// Number of array dimensions; 0 for an empty array.
    pub fn dimensions(&self) -> usize {
        usize::try_from(self.header().ndim).unwrap_or(0)
    }

    /// The element type.
    pub fn element_type(&self) -> pg_sys::Oid {
        self.header().elemtype
    }

    /// Whether any element is NULL (having a null bitmap is not enough).
    pub fn contains_nulls(&self) -> bool {
        // SAFETY: a valid array.
        self.header().dataoffset != 0 && unsafe { pg_sys::array_contains_nulls(self.array.as_ptr()) }
    }

    /// Number of elements of an array of at most one dimension.
    pub fn len(&self) -> usize {
        if self.dimensions() == 0 {
            return 0;
        }
        // SAFETY: an array with a dimension has its length right after the header.
        let len = unsafe { *self.array.as_ptr().add(1).cast::<i32>() };
        usize::try_from(len).unwrap_or(0)
    }

    /// The elements of an array of at most one dimension without nulls, or `None` if they are of another type.
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        if self.element_type() != T::OID {
            return None;
        }
        let data = self.data_of(self.len() * mem::size_of::<T>());
        // SAFETY: `data_of` has checked the length, array data is aligned for its elements, and `T` is their type.
        Some(unsafe { slice::from_raw_parts(data.cast::<T>(), self.len()) })
    }

    /// This array to write to: itself where it is the state of an aggregate, otherwise a copy.
    ///
    /// The array must be the transition state, that is the first argument; PostgreSQL lets a transition function change
    /// that one, and only that one, in place. `None` if the elements are of another type.
    pub fn into_state<T: Element>(self, in_aggregate: InAggregate) -> Option<ArrayBuf<T>> {
        let len = self.elements::<T>()?.len();
        let is_plain = self.dimensions() == 1 && self.header().dataoffset == 0;
        if in_aggregate.0 && self.copy.is_none() && is_plain {
            Some(ArrayBuf { array: self.array, len, elements: PhantomData })
        } else {
            self.elements().map(ArrayBuf::copy_of)
        }
    }

    /// Start of the elements, which take `bytes`.
    fn data_of(&self, bytes: usize) -> *const u8 {
        let offset = match usize::try_from(self.header().dataoffset) {
            Ok(offset) if offset > 0 => offset,
            _ => mem::size_of::<pg_sys::ArrayType>() + 2 * mem::size_of::<i32>() * self.dimensions(),
        };
        // SAFETY: a plain varlena tells its length.
        let size = unsafe { pgrx::varsize_4b(self.array.as_ptr().cast()) };
        if bytes > size.saturating_sub(offset) {
            raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "stored array is damaged");
        }
        // SAFETY: `offset` is within the array.
        unsafe { self.array.as_ptr().cast::<u8>().add(offset) }
    }

    /// The elements of a `numeric[]` without nulls, rounded to `real` by PostgreSQL.
    ///
    /// # Errors
    /// Raises 22003 if a number is too large.
    pub fn numerics_as_f32(&self) -> Vec<f32> {
        let (mut datums, mut count) = (ptr::null_mut(), 0);
        // SAFETY: a valid array whose elements are `numeric`: varlena, not by value, int-aligned; no nulls.
        unsafe {
            let (array, align) = (self.array.as_ptr(), pg_sys::TYPALIGN_INT as std::ffi::c_char);
            pg_sys::deconstruct_array(
                array,
                pg_sys::NUMERICOID,
                -1,
                false,
                align,
                &mut datums,
                ptr::null_mut(),
                &mut count,
            );
        }
        // SAFETY: deconstruct_array has set an array of `count` datums.
        let datums = unsafe { slice::from_raw_parts(datums, count as usize) };
        datums.iter().map(|&datum| numeric_as_f32(datum)).collect()
    }

    /// The integers in a type modifier, `cstring[]`.
    ///
    /// # Errors
    /// Raises 22P02 and the like if they are not integers.
    pub fn type_modifiers(&self) -> Vec<i32> {
        let mut count = 0;
        // SAFETY: a valid array; the function checks the rest.
        let values = unsafe { pg_sys::ArrayGetIntegerTypmods(self.array.as_ptr(), &mut count) };
        // SAFETY: the function returns `count` integers.
        unsafe { slice::from_raw_parts(values, count as usize) }.to_vec()
    }
}

fn numeric_as_f32(numeric: pg_sys::Datum) -> f32 {
    // SAFETY: the datum is a `numeric`, which is what the function takes.
    unsafe { pgrx::direct_function_call(pg_sys::numeric_float4, &[Some(numeric)]) }.expect("numeric_float4 is strict")
}

impl FromDatum for ArrayRef<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller's promise for datums that are not null.
        (!is_null).then(|| unsafe { Self::from_datum(datum) })
    }
}

// SAFETY: reads an argument that SQL declares as an array; the datum lives as long as the call.
unsafe impl<'fcx> ArgAbi<'fcx> for ArrayRef<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise: the argument is an array.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function got NULL")
    }
}

sql_type!(ArrayRef<'_>, "anyarray");

/// Whether the function is called as part of an aggregate; takes no place among the SQL arguments.
#[derive(Clone, Copy)]
pub struct InAggregate(bool);

// SAFETY: reads no argument.
unsafe impl<'fcx> ArgAbi<'fcx> for InAggregate {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the call information of a running call is valid.
        let context = unsafe {
            let fcinfo = arg.unbox_unchecked::<pg_sys::FunctionCallInfo>();
            pg_sys::AggCheckCallContext(fcinfo, ptr::null_mut())
        };
        Self(context != 0)
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

sql_type!(InAggregate, "");

/// A new one-dimensional array, in the current memory context: fill it, then return it.
pub struct ArrayBuf<T: Element> {
    array: NonNull<pg_sys::ArrayType>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Element> ArrayBuf<T> {
    /// All zeros.
    pub fn zeroed(len: usize) -> Self {
        let size = HEADER_LEN + len * mem::size_of::<T>();
        // SAFETY: palloc0 returns non-null, MAXALIGNed memory of that size, or raises.
        let array = unsafe { NonNull::new_unchecked(pg_sys::palloc0(size).cast::<pg_sys::ArrayType>()) };
        // SAFETY: the memory was just allocated; the length and the lower bound lie right after the header.
        unsafe {
            pgrx::set_varsize_4b(array.as_ptr().cast(), size as i32);
            (*array.as_ptr()).ndim = 1;
            (*array.as_ptr()).elemtype = T::OID;
            array.as_ptr().add(1).cast::<[i32; 2]>().write([len as i32, 1]);
        }
        Self { array, len, elements: PhantomData }
    }

    /// A copy of `values`.
    pub fn copy_of(values: &[T]) -> Self {
        let mut array = Self::zeroed(values.len());
        array.as_mut_slice().copy_from_slice(values);
        array
    }

    /// The elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: `zeroed` has allocated `len` elements after the header, aligned; `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.array.as_ptr().cast::<u8>().add(HEADER_LEN).cast(), self.len) }
    }
}

// SAFETY: returns a complete array from a function that SQL declares to return an array of that type.
unsafe impl<T: Element> BoxRet for ArrayBuf<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: the datum is in the context that was current in the call, where PostgreSQL expects the result.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.array.as_ptr())) }
    }
}

sql_type!(ArrayBuf<f32>, "real[]");
sql_type!(ArrayBuf<f64>, "double precision[]");
