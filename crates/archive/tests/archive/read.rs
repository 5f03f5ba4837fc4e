//! Segments are read from all their objects, or refused.

use crate::data::{archive, centroids, graph, lists};
use archive::{Error, Manifest, ObjectRef, Packed, Result, SegmentObjects, unpack};

struct Archive {
    manifest: Manifest,
    objects: Vec<Packed>,
}

impl Archive {
    fn fetch(&self, object: &ObjectRef) -> Result<Vec<u8>> {
        let packed = self.objects.iter().find(|packed| packed.name == object.name).unwrap();
        unpack(&packed.bytes, object, None)
    }

    /// The graph and the lists.
    fn segments(&self) -> [&SegmentObjects; 2] {
        let segments = &self.manifest.indexes[0].segments;
        [&segments[0], &segments[1]]
    }
}

fn made() -> Archive {
    let (manifest, objects) = archive(None);
    Archive { manifest, objects }
}

#[test]
fn segments_come_back() {
    let made = made();
    let [as_graph, as_lists] = made.segments();
    let fetch = &mut |object: &ObjectRef| made.fetch(object);
    let mut elements = Vec::new();
    let mut push = |ordinal, element| {
        assert_eq!(ordinal as usize, elements.len());
        elements.push(element);
        Ok(())
    };
    as_graph.read_graph(fetch, &mut push).unwrap();
    assert_eq!(elements, graph(40, 4, 1).1);

    let (header, expected) = lists(50, 9, 2);
    let mut elements = Vec::new();
    let mut push = |ordinal, element| {
        assert_eq!(ordinal as usize, elements.len());
        elements.push(element);
        Ok(())
    };
    as_lists.read_lists(fetch, &mut push).unwrap();
    assert_eq!(elements, expected);

    let mut all = Vec::new();
    let mut push = |_, centroid| {
        all.push(centroid);
        Ok(())
    };
    as_lists.read_centroids(fetch, &mut push).unwrap();
    assert_eq!(all, centroids(&header, 3));

    let mut dead = Vec::new();
    let mut push = |ordinal| {
        dead.push(ordinal);
        Ok(())
    };
    as_graph.read_tombstones(fetch, &mut push).unwrap();
    assert_eq!(dead, [0, 1, 7, 39]);

    let mut rows = 0;
    let mut look = |row, vector: &[f32]| {
        assert_eq!((row, vector[0]), (rows, row as f32 + 0.5));
        rows += 1;
        Ok(())
    };
    as_lists.read_vectors(5, fetch, &mut look).unwrap();
    assert_eq!(rows, as_lists.rows);
    as_graph.read_vectors(5, fetch, &mut |_, _| panic!("there are none")).unwrap();
}

#[test]
fn what_is_missing_or_too_much_is_told() {
    let made = made();
    let [as_graph, as_lists] = made.segments();
    let fetch = &mut |object: &ObjectRef| made.fetch(object);
    let read = |segment: &SegmentObjects| {
        let fetch = &mut |object: &ObjectRef| made.fetch(object);
        match segment.structure {
            archive::Structure::Graph(_) => segment.read_graph(fetch, &mut |_, _| Ok(())),
            archive::Structure::Lists(_) => {
                segment.read_lists(fetch, &mut |_, _| Ok(())).and(segment.read_centroids(fetch, &mut |_, _| Ok(())))
            }
        }
    };
    for segment in [as_graph, as_lists] {
        read(segment).unwrap();
        let text = |change: &dyn Fn(&mut SegmentObjects)| {
            let mut changed = segment.clone();
            change(&mut changed);
            read(&changed).unwrap_err().to_string()
        };
        let twice = text(&|segment| segment.objects.extend_from_within(..));
        assert!(
            twice.starts_with(&format!("object \"{}\" is damaged: it begins with element 0", segment.objects[0].name))
        );
        assert!(text(&|segment| segment.objects.clear()).contains("have 0 elements where the manifest says"));
        assert!(text(&|segment| segment.rows += 1).contains("rows where the manifest says"));
    }
    let mut changed = as_lists.clone();
    changed.centroids.clear();
    assert!(
        read(&changed).unwrap_err().to_string().ends_with("its objects have 0 centroids where the manifest says 9")
    );
    let mut changed = as_lists.clone();
    changed.rows += 1;
    assert!(changed.read_vectors(5, fetch, &mut |_, _| Ok(())).is_err());
    assert!(matches!(as_graph.read_lists(fetch, &mut |_, _| Ok(())), Err(Error::Unfit { .. })));
    assert!(matches!(as_lists.read_graph(fetch, &mut |_, _| Ok(())), Err(Error::Unfit { .. })));
    assert!(matches!(as_graph.read_centroids(fetch, &mut |_, _| Ok(())), Err(Error::Unfit { .. })));
}
