//! Reading all objects of a segment, chunk by chunk, and whether they are all there.

use crate::error::{Error, Result};
use crate::{
    Centroid, GraphElement, ListElement, ObjectRef, SegmentObjects, Structure, decode_centroids, decode_graph,
    decode_lists, decode_tombstones, decode_vectors,
};

/// Gives the raw chunk of an object: fetched and unpacked, or from wherever it was put. Chunks are asked for one by one, in
/// their order.
pub type Fetch<'a> = dyn FnMut(&ObjectRef) -> Result<Vec<u8>> + 'a;

/// Errors of all of these: those of `fetch` and `each`; [`Error::Damaged`], naming the object or saying what is missing.
impl SegmentObjects {
    /// Shows the elements of a graph; see [`decode_graph`] for what `each` is given.
    ///
    /// # Errors
    /// See above; [`Error::Unfit`] if this is no graph.
    pub fn read_graph(&self, fetch: &mut Fetch, each: &mut dyn FnMut(u32, GraphElement) -> Result<()>) -> Result<()> {
        let Structure::Graph(header) = &self.structure else { return Err(Error::unfit("lists are no graph")) };
        let mut rows = 0;
        let elements = in_turn(&self.objects, 0, fetch, |first, chunk| {
            decode_graph(header, first, chunk, &mut |ordinal, element| {
                rows += element.rows.len() as u64;
                each(ordinal, element)
            })
        })?;
        whole("elements", elements, header.elements)?;
        whole("rows", rows, self.rows)
    }

    /// Shows the elements of lists; see [`decode_lists`] for what `each` is given.
    ///
    /// # Errors
    /// See above; [`Error::Unfit`] if these are no lists.
    pub fn read_lists(&self, fetch: &mut Fetch, each: &mut dyn FnMut(u32, ListElement) -> Result<()>) -> Result<()> {
        let Structure::Lists(header) = &self.structure else { return Err(Error::unfit("a graph is no lists")) };
        let (mut rows, mut last) = (0, 0);
        let elements = in_turn(&self.objects, 0, fetch, |first, chunk| {
            decode_lists(header, first, chunk, &mut |ordinal, element| {
                if !element.further && element.list < std::mem::replace(&mut last, element.list) {
                    return Err(Error::damaged(format!("its element {ordinal} comes after one of a later list")));
                }
                rows += element.rows.len() as u64;
                each(ordinal, element)
            })
        })?;
        whole("elements", elements, header.elements)?;
        whole("rows", rows, self.rows)
    }

    /// Shows the centroids of all lists.
    ///
    /// # Errors
    /// See above; [`Error::Unfit`] if these are no lists.
    pub fn read_centroids(&self, fetch: &mut Fetch, each: &mut dyn FnMut(u32, Centroid) -> Result<()>) -> Result<()> {
        let Structure::Lists(header) = &self.structure else { return Err(Error::unfit("a graph has no centroids")) };
        let lists = in_turn(&self.centroids, 0, fetch, |first, chunk| decode_centroids(header, first, chunk, each))?;
        whole("centroids", lists, header.lists)
    }

    /// Shows the ordinals of dead elements, ascending.
    ///
    /// # Errors
    /// See above.
    pub fn read_tombstones(&self, fetch: &mut Fetch, each: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
        let elements = self.structure.elements();
        in_turn(&self.tombstones, 0, fetch, |least, chunk| {
            decode_tombstones(elements, least, chunk, each).map(|next| next - least)
        })?;
        Ok(())
    }

    /// Shows the vectors of all rows, of so many dimensions, in the order of the fingerprints. None if the archive has none.
    ///
    /// # Errors
    /// See above.
    pub fn read_vectors(
        &self,
        dimensions: u16,
        fetch: &mut Fetch,
        each: &mut dyn FnMut(u64, &[f32]) -> Result<()>,
    ) -> Result<()> {
        if self.vectors.is_empty() {
            return Ok(());
        }
        let rows = in_turn(&self.vectors, 0, fetch, |first, chunk| decode_vectors(dimensions, first, chunk, each))?;
        whole("vectors", rows, self.rows)
    }
}

/// Decodes chunk after chunk from where the last one ended. Returns where the last one ends.
fn in_turn<N: Copy + std::ops::Add<Output = N>>(
    objects: &[ObjectRef],
    start: N,
    fetch: &mut Fetch,
    mut decode: impl FnMut(N, &[u8]) -> Result<N>,
) -> Result<N> {
    objects.iter().try_fold(start, |at, object| {
        let chunk = fetch(object)?;
        Ok(at + decode(at, &chunk).map_err(|error| error.of(&object.name))?)
    })
}

fn whole<N: PartialEq + std::fmt::Display>(what: &str, found: N, expected: N) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("its objects have {found} {what} where the manifest says {expected}");
    Err(Error::Damaged { object: "segment".into(), what })
}
