//! Archived centroids and assignments, checked.

use super::{Fingerprint, ListElement, ListsHeader, Mapping, Source, unsound};
use crate::error::Result;
use crate::ivf::assign::NO_LIST;
use crate::shape::Shape;
use crate::sq8::{self, Params};

/// Centroids as an index keeps them: one byte a dimension, a scale and an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct CentroidCodes {
    dimensions: usize,
    /// Scale and offset: value `i` is `offset + scale * code[i]`.
    scaling: Vec<(f32, f32)>,
    codes: Vec<u8>,
}

impl CentroidCodes {
    /// None yet.
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, scaling: Vec::new(), codes: Vec::new() }
    }

    /// Adds a centroid.
    ///
    /// # Panics
    /// Unless the code has one byte a dimension.
    pub fn push(&mut self, scale: f32, offset: f32, code: &[u8]) {
        assert_eq!(code.len(), self.dimensions, "a code has one byte for each dimension");
        self.scaling.push((scale, offset));
        self.codes.extend_from_slice(code);
    }

    /// Quantises centroids, one after the other in `values`.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::error::Error::Structure) where a value is not finite, or they are no whole centroids.
    pub fn from_values(values: &[f32], dimensions: usize) -> Result<Self> {
        if dimensions == 0 || !values.len().is_multiple_of(dimensions) || values.iter().any(|value| !value.is_finite())
        {
            return Err(unsound(
                "a centroid has values that are not finite, or not as many as the index has dimensions",
            ));
        }
        let (mut centroids, mut code) = (Self::new(dimensions), vec![0; dimensions]);
        for values in values.chunks_exact(dimensions) {
            let params = sq8::encode(values, &mut code);
            centroids.push(params.scale, params.offset, &code);
        }
        Ok(centroids)
    }

    /// The values that the codes stand for, one centroid after the other.
    pub fn values(&self) -> Vec<f32> {
        let value = |(i, &code): (usize, &u8)| {
            let (scale, offset) = self.scaling[i / self.dimensions];
            // Rounding may lift the largest f32 over the edge.
            (offset + scale * f32::from(code)).clamp(f32::MIN, f32::MAX)
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    /// Scale, offset and code of a centroid.
    pub fn get(&self, i: usize) -> (f32, f32, &[u8]) {
        let (scale, offset) = self.scaling[i];
        (scale, offset, &self.codes[i * self.dimensions..][..self.dimensions])
    }

    /// Squared norm of a centroid, as an index keeps it.
    pub fn norm2(&self, i: usize) -> f32 {
        let (scale, offset, code) = self.get(i);
        sq8::params_of(code, scale, offset).norm2
    }

    /// Centroids.
    pub fn len(&self) -> usize {
        self.scaling.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scaling.is_empty()
    }

    /// Values of each.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// # Errors
    /// [`Error::Structure`](crate::error::Error::Structure) where a scaling is none that encoding makes.
    fn check(&self) -> Result<()> {
        let largest = f64::from(f32::MAX) * (1.0 + 1e-6);
        let is_sound = |&(scale, offset): &(f32, f32)| {
            let is_scale = scale == 0.0 || scale.is_normal() && scale > 0.0;
            is_scale && offset.is_finite() && f64::from(offset) + 255.0 * f64::from(scale) <= largest
        };
        if self.scaling.iter().all(is_sound) { Ok(()) } else { Err(unsound("a centroid is not finite")) }
    }

    /// Codes, and what belongs to them.
    ///
    /// # Errors
    /// As `check`.
    pub(crate) fn checked(&self) -> Result<(Vec<u8>, Vec<Params>)> {
        self.check()?;
        let params = (0..self.len()).map(|i| {
            let (scale, offset, code) = self.get(i);
            sq8::params_of(code, scale, offset)
        });
        Ok((self.codes.clone(), params.collect()))
    }
}

/// Looks at all elements of archived lists; `look` sees each.
///
/// # Errors
/// [`Error::Structure`](crate::error::Error::Structure). Lists that there are not are none: such elements are assigned
/// anew.
pub(super) fn read(
    header: &ListsHeader,
    source: &mut Source<ListElement>,
    mut look: impl FnMut(u32, &ListElement) -> Result<()>,
) -> Result<()> {
    let mut next = 0;
    source(&mut |ordinal, element| {
        if element.further && next > 0 && ordinal == next - 1 {
            return look(ordinal, &element);
        }
        if element.further || ordinal != next || ordinal >= header.elements {
            return Err(unsound(format!("element {ordinal} of lists comes out of order")));
        }
        next += 1;
        look(ordinal, &element)
    })?;
    if next != header.elements {
        return Err(unsound(format!("lists have {next} elements, not {}", header.elements)));
    }
    Ok(())
}

/// The two lists of each node, as an archive says; [`NO_LIST`] where it does not.
///
/// # Errors
/// [`Error::Structure`](crate::error::Error::Structure).
pub fn assignment(header: &ListsHeader, source: &mut Source<ListElement>, mapping: &Mapping) -> Result<Vec<[u32; 2]>> {
    let mut lists = vec![[NO_LIST; 2]; mapping.nodes()];
    read(header, source, |ordinal, element| {
        if let Some(node) = mapping.owned(ordinal).filter(|_| !element.further) {
            lists[node as usize] = [element.list, element.second.unwrap_or(NO_LIST)];
        }
        Ok(())
    })?;
    Ok(lists)
}

/// Looks at all of some archived lists and shows the rows of their elements, a part of an element's rows at a time.
///
/// # Errors
/// [`Error::Structure`](crate::error::Error::Structure); those of `each`.
pub fn each_list_row(
    header: &ListsHeader,
    shape: &Shape,
    centroids: &CentroidCodes,
    source: &mut Source<ListElement>,
    mut each: impl FnMut(u32, &[Fingerprint]) -> Result<()>,
) -> Result<()> {
    if usize::from(header.dimensions) != shape.dimensions || centroids.dimensions() != shape.dimensions {
        return Err(unsound(format!(
            "lists are of {} dimensions, the index of {}",
            header.dimensions, shape.dimensions
        )));
    }
    if centroids.len() != header.lists as usize || header.lists == 0 && header.elements > 0 {
        return Err(unsound(format!("{} lists have {} centroids", header.lists, centroids.len())));
    }
    centroids.check()?;
    read(header, source, |ordinal, element| each(ordinal, &element.rows))
}
