//! The small things of the function manager: SQL names of Rust types, binary messages, bit strings, float output.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::pg_sys;
use std::ffi::{c_char, c_int};
use std::ptr::NonNull;
use std::{mem, slice};

/// Lets a type stand in the signature of a `#[pg_extern(sql = false)]` function.
macro_rules! sql_type {
    ($rust:ty, $sql:literal) => {
        // SAFETY: the name is the SQL type that the conversions are for; sql/*.sql declares the functions.
        unsafe impl pgrx::pgrx_sql_entity_graph::metadata::SqlTranslatable for $rust {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($rust);
            const TYPE_ORIGIN: pgrx::pgrx_sql_entity_graph::metadata::TypeOrigin =
                pgrx::pgrx_sql_entity_graph::metadata::TypeOrigin::External;
            const ARGUMENT_SQL: Result<
                pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef,
                pgrx::pgrx_sql_entity_graph::metadata::ArgumentError,
            > = Ok(pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<
                pgrx::pgrx_sql_entity_graph::metadata::ReturnsRef,
                pgrx::pgrx_sql_entity_graph::metadata::ReturnsError,
            > = Ok(pgrx::pgrx_sql_entity_graph::metadata::ReturnsRef::One(
                pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef::literal($sql),
            ));
        }
    };
}
pub(crate) use sql_type;

/// The binary message that a receive function reads.
pub struct Message<'a>(&'a mut pg_sys::StringInfoData);

impl Message<'_> {
    /// What has not been read yet.
    pub fn rest(&self) -> &[u8] {
        let start = usize::try_from(self.0.cursor).unwrap_or(0);
        let end = usize::try_from(self.0.len).unwrap_or(0).max(start);
        // SAFETY: a StringInfo has `len` readable bytes from `data` on, and `start..end` lies within.
        unsafe { slice::from_raw_parts(self.0.data.cast::<u8>().add(start), end - start) }
    }

    /// Marks so many bytes of the rest as read. The server reports what is left after the receive function returns.
    pub fn advance(&mut self, bytes: usize) {
        self.0.cursor += bytes.min(self.rest().len()) as c_int;
    }
}

// SAFETY: reads an argument that SQL declares as `internal` and that the server passes to receive functions only.
unsafe impl<'fcx> ArgAbi<'fcx> for Message<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise: the argument is `internal`.
        let internal = unsafe { arg.unbox_arg_using_from_datum::<pgrx::Internal>() };
        let datum = internal.and_then(|internal| internal.unwrap()).expect("a receive function got no message");
        // SAFETY: the server passes a StringInfo that it does not touch during the call.
        Self(unsafe { &mut *datum.cast_mut_ptr() })
    }
}

sql_type!(Message<'_>, "internal");

/// A new bit string, in the current memory context.
pub struct BitBuf(NonNull<pg_sys::varlena>);

impl BitBuf {
    /// A bit for each item, the first one highest in the first byte.
    pub fn from_bits(bits: impl ExactSizeIterator<Item = bool>) -> Self {
        const HEADER: usize = mem::size_of::<[i32; 2]>();
        let count = bits.len();
        let bytes = count.div_ceil(8);
        // SAFETY: palloc0 returns non-null memory of that size, or raises.
        let varbit = unsafe { NonNull::new_unchecked(pg_sys::palloc0(HEADER + bytes).cast::<i32>()) };
        // SAFETY: the memory was just allocated: a varbit's header (length, number of bits), then `bytes` zeros.
        let data = unsafe {
            pgrx::set_varsize_4b(varbit.as_ptr().cast(), (HEADER + bytes) as i32);
            *varbit.as_ptr().add(1) = count as i32;
            slice::from_raw_parts_mut(varbit.as_ptr().add(2).cast::<u8>(), bytes)
        };
        bits.take(count).enumerate().for_each(|(at, bit)| data[at / 8] |= u8::from(bit) << (7 - at % 8));
        Self(varbit.cast())
    }
}

// SAFETY: returns a complete bit string from a function that SQL declares to return `bit`.
unsafe impl BoxRet for BitBuf {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: the datum is in the context that was current in the call, where PostgreSQL expects the result.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0.as_ptr())) }
    }
}

sql_type!(BitBuf, "bit");

unsafe extern "C" {
    /// common/shortest_dec.h: writes at most 15 bytes, no terminator; never raises.
    fn float_to_shortest_decimal_bufn(value: f32, result: *mut c_char) -> c_int;
}

/// Writes a number as `float4out` does and returns its length, at most 15.
#[inline]
pub fn write_float(value: f32, buffer: &mut [u8; vectext::text::MAX_NUMBER_LEN + 1]) -> usize {
    // SAFETY: the buffer has the size that the function asks for (FLOAT_SHORTEST_DECIMAL_LEN).
    unsafe { float_to_shortest_decimal_bufn(value, buffer.as_mut_ptr().cast()) as usize }
}
