//! Checks of descriptions that came from somewhere: sizes, names, and whether the parts fit each other.

use super::{Column, Index, Indexed, Numbering, ObjectName, Parameter, PlainIndex, Table, TypeName, Width};
use super::{MAX_COLUMNS, MAX_INDEX_COLUMNS, MAX_NAME, MAX_TEXT};
use std::collections::HashSet;
use std::fmt;

/// Entries of a list that has no closer limit.
const MAX_LIST: usize = 10_000;
/// Dimensions of an array type (`MAXDIM`).
const MAX_DIMENSIONS: u8 = 6;

/// What is wrong with a description that somebody handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

type Result<T = ()> = std::result::Result<T, Invalid>;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Invalid(message.into()))
}

/// A name as PostgreSQL can have it: not empty, not longer than it keeps, without a zero byte.
///
/// # Errors
/// [`Invalid`], which says what kind of name it is.
pub fn check_name(kind: &str, name: &str) -> Result {
    if name.is_empty() {
        return invalid(format!("the name of a {kind} is empty"));
    }
    if name.len() > MAX_NAME {
        return invalid(format!("the name of a {kind} has {} bytes, more than {MAX_NAME}", name.len()));
    }
    check_text(kind, name)
}

/// A text as a query can hold it: not endless, without a zero byte.
fn check_text(kind: &str, text: &str) -> Result {
    if text.len() > MAX_TEXT {
        return invalid(format!("a text of a {kind} has {} bytes, more than {MAX_TEXT}", text.len()));
    }
    if text.contains('\0') {
        return invalid(format!("a text of a {kind} contains a zero byte"));
    }
    Ok(())
}

fn check_texts<'a>(kind: &str, texts: impl IntoIterator<Item = &'a String>) -> Result {
    texts.into_iter().try_for_each(|text| check_text(kind, text))
}

fn check_length(kind: &str, length: usize, limit: usize) -> Result {
    if length > limit { invalid(format!("{length} {kind}, more than {limit}")) } else { Ok(()) }
}

fn check_distinct<'a>(kind: &str, names: impl IntoIterator<Item = &'a String>) -> Result {
    let mut seen = HashSet::new();
    match names.into_iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => invalid(format!("{kind} \"{twice}\" is there twice")),
        None => Ok(()),
    }
}

fn check_parameters(kind: &str, parameters: &[Parameter]) -> Result {
    check_length("options", parameters.len(), MAX_LIST)?;
    check_distinct("option", parameters.iter().map(|p| &p.name))?;
    for parameter in parameters {
        check_name("option", &parameter.name)?;
        check_text(kind, &parameter.value)?;
    }
    Ok(())
}

impl TypeName {
    fn check(&self) -> Result {
        check_name("schema", &self.schema)?;
        check_name("type", &self.name)?;
        if let Some(extension) = &self.extension {
            check_name("extension", extension)?;
        }
        if self.dimensions > MAX_DIMENSIONS {
            return invalid(format!("an array of {} dimensions, more than {MAX_DIMENSIONS}", self.dimensions));
        }
        check_length("arguments of a type", self.arguments.len(), MAX_INDEX_COLUMNS)?;
        check_texts("type", &self.arguments)
    }
}

impl ObjectName {
    fn check(&self, kind: &str) -> Result {
        check_name("schema", &self.schema)?;
        check_name(kind, &self.name)?;
        self.extension.as_deref().map_or(Ok(()), |extension| check_name("extension", extension))
    }
}

impl Numbering {
    fn check(&self) -> Result {
        let (least, most) = match self.width {
            Width::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Width::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Width::Int8 => (i64::MIN, i64::MAX),
        };
        let range = self.minimum..=self.maximum;
        let inside = self.minimum >= least && self.maximum <= most && self.minimum < self.maximum;
        let position = self.position.is_none_or(|position| range.contains(&position.last_value));
        if !inside || !range.contains(&self.start) || self.increment == 0 || self.cache < 1 || !position {
            return invalid("the numbers of a sequence contradict each other");
        }
        Ok(())
    }
}

impl Column {
    fn check(&self) -> Result {
        check_name("column", &self.name)?;
        self.of.check()?;
        if let Some(collation) = &self.collation {
            collation.check("collation")?;
        }
        if let Some(numbering) = &self.numbering {
            numbering.check()?;
            if self.default.is_some() || !self.of.arguments.is_empty() || self.of.dimensions > 0 {
                return invalid(format!("column \"{}\" cannot number its rows", self.name));
            }
        }
        check_texts("column", self.default.iter().chain(&self.comment))
    }
}

/// The names of a table's columns.
struct Names<'a>(HashSet<&'a str>);

impl Names<'_> {
    /// Columns of an index: at least one, all of the table.
    fn check<'b>(&self, index: &str, key: impl ExactSizeIterator<Item = &'b String>, include: &'b [String]) -> Result {
        if key.len() == 0 {
            return invalid(format!("index \"{index}\" has no column"));
        }
        check_length("columns of an index", key.len() + include.len(), MAX_INDEX_COLUMNS)?;
        match key.chain(include).find(|column| !self.0.contains(column.as_str())) {
            Some(unknown) => invalid(format!("index \"{index}\" is on column \"{unknown}\", which there is not")),
            None => Ok(()),
        }
    }
}

impl Table {
    /// Checks a description that came from somewhere: it is bounded, its names can be names, its parts fit each other.
    /// Whether types and the like exist is not known here.
    ///
    /// # Errors
    /// [`Invalid`], which says what is wrong.
    pub fn check(&self) -> Result {
        check_name("schema", &self.schema)?;
        check_name("table", &self.name)?;
        check_length("columns", self.columns.len(), MAX_COLUMNS)?;
        check_distinct("column", self.columns.iter().map(|column| &column.name))?;
        self.columns.iter().try_for_each(Column::check)?;
        check_parameters("table", &self.options)?;
        check_texts("table", self.owner.iter().chain(&self.comment))?;
        check_length("lines of what is not carried", self.not_carried.len(), MAX_LIST)?;
        check_texts("table", &self.not_carried)?;
        self.check_indexes()
    }

    fn check_indexes(&self) -> Result {
        let columns = Names(self.columns.iter().map(|column| column.name.as_str()).collect());
        let indexes = self.constraints.len() + self.plain_indexes.len() + self.hybrid_indexes.len();
        check_length("indexes", indexes, MAX_LIST)?;
        let names = self.constraints.iter().map(|i| &i.name).chain(self.plain_indexes.iter().map(|i| &i.name));
        check_distinct("index", names.chain(self.hybrid_indexes.iter().map(|i| &i.name)))?;
        if self.constraints.iter().filter(|constraint| constraint.primary).count() > 1 {
            return invalid("there is more than one primary key");
        }
        for unique in &self.constraints {
            check_name("constraint", &unique.name)?;
            check_parameters("constraint", &unique.options)?;
            columns.check(&unique.name, unique.columns.iter(), &unique.include)?;
            if unique.initially_deferred && !unique.deferrable {
                return invalid(format!("constraint \"{}\" is deferred and not deferrable", unique.name));
            }
        }
        for index in &self.plain_indexes {
            index.check(&columns)?;
        }
        for index in &self.hybrid_indexes {
            index.check()?;
            let Some(key) = index.plain_columns() else {
                return invalid(format!("index \"{}\" is not on plain columns", index.name));
            };
            columns.check(&index.name, key.into_iter(), &[])?;
        }
        Ok(())
    }
}

impl PlainIndex {
    fn check(&self, columns: &Names) -> Result {
        check_name("index", &self.name)?;
        check_name("access method", &self.method)?;
        check_parameters("index", &self.options)?;
        columns.check(&self.name, self.columns.iter().map(|column| &column.name), &self.include)?;
        for column in &self.columns {
            column.opclass.check("operator class")?;
            if let Some(collation) = &column.collation {
                collation.check("collation")?;
            }
        }
        Ok(())
    }
}

impl Indexed {
    fn check(&self) -> Result {
        match self {
            Self::Column(name) => check_name("column", name),
            Self::Expression(text) => check_text("index", text),
        }
    }
}

impl Index {
    /// Checks a description that came from somewhere, as [`Table::check`] does.
    ///
    /// # Errors
    /// [`Invalid`], which says what is wrong.
    pub fn check(&self) -> Result {
        check_name("index", &self.name)?;
        check_name("schema", &self.table_schema)?;
        check_name("table", &self.table)?;
        if self.method != "hybrid" {
            return invalid(format!("index \"{}\" is not a hybrid index", self.name));
        }
        self.vector.check()?;
        self.vector_type.check()?;
        self.opclass.check("operator class")?;
        check_length("columns of an index", self.keys.len() + 1, MAX_INDEX_COLUMNS)?;
        for key in &self.keys {
            key.key.check()?;
            key.of.check()?;
            key.opclass.check("operator class")?;
        }
        check_texts("index", &self.predicate)?;
        check_parameters("index", &self.options)
    }
}
