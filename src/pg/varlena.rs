//! Vectors as PostgreSQL stores them: `{int32 varlena header, int16 dim, int16 unused = 0, float4[dim]}`, int-aligned.
//!
//! Invariant: a `VectorRef` has 1..=16000 elements, all inside its datum.

use crate::error::Fault;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::{FromDatum, PgSqlErrorCode, pg_sys, varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::{mem, ptr, slice};
use vectext::MAX_DIM;

/// The start of a vector datum with a 4-byte header.
#[repr(C)]
struct Header {
    vl_len: u32,
    dim: i16,
    unused: i16,
}

const _: () = assert!(mem::size_of::<Header>() == 8 && mem::offset_of!(Header, dim) == 4);

/// Bytes of `dim` and `unused`, which come before the elements in every form of the datum.
const DIM_LEN: usize = 4;

/// Most elements of a datum with a 1-byte header: such a datum has at most 127 bytes.
const MAX_SHORT: usize = (127 - 1 - DIM_LEN) / 4;

/// A vector inside a datum.
///
/// Borrows where it can. A datum with a 1-byte header has unaligned elements, so they are copied, without allocation; a
/// compressed or toasted datum is detoasted into the current memory context and freed when the value is dropped.
pub struct VectorRef<'a> {
    datum: pg_sys::Datum,
    elements: Elements<'a>,
}

enum Elements<'a> {
    Borrowed(&'a [f32]),
    Short { dim: usize, values: [f32; MAX_SHORT] },
    Detoasted(Detoasted),
}

impl<'a> VectorRef<'a> {
    /// Reads a vector datum.
    ///
    /// # Safety
    /// `datum` is not null and points to a datum of type `vector` that outlives `'a`.
    ///
    /// # Errors
    /// Raises XX001 if what the datum says of its own size does not hold (in [`VectorRef::as_slice`] if it is toasted).
    #[inline]
    pub unsafe fn from_datum(datum: pg_sys::Datum) -> Self {
        let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: the caller's promise: a varlena may be asked for the form of its header.
        let (is_plain, is_short) =
            unsafe { (varatt_is_4b_u(varlena), varatt_is_1b(varlena) && !varatt_is_1b_e(varlena)) };
        let elements = if is_plain {
            // SAFETY: a plain datum is int-aligned (the type's typalign) and as long as its header says.
            Elements::Borrowed(unsafe { plain_elements(varlena) })
        } else if is_short {
            // SAFETY: a short datum is as long as its header says.
            unsafe { short_elements(varlena) }
        } else {
            // SAFETY: neither plain nor short, so it is compressed or external, which detoasting copies.
            Elements::Detoasted(unsafe { Detoasted::new(varlena) })
        };
        Self { datum, elements }
    }

    /// The elements, 1 to 16000 of them.
    #[inline]
    pub fn as_slice(&self) -> &[f32] {
        match &self.elements {
            Elements::Borrowed(elements) => elements,
            Elements::Short { dim, values } => &values[..*dim],
            // SAFETY: detoasting gives a plain datum in palloc'd, so aligned, memory, which lives as long as `self`.
            Elements::Detoasted(copy) => unsafe { plain_elements(copy.as_ptr()) },
        }
    }

    /// Number of elements.
    #[inline]
    pub fn dim(&self) -> usize {
        self.as_slice().len()
    }
}

/// # Safety
/// `varlena` is a plain, int-aligned datum that outlives `'a`.
#[inline]
unsafe fn plain_elements<'a>(varlena: *mut pg_sys::varlena) -> &'a [f32] {
    // SAFETY: the caller's promise; the header tells the length.
    let size = unsafe { pgrx::varsize_4b(varlena) };
    if size < mem::size_of::<Header>() {
        damaged(size, 0);
    }
    let header = varlena.cast::<Header>();
    // SAFETY: int-aligned and at least a `Header` long, as just checked.
    let dim = checked_dim(unsafe { (*header).dim }, size - mem::size_of::<Header>());
    // SAFETY: `checked_dim` has compared `dim` with the bytes after the header; floats need no more than int alignment.
    unsafe { slice::from_raw_parts(header.add(1).cast(), dim) }
}

/// # Safety
/// `varlena` is a datum with a 1-byte header that holds its data.
#[inline]
unsafe fn short_elements<'a>(varlena: *mut pg_sys::varlena) -> Elements<'a> {
    // SAFETY: the caller's promise; the header tells the length.
    let (data, len) = unsafe { (pgrx::vardata_1b(varlena).cast::<u8>(), pgrx::varsize_1b(varlena) - 1) };
    if len < DIM_LEN {
        damaged(len, 0);
    }
    // SAFETY: at least `DIM_LEN` bytes, as just checked; any alignment.
    let dim = checked_dim(unsafe { data.cast::<i16>().read_unaligned() }, len - DIM_LEN);
    let mut values = [0.0; MAX_SHORT];
    // SAFETY: `checked_dim` has compared `dim` with the bytes there, of which a 1-byte header has at most 126.
    unsafe { ptr::copy_nonoverlapping(data.add(DIM_LEN), values.as_mut_ptr().cast::<u8>(), dim * 4) };
    Elements::Short { dim, values }
}

/// The number of dimensions, if it is allowed and agrees with the bytes that follow the header.
#[inline]
fn checked_dim(dim: i16, bytes: usize) -> usize {
    let found = usize::try_from(dim).unwrap_or(0);
    if found == 0 || found > MAX_DIM || found * 4 != bytes {
        damaged(bytes, dim);
    }
    found
}

#[cold]
fn damaged(bytes: usize, dim: i16) -> ! {
    Fault::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "stored vector is damaged")
        .detail(format!("The datum claims {dim} dimensions and has {bytes} bytes of elements."))
        .raise()
}

/// A plain copy of a datum, in the memory context that was current when it was made.
pub(super) struct Detoasted(NonNull<pg_sys::varlena>);

impl Detoasted {
    /// # Safety
    /// `varlena` is a varlena in one of the forms that `pg_detoast_datum` changes, so that the result is a copy.
    pub(super) unsafe fn new(varlena: *mut pg_sys::varlena) -> Self {
        // SAFETY: the caller's promise; PostgreSQL returns non-null or raises.
        Self(unsafe { NonNull::new_unchecked(pg_sys::pg_detoast_datum(varlena)) })
    }

    pub(super) fn as_ptr(&self) -> *mut pg_sys::varlena {
        self.0.as_ptr()
    }
}

impl Drop for Detoasted {
    /// While an ERROR unwinds, the memory context frees the copy.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the copy came from palloc and nothing else frees it.
            unsafe { pg_sys::pfree(self.0.as_ptr().cast()) }
        }
    }
}

/// A new vector, in the current memory context: fill it, then return it or turn it into a datum.
pub struct VectorBuf {
    header: NonNull<Header>,
    dim: usize,
    context: PhantomData<*mut ()>,
}

impl VectorBuf {
    /// All zeros.
    ///
    /// # Panics
    /// If `dim` is not in 1..=16000; what a user passes is checked before.
    pub fn zeroed(dim: usize) -> Self {
        assert!((1..=MAX_DIM).contains(&dim), "a vector cannot have {dim} dimensions");
        let size = mem::size_of::<Header>() + 4 * dim;
        // SAFETY: palloc0 returns non-null, MAXALIGNed memory of that size, or raises.
        let header = unsafe { NonNull::new_unchecked(pg_sys::palloc0(size).cast::<Header>()) };
        // SAFETY: the memory was just allocated and is at least a `Header` long.
        unsafe {
            pgrx::set_varsize_4b(header.as_ptr().cast(), size as i32);
            (*header.as_ptr()).dim = dim as i16;
        }
        Self { header, dim, context: PhantomData }
    }

    /// A copy of `values`.
    ///
    /// # Panics
    /// As [`VectorBuf::zeroed`].
    pub fn copy_of(values: &[f32]) -> Self {
        let mut vector = Self::zeroed(values.len());
        vector.as_mut_slice().copy_from_slice(values);
        vector
    }

    /// The elements.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: `zeroed` has allocated and zeroed `dim` elements after the header; `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.header.as_ptr().add(1).cast(), self.dim) }
    }

    /// The datum, which belongs to the memory context.
    pub fn into_datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.header.as_ptr())
    }
}

/// A vector datum with these elements, in the current memory context.
///
/// # Panics
/// If there are none or more than 16000; what a user passes is checked before.
#[allow(dead_code, reason = "for the index access method")]
pub fn alloc_vector(values: &[f32]) -> pg_sys::Datum {
    VectorBuf::copy_of(values).into_datum()
}

impl FromDatum for VectorRef<'_> {
    #[inline]
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller's promise for datums that are not null.
        (!is_null).then(|| unsafe { Self::from_datum(datum) })
    }
}

// SAFETY: reads an argument that SQL declares as `vector`; the datum lives as long as the call.
unsafe impl<'fcx> ArgAbi<'fcx> for VectorRef<'fcx> {
    #[inline]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise: the argument is a `vector`.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function got NULL")
    }
}

// SAFETY: returns a complete vector datum from a function that SQL declares to return `vector`.
unsafe impl BoxRet for VectorBuf {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: the datum is in the context that was current in the call, where PostgreSQL expects the result.
        unsafe { fcinfo.return_raw_datum(self.into_datum()) }
    }
}

// SAFETY: hands back, in whatever form it came, an argument of the call that returns it.
unsafe impl BoxRet for VectorRef<'_> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: arguments live longer than the result of the call.
        unsafe { fcinfo.return_raw_datum(self.datum) }
    }
}

super::fmgr::sql_type!(VectorRef<'_>, "vector");
super::fmgr::sql_type!(VectorBuf, "vector");
