//! Locators.

use crate::names::is_name;
use crate::{Error, Result};
use ::walrus::BlobId;
use std::fmt;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub container: BlobId,
    /// Whether it is a patch; else it is all of the blob.
    pub patch: bool,
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle = if self.patch { "" } else { "blob/" };
        write!(f, "{}/{middle}{}", self.container, self.name)
    }
}

impl Place {
    /// # Errors
    /// [`Error::NotFound`] for what is no locator of this store: nothing can be there.
    pub fn parse(locator: &str, manifest: Option<&str>) -> Result<Self> {
        let place = match locator.strip_prefix("./") {
            Some(name) => manifest
                .and_then(Self::absolute)
                .filter(|own| own.patch && is_name(name))
                .map(|own| Self { name: name.to_owned(), ..own }),
            None => Self::absolute(locator),
        };
        place.ok_or_else(|| {
            // A hostile locator may be long.
            let object = locator.chars().take(120).collect();
            Error::NotFound { object }
        })
    }

    fn absolute(locator: &str) -> Option<Self> {
        let (container, rest) = locator.split_once('/')?;
        let (patch, name) = match rest.strip_prefix("blob/") {
            Some(name) => (false, name),
            None => (true, rest),
        };
        let container = container.parse().ok()?;
        is_name(name).then(|| Self { container, patch, name: name.to_owned() })
    }

    /// Below the URL of an aggregator.
    pub fn path(&self) -> String {
        if self.patch {
            format!("v1/blobs/by-quilt-id/{}/{}", self.container, self.name)
        } else {
            format!("v1/blobs/{}", self.container)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUk";
    const NAME: &str = "segment-0123456789abcdef0123456789abcdef.bin";

    #[test]
    fn locators_say_what_is_where() {
        let patch = Place::parse(&format!("{ID}/{NAME}"), None).unwrap();
        assert!(patch.patch && patch.name == NAME);
        let blob = Place::parse(&format!("{ID}/blob/{NAME}"), None).unwrap();
        assert!(!blob.patch && blob.path() == format!("v1/blobs/{ID}"));
        for place in [&patch, &blob] {
            assert_eq!(&Place::parse(&place.to_string(), None).unwrap(), place);
        }
        let beside = format!("./{NAME}");
        assert_eq!(Place::parse(&beside, Some(&patch.to_string())).unwrap(), patch);
        assert!(Place::parse(&beside, Some(&blob.to_string())).is_err(), "a blob holds one object");
        assert!(Place::parse(&beside, None).is_err());
    }
}
