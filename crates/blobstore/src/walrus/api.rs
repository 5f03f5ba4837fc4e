//! Answers of publishers and aggregators.

use crate::http::Answer;
use serde::Deserialize;

/// What a publisher says of a store. Status 200 is not success: the variant tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Created { blob: String, object: String, size: u64, epoch: u64, end_epoch: u64, deletable: bool, cost: u64 },
    Certified { blob: String, end_epoch: u64, object: Option<String> },
    Invalid,
    Failed { message: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Result {
    newly_created: Option<NewlyCreated>,
    already_certified: Option<AlreadyCertified>,
    marked_invalid: Option<serde_json::Value>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewlyCreated {
    blob_object: BlobObject,
    #[serde(default)]
    cost: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlobObject {
    id: String,
    blob_id: String,
    size: u64,
    storage: Storage,
    #[serde(default)]
    deletable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Storage {
    start_epoch: u64,
    end_epoch: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AlreadyCertified {
    blob_id: String,
    end_epoch: u64,
    object: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    #[serde(default)]
    failure_phase: String,
    #[serde(default)]
    error_msg: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuiltResult {
    blob_store_result: Result,
    #[serde(default)]
    stored_quilt_blobs: Vec<StoredPatch>,
}

/// A patch in a publisher's answer; sorted by identifier there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredPatch {
    pub identifier: String,
    pub quilt_patch_id: String,
}

/// Reads the answer to a store of a blob or quilt; `None` if it is in no known shape.
pub(super) fn stored(body: &[u8], quilt: bool) -> Option<(Stored, Vec<StoredPatch>)> {
    let (result, patches) = if quilt {
        let answer: QuiltResult = serde_json::from_slice(body).ok()?;
        (answer.blob_store_result, answer.stored_quilt_blobs)
    } else {
        (serde_json::from_slice(body).ok()?, Vec::new())
    };
    let stored = match result {
        Result { newly_created: Some(NewlyCreated { blob_object: object, cost }), .. } => Stored::Created {
            blob: object.blob_id,
            object: object.id,
            size: object.size,
            epoch: object.storage.start_epoch,
            end_epoch: object.storage.end_epoch,
            deletable: object.deletable,
            cost,
        },
        Result { already_certified: Some(certified), .. } => {
            Stored::Certified { blob: certified.blob_id, end_epoch: certified.end_epoch, object: certified.object }
        }
        Result { marked_invalid: Some(_), .. } => Stored::Invalid,
        Result { error: Some(failure), .. } => {
            Stored::Failed { message: format!("{} ({})", failure.error_msg, failure.failure_phase) }
        }
        _ => return None,
    };
    Some((stored, patches))
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorContent,
}

#[derive(Deserialize)]
struct ErrorContent {
    #[serde(default)]
    details: Vec<serde_json::Value>,
}

/// The reason in an error of a publisher or aggregator, e.g. `BLOB_NOT_FOUND`. Texts and pages of others have none.
pub(super) fn reason(answer: &Answer) -> Option<String> {
    let body: ErrorBody = serde_json::from_slice(&answer.body).ok()?;
    let info = body.error.details.into_iter().find(|detail| detail["@type"] == "ErrorInfo")?;
    Some(info["reason"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_tells() {
        let created = br#"{"newlyCreated":{"blobObject":{"id":"0x1","registeredEpoch":34,"blobId":"x","size":17,
            "encodingType":"RS2","certifiedEpoch":null,"storage":{"id":"0x2","startEpoch":34,"endEpoch":39,
            "storageSize":66034000},"deletable":true},"resourceOperation":{},"cost":32760000}}"#;
        let (stored, _) = super::stored(created, false).unwrap();
        assert!(matches!(stored, Stored::Created { size: 17, epoch: 34, end_epoch: 39, cost: 32_760_000, .. }));
        let event = br#"{"alreadyCertified":{"blobId":"x","event":{"txDigest":"1","eventSeq":"0"},"endEpoch":39}}"#;
        assert!(matches!(super::stored(event, false), Some((Stored::Certified { object: None, .. }, _))));
        let failed = br#"{"error":{"blobId":null,"failurePhase":"upload","errorMsg":"no"}}"#;
        assert!(matches!(super::stored(failed, false), Some((Stored::Failed { .. }, _))));
        let quilt = br#"{"blobStoreResult":{"markedInvalid":{"blobId":"x"}},"storedQuiltBlobs":[]}"#;
        assert_eq!(super::stored(quilt, true), Some((Stored::Invalid, Vec::new())));
        for other in [&b"<html>"[..], b"{}", b"[]", b"null", b"{\"newlyCreated\":{}}"] {
            assert_eq!(super::stored(other, false), None);
        }
    }
}
