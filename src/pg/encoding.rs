//! Text of the database and text of ours: PostgreSQL keeps text in the encoding of the database, Rust and archives keep it
//! in UTF-8.
//!
//! Invariant: text that an archive or a catalog gets went through here, in either direction. A database of encoding
//! SQL_ASCII does not say what its bytes mean: they are taken as UTF-8, or refused where they are not.

use super::attempt::instead_of;
use crate::error::Fault;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::UnboxDatum;
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString, NulError, c_int};

const UTF8: c_int = pg_sys::pg_enc::PG_UTF8 as c_int;
/// Bytes that one character of UTF-8 takes in another encoding, at most, and one for the end.
const LONGEST_CHARACTER: usize = 16;

/// The encoding, if text has to be converted.
fn foreign() -> Option<c_int> {
    // SAFETY: set when the session began.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    (encoding != UTF8 && encoding != pg_sys::pg_enc::PG_SQL_ASCII as c_int).then_some(encoding)
}

/// The text in UTF-8, in memory of the current context where it had to be converted; or its first bytes that are not.
///
/// # Errors
/// 22P05 if the database's encoding has a character that Unicode has not.
pub fn utf8(text: &CStr) -> Result<&[u8], Vec<u8>> {
    let bytes = text.to_bytes();
    if foreign().is_some() && !bytes.is_ascii() {
        // SAFETY: a C string of this length; the result is one, too, palloc'd.
        let converted = unsafe { pg_sys::pg_server_to_any(text.as_ptr(), bytes.len() as c_int, UTF8) };
        // SAFETY: as above; callers copy it before the context goes.
        return Ok(unsafe { CStr::from_ptr(converted) }.to_bytes());
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let from = error.valid_up_to();
            Err(bytes[from..bytes.len().min(from + error.error_len().unwrap_or(4))].to_vec())
        }
    }
}

/// Refuses bytes that are not UTF-8. `what` has them.
#[cold]
pub fn not_utf8(what: &str, bytes: &[u8]) -> ! {
    let shown: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
    Fault::new(
        PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        format!("{what} has bytes that are not UTF-8: {}", shown.join(" ")),
    )
    .detail("Archives hold text in UTF-8. The database does not say in which encoding these bytes are.")
    .hint("Convert them to UTF-8 first, or copy the table into a database that has their encoding.")
    .raise()
}

/// Text of the database.
///
/// # Errors
/// 22021 for bytes that are not UTF-8 and whose encoding is not known; 22P05.
pub fn from_server(text: &CStr) -> String {
    match utf8(text) {
        Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Err(bytes) => not_utf8("a text or name", &bytes),
    }
}

/// As [`from_server`], for messages: what is not UTF-8 is replaced.
pub fn from_server_lossy(text: &CStr) -> String {
    String::from_utf8_lossy(utf8(text).unwrap_or(text.to_bytes())).into_owned()
}

/// Text for the database. An error if there is a zero byte in it.
///
/// # Errors
/// 22P05 if the database's encoding has no such characters.
pub fn to_server(text: &str) -> Result<CString, NulError> {
    let own = CString::new(text)?;
    if foreign().is_none() || text.is_ascii() {
        return Ok(own);
    }
    // SAFETY: a C string of this length; the result is one, too, palloc'd.
    unsafe {
        let converted = pg_sys::pg_any_to_server(own.as_ptr(), text.len() as c_int, UTF8);
        Ok(CStr::from_ptr(converted).to_owned())
    }
}

/// Text for people, in the database's encoding: characters that it has not are shown as `\u20ac`.
fn to_server_lossy(text: &str) -> Vec<u8> {
    let Some(encoding) = foreign().filter(|_| !text.is_ascii()) else { return text.as_bytes().to_vec() };
    // SAFETY: a lookup; 0 if there is none.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(UTF8, encoding) };
    let mut bytes = Vec::new();
    for character in text.chars() {
        if character.is_ascii() {
            bytes.push(character as u8);
        } else if conversion == pg_sys::InvalidOid || !convert(conversion, encoding, character, &mut bytes) {
            escape(character, &mut |text| bytes.extend(text.as_bytes()));
        }
    }
    bytes
}

/// Adds one character in this encoding; `false` if the encoding has none such.
fn convert(conversion: pg_sys::Oid, encoding: c_int, character: char, bytes: &mut Vec<u8>) -> bool {
    let (mut source, mut target) = ([0_u8; 5], [0_u8; LONGEST_CHARACTER]);
    let length = character.encode_utf8(&mut source).len() as c_int;
    let (from, to, room) = (source.as_mut_ptr(), target.as_mut_ptr(), LONGEST_CHARACTER as c_int);
    // SAFETY: the source ends with a zero byte, the target has as many bytes as it says; what cannot be converted is no ERROR
    // but fewer bytes that were read.
    let read =
        unsafe { pg_sys::pg_do_encoding_conversion_buf(conversion, UTF8, encoding, from, length, to, room, true) };
    bytes.extend(target.iter().take_while(|byte| read == length && **byte != 0));
    read == length
}

fn escape(character: char, push: &mut dyn FnMut(&str)) {
    let code = u32::from(character);
    push(&if code > 0xffff { format!("\\U{code:08x}") } else { format!("\\u{code:04x}") });
}

/// A message as pgrx can send it: it takes UTF-8 alone, which sessions of other encodings would see as something else.
pub fn message(text: String) -> String {
    if text.is_ascii() || foreign().is_none() {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_ascii() { shown.push(character) } else { escape(character, &mut |text| shown.push_str(text)) }
    }
    shown
}

/// Does `work`, and says more of characters that cannot be converted.
pub fn explaining<R>(work: impl FnOnce() -> R) -> R {
    let more = |message: &str| {
        // SAFETY: the name of the session's encoding, ASCII.
        let name = unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }.to_string_lossy();
        Fault::new(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, message)
            .detail(format!("The encoding of this database, {name}, has not all characters of the archive or table."))
            .hint("Use a database of encoding UTF8.")
    };
    instead_of(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, more, work)
}

/// A value of type `text` or `name` as an argument, or from a query.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Text(pub String);

/// A text in a row for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(pub String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Shown {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// A list of texts in a row for people.
pub fn shown(texts: impl IntoIterator<Item = String>) -> Vec<Shown> {
    texts.into_iter().map(Shown).collect()
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, of: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller's promise: a text, which is a varlena of its bytes, without a zero among them.
        let bytes = unsafe { <&[u8]>::from_polymorphic_datum(datum, is_null, of) }?;
        let text = CString::new(bytes).unwrap_or_else(|_| not_utf8("a text", &[0]));
        Some(Self(from_server(&text)))
    }
}

// SAFETY: a text is its bytes in the database's encoding, of which a copy is made.
unsafe impl UnboxDatum for Text {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: the caller's promise: a text that is not null.
        unsafe { Self::from_polymorphic_datum(datum.sans_lifetime(), false, pg_sys::TEXTOID) }.unwrap_or_default()
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = to_server(&self.0).unwrap_or_else(|_| not_utf8("a text", &[0]));
        text.as_bytes().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl IntoDatum for Shown {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        to_server_lossy(&self.0).as_slice().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: reads an argument that SQL declares as `text`.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise: the argument is a `text`.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function got NULL")
    }
}

// SAFETY: returns a complete text from a function that SQL declares to return `text`.
unsafe impl BoxRet for Shown {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: the datum is in the context that was current in the call, where PostgreSQL expects the result.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

super::fmgr::sql_type!(Text, "text");
super::fmgr::sql_type!(Shown, "text");
