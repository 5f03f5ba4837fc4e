//! What the catalogs keep in forms of their own: type modifiers, stored expressions. And the parser, to count statements.

use super::encoding::{from_server, to_server};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_int};

/// A default as far as it can be told without running anything.
#[derive(Debug, PartialEq, Eq)]
pub enum Default {
    /// NULL, which is what a column without a default has.
    Null,
    /// The text form of a value that the column's type reads as the default.
    Constant(String),
    /// The next number of this sequence.
    Next(Oid),
    Other,
}

/// `nextval(regclass)`.
const NEXTVAL: u32 = 1574;

/// What a stored default (`pg_attrdef.adbin`) is. Runs no function but the output function of a constant's type.
pub fn default_of(stored: &str) -> Default {
    let Ok(stored) = to_server(stored) else { return Default::Other };
    // SAFETY: the text comes from the catalog, so that it is a node; it lives in the current context.
    unsafe { analyse(pg_sys::stringToNode(stored.as_ptr()).cast()).0 }
}

/// What an expression is, and its type.
///
/// # Safety
/// `node` is null or an expression.
unsafe fn analyse(node: *const pg_sys::Node) -> (Default, Oid) {
    let other = (Default::Other, Oid::INVALID);
    // SAFETY: the tag tells the type of the node; arguments of an expression are expressions.
    unsafe {
        if node.is_null() {
            return other;
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_Const => {
                let constant = &*node.cast::<pg_sys::Const>();
                let of = constant.consttype;
                if constant.constisnull { (Default::Null, of) } else { (Default::Constant(text_of(constant)), of) }
            }
            pg_sys::NodeTag::T_CoerceToDomain => {
                let coercion = &*node.cast::<pg_sys::CoerceToDomain>();
                (analyse(coercion.arg.cast()).0, coercion.resulttype)
            }
            pg_sys::NodeTag::T_RelabelType => {
                let relabel = &*node.cast::<pg_sys::RelabelType>();
                let (inner, of) = analyse(relabel.arg.cast());
                if keeps_text(of, relabel.resulttype) { (inner, relabel.resulttype) } else { other }
            }
            pg_sys::NodeTag::T_FuncExpr => analyse_call(&*node.cast()),
            _ => other,
        }
    }
}

/// # Safety
/// The node is whole.
unsafe fn analyse_call(call: &pg_sys::FuncExpr) -> (Default, Oid) {
    let other = (Default::Other, Oid::INVALID);
    // SAFETY: arguments are expressions; there is one at least where the length says so.
    unsafe {
        if pg_sys::list_length(call.args) < 1 {
            return other;
        }
        let first = (*pg_sys::list_nth_cell(call.args, 0)).ptr_value.cast::<pg_sys::Node>();
        if call.funcid == Oid::from(NEXTVAL) && (*first).type_ == pg_sys::NodeTag::T_Const {
            let sequence = &*first.cast::<pg_sys::Const>();
            let oid = Oid::from(sequence.constvalue.value() as u32);
            return (if sequence.constisnull { Default::Other } else { Default::Next(oid) }, call.funcresulttype);
        }
        if call.funcid.to_u32() >= pg_sys::FirstNormalObjectId
            || call.funcformat != pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
        {
            return other;
        }
        match analyse(first) {
            (Default::Next(sequence), _) => (Default::Next(sequence), call.funcresulttype),
            (inner, of) if keeps_text(of, call.funcresulttype) => (inner, call.funcresulttype),
            _ => other,
        }
    }
}

/// Whether the text form of a value of one type is read by the other as what the implicit cast gives. The length that a
/// column declares is applied to the text as it is to the value.
fn keeps_text(from: Oid, to: Oid) -> bool {
    const WIDENING: [(Oid, &[Oid]); 5] = [
        (
            pg_sys::INT2OID,
            &[pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID, pg_sys::FLOAT4OID, pg_sys::FLOAT8OID],
        ),
        (
            pg_sys::INT4OID,
            &[pg_sys::INT2OID, pg_sys::INT8OID, pg_sys::NUMERICOID, pg_sys::FLOAT4OID, pg_sys::FLOAT8OID],
        ),
        (pg_sys::INT8OID, &[pg_sys::INT4OID, pg_sys::NUMERICOID, pg_sys::FLOAT4OID, pg_sys::FLOAT8OID]),
        (pg_sys::NUMERICOID, &[pg_sys::FLOAT4OID, pg_sys::FLOAT8OID]),
        (pg_sys::TEXTOID, &[pg_sys::VARCHAROID]),
    ];
    from == to
        || (from, to) == (pg_sys::VARCHAROID, pg_sys::TEXTOID)
        || WIDENING.iter().any(|(of, wider)| *of == from && wider.contains(&to))
}

/// # Safety
/// A constant that is not null.
unsafe fn text_of(constant: &pg_sys::Const) -> String {
    // SAFETY: the value is of the constant's type, whose output function returns a C string.
    unsafe {
        let (mut output, mut is_varlena) = (Oid::INVALID, false);
        pg_sys::getTypeOutputInfo(constant.consttype, &raw mut output, &raw mut is_varlena);
        let text = pg_sys::OidOutputFunctionCall(output, constant.constvalue);
        from_server(CStr::from_ptr(text))
    }
}

/// Fields of an interval and its precision in one number, as `INTERVAL_TYPMOD` packs them.
fn interval_arguments(modifier: i32) -> Vec<String> {
    let (fields, precision) = (modifier >> 16 & 0x7fff, modifier & 0xffff);
    if precision == 0xffff { vec![fields.to_string()] } else { vec![fields.to_string(), precision.to_string()] }
}

/// The arguments that a column's declaration gives its type, as the type's modifier input function takes them: `["10",
/// "2"]` for `numeric(10,2)`. `None` if they cannot be told in that form.
///
/// input, output: the type's modifier functions, `typmodin` and `typmodout`, 0 for none.
pub fn type_arguments(of: Oid, input: Oid, output: Oid, modifier: i32) -> Option<Vec<String>> {
    if modifier < 0 {
        return Some(Vec::new());
    }
    let arguments = if of == pg_sys::INTERVALOID {
        interval_arguments(modifier)
    } else if output == Oid::INVALID {
        // PostgreSQL shows the number itself.
        vec![modifier.to_string()]
    } else {
        // SAFETY: a type's modifier output function takes an integer and returns a C string.
        let shown = unsafe {
            let text = pg_sys::OidFunctionCall1Coll(output, Oid::INVALID, pg_sys::Datum::from(modifier));
            from_server(CStr::from_ptr(text.cast_mut_ptr()))
        };
        let inside = shown.strip_prefix('(')?.split(')').next()?;
        inside.split(',').map(|argument| argument.trim().to_owned()).collect()
    };
    (modifier_of(input, &arguments)? == modifier).then_some(arguments)
}

/// The number that a type's modifier input function makes of its arguments; `None` without such a function.
fn modifier_of(input: Oid, arguments: &[String]) -> Option<i32> {
    let texts = arguments.iter().map(|argument| to_server(argument)).collect::<Result<Vec<_>, _>>().ok()?;
    if input == Oid::INVALID {
        return None;
    }
    // SAFETY: an array of C strings, which is what the function takes; it copies what it keeps.
    unsafe {
        let mut elements: Vec<pg_sys::Datum> = texts.iter().map(|text| pg_sys::Datum::from(text.as_ptr())).collect();
        let length = elements.len() as c_int;
        let array = pg_sys::construct_array(
            elements.as_mut_ptr(),
            length,
            pg_sys::CSTRINGOID,
            -2,
            false,
            pg_sys::TYPALIGN_CHAR as std::ffi::c_char,
        );
        Some(pg_sys::OidFunctionCall1Coll(input, Oid::INVALID, pg_sys::Datum::from(array)).value() as i32)
    }
}

/// Whether a text is one statement of this kind, by PostgreSQL's own parser.
///
/// # Errors
/// 42601 if it is none at all.
pub fn is_one_statement(sql: &CStr, kind: pg_sys::NodeTag) -> bool {
    // SAFETY: the parser returns a list of raw statements.
    unsafe {
        let list = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return false;
        }
        let raw = (*pg_sys::list_nth_cell(list, 0)).ptr_value.cast::<pg_sys::RawStmt>();
        (*(*raw).stmt).type_ == kind
    }
}
