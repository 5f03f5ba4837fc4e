//! Which archives go.

use crate::data::{archive, source};
use archive::policy::{Keep, Known, Place, Plan, Reason, plan};
use archive::{Identity, ManifestKind};
use proptest::prelude::*;

const OURS: Identity = Identity { system_identifier: 1, timeline: 1, set: [1; 16] };

fn known(manifest: &str, created: i64, objects: &[&str]) -> Known {
    let place = |name: &&str| Place { name: format!("{name}.bin"), locator: format!("box/{name}.bin") };
    Known {
        manifest: manifest.into(),
        identity: OURS,
        kind: ManifestKind::Backup,
        created,
        source: source(None),
        parent: None,
        objects: objects.iter().map(place).collect(),
    }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.objects.iter().map(|(place, _)| place.name.as_str()).collect()
}

const KEEP: Keep = Keep { since: 1000, last: 1 };

#[test]
fn old_ones_go_but_the_last() {
    let all = [known("a", 10, &["x", "y"]), known("b", 20, &["y", "z"]), known("c", 30, &["z"])];
    let plan_of = |keep| plan(&all, &[OURS], keep);
    let one = plan_of(KEEP);
    assert_eq!(one.manifests, ["a", "b"]);
    assert_eq!(names(&one), ["x.bin", "y.bin"]);
    assert_eq!(one.kept, [("c".to_string(), Reason::Last)]);
    assert_eq!(plan_of(Keep { last: 2, ..KEEP }).manifests, ["a"]);
    assert_eq!(plan_of(Keep { since: 20, last: 1 }).kept[0], ("b".to_string(), Reason::Young));
    assert_eq!(names(&plan_of(Keep { last: 0, ..KEEP })), ["x.bin", "y.bin", "z.bin"]);
    assert_eq!(plan(&[], &[OURS], KEEP), Plan::default());
}

#[test]
fn each_series_has_its_last() {
    let mut export = known("export", 5, &["e"]);
    (export.kind, export.source) = (ManifestKind::Export, source(Some("i")));
    let mut other = known("other", 6, &["o"]);
    other.source.table = "orders".into();
    let all = [known("a", 10, &["x"]), export, other, known("b", 11, &["y"])];
    assert_eq!(plan(&all, &[OURS], KEEP).manifests, ["a"]);
}

#[test]
fn those_of_others_stay_with_all_they_name() {
    for identity in
        [Identity { system_identifier: 2, ..OURS }, Identity { timeline: 2, ..OURS }, Identity { set: [2; 16], ..OURS }]
    {
        let theirs = Known { identity, ..known("theirs", 1, &["x"]) };
        let all = [theirs.clone(), known("a", 2, &["x", "y"]), known("b", 3, &[])];
        let only_ours = plan(&all, &[OURS], KEEP);
        assert_eq!((&only_ours.manifests[..], names(&only_ours)), (&["a".to_string()][..], vec!["y.bin"]));
        assert_eq!(only_ours.foreign().collect::<Vec<_>>(), ["theirs"]);
        // Adopted, it is a series of its own.
        let adopted = plan(&all, &[OURS, identity], Keep { last: 0, ..KEEP });
        assert_eq!(adopted.manifests, ["theirs", "a", "b"]);
        // A clone that knows nothing of us takes nothing.
        let clone = plan(&[known("a", 2, &["x"])], &[identity], Keep { since: i64::MAX, last: 0 });
        assert_eq!((clone.manifests.len(), clone.objects.len()), (0, 0));
    }
}

#[test]
fn parents_stay() {
    let follows = |known: Known, parent: &str| Known { parent: Some(parent.into()), ..known };
    let a = known("a", 1, &["x"]);
    let b = follows(known("b", 2, &["y"]), "a");
    let c = follows(known("c", 3, &["z"]), "b");
    let all = [follows(a.clone(), "c"), b.clone(), c, known("d", 0, &["w"])];
    let kept = plan(&all, &[OURS], KEEP);
    assert_eq!(kept.manifests, ["d"]);
    assert_eq!(kept.kept[0], ("a".to_string(), Reason::Parent));
    let missing = [follows(b, "gone"), known("e", 9, &[])];
    assert_eq!(plan(&missing, &[OURS], KEEP).manifests, ["b"]);
}

#[test]
fn containers_of_manifests_are_told_apart() {
    let inside = |mut known: Known, name: &str| {
        known.objects.push(Place { name: format!("{name}.bin"), locator: format!("./{name}.bin") });
        known
    };
    let all = [inside(known("a", 1, &[]), "x"), inside(known("b", 2, &[]), "x"), inside(known("c", 3, &[]), "y")];
    let going = plan(&all, &[OURS], KEEP);
    let containers: Vec<_> = going.objects.iter().map(|(_, manifest)| manifest.as_str()).collect();
    assert_eq!(containers, ["a", "b"]);
    // The same content elsewhere stays, too, if it is named by one that stays.
    let all = [inside(known("a", 1, &[]), "x"), known("b", 2, &["x"])];
    assert_eq!(plan(&all, &[OURS], KEEP).objects, []);
}

#[test]
fn a_manifest_is_known_by_all_its_objects() {
    let (manifest, _) = archive(None);
    let known = Known::new("here", &manifest);
    assert_eq!((known.objects.len(), known.parent), (manifest.objects().count(), manifest.parent));
}

/// Time of creation, whose it is, of which table, its parent, its objects.
type Made = (i64, u8, u8, Option<usize>, Vec<u8>);

fn made() -> impl Strategy<Value = Made> {
    let objects = proptest::collection::vec(0u8..12, 0..5);
    (0i64..20, 0u8..3, 0u8..3, proptest::option::of(0usize..12), objects)
}

proptest! {
    #[test]
    fn nothing_that_stays_loses_an_object(
        archives in proptest::collection::vec(made(), 0..12),
        since in 0i64..25,
        last in 0u32..4,
    ) {
        let all: Vec<Known> = archives.iter().enumerate().map(|(i, (created, whose, table, parent, objects))| {
            let objects: Vec<String> = objects.iter().map(u8::to_string).collect();
            let names: Vec<&str> = objects.iter().map(String::as_str).collect();
            let mut archive = known(&format!("m{i}"), *created, &names);
            archive.identity.timeline = u32::from(*whose);
            archive.source.table = format!("t{table}");
            archive.parent = parent.map(|parent| format!("m{parent}"));
            archive
        }).collect();
        let ours = [Identity { timeline: 0, ..OURS }, OURS];
        let plan = plan(&all, &ours, Keep { since, last });
        prop_assert_eq!(plan.manifests.len() + plan.kept.len(), all.len());
        for archive in &all {
            let goes = plan.manifests.contains(&archive.manifest);
            prop_assert!(!goes || (archive.created < since && ours.contains(&archive.identity)));
            if !goes {
                let parent_goes = archive.parent.as_ref().is_some_and(|parent| plan.manifests.contains(parent));
                prop_assert!(!parent_goes);
                prop_assert!(archive.objects.iter().all(|place| plan.objects.iter().all(|(gone, _)| gone != place)));
            }
        }
        // All that nobody names any more goes, once.
        let stays = |archive: &&Known| !plan.manifests.contains(&archive.manifest);
        let kept: Vec<&Place> = all.iter().filter(stays).flat_map(|archive| &archive.objects).collect();
        let named = all.iter().flat_map(|archive| &archive.objects);
        let mut due: Vec<&Place> = named.filter(|place| !kept.contains(place)).collect();
        due.sort();
        due.dedup();
        let mut gone: Vec<&Place> = plan.objects.iter().map(|(place, _)| place).collect();
        gone.sort();
        prop_assert_eq!(gone, due);
    }
}
