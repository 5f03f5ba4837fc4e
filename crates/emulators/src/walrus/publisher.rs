//! Stores.

use super::jwt::{self, Claims};
use super::reply::{self, DAEMON};
use super::state::Registration;
use super::{Daemon, Stored};
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use walrus::quilt::Tags;
use walrus::{BlobId, Patch, Quilt, blob_id, price, quilt};

type Reply<T> = Result<T, Box<Response>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    #[serde(default = "one")]
    epochs: u32,
    #[serde(default)]
    permanent: bool,
    #[serde(default)]
    deletable: bool,
    #[serde(default)]
    force: bool,
    #[serde(default, rename = "reuse_resources")]
    _reuse_resources: bool,
    send_object_to: Option<String>,
    share: Option<bool>,
    encoding_type: Option<String>,
    #[serde(rename = "quilt_version")]
    _quilt_version: Option<String>,
}

fn one() -> u32 {
    1
}

impl Parameters {
    fn check(&self) -> Reply<()> {
        if self.encoding_type.as_deref().is_some_and(|kind| kind != "RS2") {
            let text = "Failed to deserialize query string: encoding_type: unknown variant";
            return Err(Box::new(reply::text(StatusCode::BAD_REQUEST, text)));
        }
        if self.permanent && self.deletable {
            let message = "a blob cannot be permanent and deletable";
            return Err(Box::new(reply::error(400, "INVALID_BLOB_PERSISTENCE", DAEMON, message)));
        }
        if self.share.is_some() && self.send_object_to.is_some() {
            return Err(Box::new(malformed("share and send_object_to exclude each other")));
        }
        if !(1..=53).contains(&self.epochs) {
            return Err(Box::new(reply::internal("the number of epochs is not possible")));
        }
        Ok(())
    }
}

fn malformed(message: &str) -> Response {
    reply::error(400, "MALFORMED_REQUEST", DAEMON, message)
}

/// `PUT /v1/blobs`
pub async fn store_blob(
    State(daemon): State<Arc<Daemon>>,
    parameters: Query<Parameters>,
    request: Request,
) -> Result<Response, Response> {
    let claims = jwt::admit(&daemon, request.headers()).map_err(|refused| *refused)?;
    parameters.check().map_err(|refused| *refused)?;
    let bytes = Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
    let store = Store { daemon, parameters: parameters.0, path: "/v1/blobs", claims };
    store.check_size(bytes.len() as u64).map_err(|refused| *refused)?;
    let answer = blocking(move || store.run(bytes.to_vec(), false)).await?;
    if answer.get("markedInvalid").is_some() {
        return Err(reply::internal("the blob is marked as invalid"));
    }
    Ok(Json(answer).into_response())
}

/// `PUT /v1/quilts`
pub async fn store_quilt(
    State(daemon): State<Arc<Daemon>>,
    parameters: Query<Parameters>,
    request: Request,
) -> Result<Response, Response> {
    let claims = jwt::admit(&daemon, request.headers()).map_err(|refused| *refused)?;
    parameters.check().map_err(|refused| *refused)?;
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let store = Store { daemon, parameters: parameters.0, path: "/v1/quilts", claims };
    if let Some(length) = length {
        store.check_size(length).map_err(|refused| *refused)?;
    }
    let form = Multipart::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
    let patches = read_form(form).await.map_err(|refused| *refused)?;
    let answer = blocking(move || store.quilt(&patches)).await?;
    Ok(Json(answer).into_response())
}

/// Encodes and stores on a thread that may compute.
async fn blocking(work: impl FnOnce() -> Reply<Value> + Send + 'static) -> Result<Value, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|refused| *refused),
        Err(_) => Err(reply::internal("the encoder failed")),
    }
}

struct Part {
    identifier: String,
    tags: Tags,
    data: Vec<u8>,
}

#[derive(Deserialize)]
struct Metadata {
    identifier: String,
    #[serde(default)]
    tags: BTreeMap<String, Value>,
}

async fn read_form(mut form: Multipart) -> Reply<Vec<Part>> {
    let broken = |error: MultipartError| Box::new(malformed(&error.to_string()));
    let mut parts = Vec::new();
    let mut metadata: Vec<Metadata> = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_string();
        let data = field.bytes().await.map_err(broken)?;
        if name == "_metadata" {
            metadata = serde_json::from_slice(&data).map_err(|error| Box::new(malformed(&error.to_string())))?;
        } else if name.is_empty() {
            return Err(Box::new(malformed("a part has no name")));
        } else {
            parts.push(Part { identifier: name, tags: Tags::new(), data: data.to_vec() });
        }
    }
    let mut tags = BTreeMap::new();
    for entry in metadata {
        if tags.insert(entry.identifier, entry.tags).is_some() {
            return Err(Box::new(malformed("_metadata names a patch twice")));
        }
    }
    for part in &mut parts {
        let given = tags.remove(&part.identifier).unwrap_or_default();
        part.tags = given.into_iter().map(|(name, value)| (name, tag_text(&value))).collect();
    }
    Ok(parts)
}

fn tag_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// A request to store.
struct Store {
    daemon: Arc<Daemon>,
    parameters: Parameters,
    path: &'static str,
    claims: Option<Claims>,
}

impl Store {
    fn special(&self, name: &str) -> bool {
        self.daemon.faults.take_special(name, "PUT", self.path)
    }

    fn check_size(&self, size: u64) -> Reply<()> {
        let to = self.parameters.send_object_to.as_deref();
        jwt::check_upload(&self.daemon, self.claims.as_ref(), self.parameters.epochs, to, size)
    }

    fn quilt(self, parts: &[Part]) -> Reply<Value> {
        let patches: Vec<Patch> = parts
            .iter()
            .map(|part| Patch { identifier: &part.identifier, tags: &part.tags, data: &part.data })
            .collect();
        let made = quilt::encode(self.daemon.config.shards, &patches)
            .map_err(|error| Box::new(malformed(&error.to_string())))?;
        if self.daemon.config.jwt.as_ref().is_some_and(|rules| rules.verify_upload) {
            self.check_size(made.bytes.len() as u64)?;
        }
        let Quilt { bytes, patches, .. } = made;
        let ranges = self.daemon.config.ranges;
        let no_patches = self.special("no-patches");
        let shards = self.daemon.config.shards;
        let id = blob_id(shards, &bytes).map_err(|error| Box::new(malformed(&error.to_string())))?;
        let answer = self.run(bytes, true)?;
        let stored = answer.get("newlyCreated").is_some() || answer.get("alreadyCertified").is_some();
        let list = patches.iter().filter(|_| stored && !no_patches).map(|placed| {
            let mut entry = json!({ "identifier": placed.identifier, "quiltPatchId": placed.id(id).to_string() });
            if ranges {
                entry["range"] = json!([placed.start, placed.end]);
            }
            entry
        });
        Ok(json!({ "blobStoreResult": answer, "storedQuiltBlobs": list.collect::<Vec<_>>() }))
    }

    /// The result of the store, one of the variants.
    fn run(self, bytes: Vec<u8>, quilt: bool) -> Reply<Value> {
        let length = bytes.len() as u64;
        let id = blob_id(self.daemon.config.shards, &bytes).map_err(|error| Box::new(malformed(&error.to_string())))?;
        if self.special("error-200") {
            return Ok(json!({ "error": {
                "blobId": id.to_string(), "failurePhase": "register", "errorMsg": "the store failed as ordered"
            } }));
        }
        let invalid = self.special("marked-invalid") || self.daemon.network().is_invalid(id);
        if invalid {
            return Ok(json!({ "markedInvalid": { "blobId": id.to_string(), "event": event() } }));
        }
        let mut parameters = self.parameters.clone();
        let shown = if self.special("wrong-id") { BlobId([7; 32]) } else { id };
        parameters.permanent &= !self.special("deletable");
        parameters.epochs = if self.special("short") { 1 } else { parameters.epochs };
        if self.special("late") {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(250));
                let _ = self.register(id, bytes, quilt, &parameters);
            });
            return Err(Box::new(reply::error(504, "INSUFFICIENT_CONFIRMATIONS", DAEMON, "not enough confirmations")));
        }
        if let Some(end) = self.certified(id, &parameters) {
            return Ok(
                json!({ "alreadyCertified": { "blobId": shown.to_string(), "event": event(), "endEpoch": end } }),
            );
        }
        let (object, encoded, cost) = self.register(id, bytes, quilt, &parameters)?;
        Ok(newly_created(shown, length, &object, encoded, cost, parameters.epochs))
    }

    /// The end epoch of a permanent blob that lasts as long as is asked for.
    fn certified(&self, id: BlobId, parameters: &Parameters) -> Option<u32> {
        let network = self.daemon.network();
        let wanted = network.epoch() + parameters.epochs;
        network.permanent_until(id).filter(|end| parameters.permanent && !parameters.force && *end >= wanted)
    }

    /// The object, the encoded length, and what was paid.
    fn register(
        &self,
        blob: BlobId,
        bytes: Vec<u8>,
        quilt: bool,
        parameters: &Parameters,
    ) -> Reply<(Stored, u64, u64)> {
        let encoded = price::encoded_length(self.daemon.config.shards, bytes.len() as u64)
            .map_err(|error| Box::new(malformed(&error.to_string())))?;
        let cost = self.daemon.config.prices.cost(price::units(encoded), u64::from(parameters.epochs));
        let object = self.daemon.network().register(Registration {
            blob,
            bytes: Arc::new(bytes),
            quilt,
            epochs: parameters.epochs,
            deletable: !parameters.permanent,
            cost,
        });
        Ok((object, encoded, cost))
    }
}

fn newly_created(shown: BlobId, length: u64, object: &Stored, encoded: u64, cost: u64, epochs: u32) -> Value {
    json!({ "newlyCreated": {
        "blobObject": {
            "id": object.id, "registeredEpoch": object.start_epoch, "blobId": shown.to_string(), "size": length,
            "encodingType": "RS2", "certifiedEpoch": null,
            "storage": {
                "id": format!("0x{}", blake3::hash(object.id.as_bytes()).to_hex()),
                "startEpoch": object.start_epoch, "endEpoch": object.end_epoch, "storageSize": encoded
            },
            "deletable": object.deletable
        },
        "resourceOperation": { "registerFromScratch": { "encodedLength": encoded, "epochsAhead": epochs } },
        "cost": cost
    } })
}

fn event() -> Value {
    json!({ "txDigest": "11111111111111111111111111111111", "eventSeq": "0" })
}
