//! Text and binary input and output, and the type modifier.

use super::{declared, or_raise};
use crate::error::raise;
use crate::pg::array::ArrayRef;
use crate::pg::fmgr::{Message, write_float};
use crate::pg::varlena::{VectorBuf, VectorRef};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};
use vectext::MAX_DIM;

#[pg_extern(sql = false)]
fn vector_in(literal: &CStr, _type: pg_sys::Oid, typmod: i32) -> VectorBuf {
    VectorBuf::copy_of(&or_raise(vectext::text::parse(literal.to_bytes(), declared(typmod))))
}

#[pg_extern(sql = false)]
fn vector_out(vector: VectorRef<'_>) -> CString {
    let text = vectext::text::format(vector.as_slice(), write_float);
    CString::new(text).expect("digits and punctuation have no NUL")
}

#[pg_extern(sql = false)]
fn vector_typmod_in(modifiers: ArrayRef<'_>) -> i32 {
    let refuse = |message: String| -> ! { raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message) };
    match modifiers.type_modifiers()[..] {
        [dim] if dim < 1 => refuse("dimensions for type vector must be at least 1".into()),
        [dim] if dim > MAX_DIM as i32 => refuse(format!("dimensions for type vector cannot exceed {MAX_DIM}")),
        [dim] => dim,
        _ => refuse("invalid type modifier".into()),
    }
}

#[pg_extern(sql = false)]
fn vector_recv(mut message: Message<'_>, _type: pg_sys::Oid, typmod: i32) -> VectorBuf {
    let values = or_raise(vectext::binary::decode(message.rest(), declared(typmod)));
    message.advance(vectext::binary::encoded_len(values.len()));
    VectorBuf::copy_of(&values)
}

#[pg_extern(sql = false)]
fn vector_send(vector: VectorRef<'_>) -> Vec<u8> {
    vectext::binary::encode(vector.as_slice())
}
