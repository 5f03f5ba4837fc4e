//! Which archives go and which stay. Decides and removes nothing.

use crate::manifest::{Identity, Manifest, ManifestKind, Source};
use std::collections::{HashMap, HashSet};

/// An archive as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Locator of the manifest.
    pub manifest: String,
    pub identity: Identity,
    pub kind: ManifestKind,
    /// Microseconds since 2000-01-01 UTC.
    pub created: i64,
    pub source: Source,
    /// Locator of the manifest of the archive before.
    pub parent: Option<String>,
    /// Of each object.
    pub objects: Vec<Place>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub name: String,
    pub locator: String,
}

impl Known {
    /// The archive whose manifest is at `locator`.
    pub fn new(locator: &str, manifest: &Manifest) -> Self {
        let place = |name: &String, at: &String| Place { name: name.clone(), locator: at.clone() };
        Self {
            manifest: locator.to_owned(),
            identity: manifest.identity,
            kind: manifest.kind,
            created: manifest.created,
            source: manifest.source.clone(),
            parent: manifest.parent.clone(),
            objects: manifest.objects().map(|object| place(&object.name, &object.locator)).collect(),
        }
    }

    /// Archives of the same thing, of which the policy keeps the last few.
    fn series(&self) -> (Identity, ManifestKind, &Source) {
        (self.identity, self.kind, &self.source)
    }
}

/// What stays whatever refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Archives created at this time or later, in microseconds since 2000-01-01 UTC.
    pub since: i64,
    /// So many of the newest of each series: archives of one kind, of one table or index, of one identity.
    pub last: u32,
}

/// Why an archive stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is somebody else's: not of an identity that was named as ours.
    Foreign,
    /// One of the newest of its series.
    Last,
    /// Not old enough.
    Young,
    /// An archive that stays follows it.
    Parent,
}

/// What the policy lets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Archives that go, by the locators of their manifests, oldest first. To be removed before their objects, so that
    /// no manifest is found whose objects are gone.
    pub manifests: Vec<String>,
    /// Objects that go with them, with the manifest whose container they are in if their locators begin with `./`. Each
    /// place once.
    pub objects: Vec<(Place, String)>,
    /// The others, in the order in which they were given.
    pub kept: Vec<(String, Reason)>,
}

impl Plan {
    /// Archives of others.
    pub fn foreign(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().filter(|(_, reason)| *reason == Reason::Foreign).map(|(manifest, _)| manifest.as_str())
    }
}

/// Decides over `all` archives of a store, of which those of the identities `ours` may go.
///
/// `all` has to be all: an object stays if any archive that stays names it, by its name or by its place. So a manifest
/// that cannot be read has to stop the caller, unless it is encrypted with a key of somebody else's: nothing of ours is
/// in such an archive, as all objects of an archive are encrypted with the key of its manifest.
pub fn plan(all: &[Known], ours: &[Identity], keep: Keep) -> Plan {
    let reasons = reasons(all, ours, keep);
    let (mut plan, mut names, mut places) = (Plan::default(), HashSet::new(), HashSet::new());
    for (known, reason) in all.iter().zip(&reasons) {
        let Some(reason) = reason else { continue };
        plan.kept.push((known.manifest.clone(), *reason));
        names.extend(known.objects.iter().map(|place| place.name.as_str()));
        places.extend(known.objects.iter().map(|place| resolved(known, place)));
    }
    let mut going: Vec<&Known> =
        all.iter().zip(&reasons).filter(|(_, why)| why.is_none()).map(|(known, _)| known).collect();
    going.sort_by(|a, b| (a.created, &a.manifest).cmp(&(b.created, &b.manifest)));
    for known in going {
        plan.manifests.push(known.manifest.clone());
        for place in &known.objects {
            if !names.contains(place.name.as_str()) && places.insert(resolved(known, place)) {
                plan.objects.push((place.clone(), known.manifest.clone()));
            }
        }
    }
    plan
}

/// A place as one text for all manifests that name it, and two that only look alike as two.
fn resolved<'a>(known: &'a Known, place: &'a Place) -> (&'a str, &'a str) {
    (if place.locator.starts_with("./") { &known.manifest } else { "" }, &place.locator)
}

/// For each archive why it stays; `None` if it goes.
fn reasons(all: &[Known], ours: &[Identity], keep: Keep) -> Vec<Option<Reason>> {
    let mut newest: Vec<usize> = (0..all.len()).collect();
    // Of two created in the same microsecond, the same one on every run.
    newest.sort_by(|&a, &b| (all[b].created, &all[b].manifest).cmp(&(all[a].created, &all[a].manifest)));
    let (mut reasons, mut seen) = (vec![None; all.len()], HashMap::new());
    for i in newest {
        let before = seen.entry(all[i].series()).or_insert(0u32);
        reasons[i] = if !ours.contains(&all[i].identity) {
            Some(Reason::Foreign)
        } else if *before < keep.last {
            Some(Reason::Last)
        } else if all[i].created >= keep.since {
            Some(Reason::Young)
        } else {
            None
        };
        *before += 1;
    }
    let by_locator: HashMap<&str, usize> =
        all.iter().enumerate().map(|(i, known)| (known.manifest.as_str(), i)).collect();
    let mut stay: Vec<usize> = (0..all.len()).filter(|&i| reasons[i].is_some()).collect();
    while let Some(i) = stay.pop() {
        let parent = all[i].parent.as_deref().and_then(|parent| by_locator.get(parent));
        if let Some(&parent) = parent.filter(|&&parent| reasons[parent].is_none()) {
            reasons[parent] = Some(Reason::Parent);
            stay.push(parent);
        }
    }
    reasons
}
