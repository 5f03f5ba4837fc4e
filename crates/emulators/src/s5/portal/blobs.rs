//! Blobs of a portal: upload, redirect, download, pin, delete; and the server of the store.

use super::accounts::{authorize, authorize_write};
use super::{Answer, Failure, Ids, State};
use crate::s5::engine::Engine;
use crate::s5::id;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Path, Query, Request, State as Given};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use s5_core::Hash;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

type Parameters = HashMap<String, String>;

/// Blobs of at most this size are sent whole whatever range is asked for.
const CHUNK: u64 = 262_144;

pub async fn upload(Given(state): Given<Arc<State>>, query: Query<Parameters>, request: Request) -> Answer {
    let account = authorize_write(&state, request.headers(), &query)?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let bytes = if kind.starts_with("multipart/form-data") {
        part(&state, request).await?
    } else {
        let whole = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        whole.map_err(|error| state.fail(400, error.to_string()))?
    };
    let limit = state.settings.upload_limit_mb;
    if bytes.len() > limit * 1_000_000 {
        return Err(state.fail(413, format!("This API only supports a maximum size of {limit} MB")));
    }
    let mut stored = state.engine.put(bytes).await.map_err(|error| state.fail(500, error))?;
    pin_for(&state, stored.hash, stored.size, account.as_deref());
    if state.faults.take_special("wrong-cid", "POST", "/s5/upload") {
        stored.hash = Hash::new(b"other bytes");
    }
    Ok(axum::Json(json!({ "cid": id::legacy(stored.hash, stored.size) })).into_response())
}

/// The part named `file`. Parts of text types, which is the default, are decoded as text and lose bytes.
async fn part(state: &State, request: Request) -> Result<Bytes, Failure> {
    let broken = |error: &dyn std::fmt::Display| state.fail(400, error.to_string());
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| broken(&error))?;
    while let Some(part) = parts.next_field().await.map_err(|error| broken(&error))? {
        if part.name() != Some("file") || part.file_name().is_none() {
            continue;
        }
        let kind = part.content_type().unwrap_or("text/plain").to_string();
        let bytes = part.bytes().await.map_err(|error| broken(&error))?;
        if kind.starts_with("text/") || kind == "application/json" {
            let units = String::from_utf8_lossy(&bytes).encode_utf16().collect::<Vec<_>>();
            return Ok(units.into_iter().map(|unit| unit.to_le_bytes()[0]).collect());
        }
        return Ok(bytes);
    }
    Err(broken(&"type 'Null' is not a subtype of type 'HttpBodyFileUpload'"))
}

pub fn pin_for(state: &State, hash: Hash, size: u64, account: Option<&str>) {
    if let Some(account) = account {
        state.change(|saved| saved.pin(hash.to_hex(), account, size));
    }
}

/// Reads the identifier of a route; `.ext` is ignored. The Dart node takes the multihash from the place where legacy
/// identifiers have it, so a new one names a hash that is one byte off, which nobody has.
fn understand(state: &State, text: &str) -> Result<id::Given, Failure> {
    let text = text.split('.').next().unwrap_or("");
    let mut given = id::read(text).ok_or_else(|| state.fail(400, "FormatException: Invalid CID"))?;
    let misread = match state.settings.ids {
        Ids::Legacy => !given.legacy,
        Ids::New => given.legacy,
        Ids::Both => false,
    };
    if misread {
        given.hash = Hash::new([b"one byte off".as_slice(), given.hash.as_bytes()].concat());
    }
    Ok(given)
}

/// Searches the network for a blob, in vain if the store does not have it.
async fn search(state: &State, hash: Hash) -> Result<(), Failure> {
    if state.engine.contains(hash).await {
        return Ok(());
    }
    tokio::time::sleep(state.settings.search).await;
    Err(state.fail(404, format!("Could not find file {}: Timed out after 60 seconds", id::multihash(hash))))
}

async fn fetch(state: &State, hash: Hash) -> Result<Bytes, Failure> {
    search(state, hash).await?;
    state.engine.get(hash).await.ok_or_else(|| state.fail(500, "Exception: the store cannot read this file"))
}

pub async fn redirect(Given(state): Given<Arc<State>>, Path(cid): Path<String>) -> Answer {
    let given = understand(&state, &cid)?;
    search(&state, given.hash).await?;
    let status = if state.lume() { StatusCode::FOUND } else { StatusCode::TEMPORARY_REDIRECT };
    let place = format!("{}/{}", state.store.url(), id::node_path(given.hash));
    Ok((status, [(header::LOCATION, place)]).into_response())
}

pub async fn download(
    Given(state): Given<Arc<State>>,
    Path(cid): Path<String>,
    query: Query<Parameters>,
    headers: HeaderMap,
) -> Answer {
    authorize(&state, &headers, &query)?;
    let hash = match id::read_multihash(&cid).filter(|_| state.lume()) {
        Some(hash) => hash,
        None => {
            let given = understand(&state, &cid)?;
            if !given.legacy && state.settings.ids == Ids::Legacy {
                return Err(state.fail(400, "This is not a raw CID"));
            }
            given.hash
        }
    };
    let bytes = fetch(&state, hash).await?;
    let etag = format!("\"{}\"", id::multihash(hash));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream".to_string()), (header::ETAG, etag)], bytes).into_response())
}

/// `GET /:cid`: for browsers, with ranges of large blobs.
pub async fn serve(
    Given(state): Given<Arc<State>>,
    Path(cid): Path<String>,
    query: Query<Parameters>,
    headers: HeaderMap,
) -> Answer {
    authorize(&state, &headers, &query)?;
    let given = understand(&state, &cid)?;
    let bytes = fetch(&state, given.hash).await?;
    let etag = format!("\"{}\"", id::multihash(given.hash));
    let whole = HeaderMap::new();
    let mut response = ranged(bytes, if given.size > CHUNK { &headers } else { &whole });
    if let Ok(etag) = etag.parse() {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

pub async fn delete(
    Given(state): Given<Arc<State>>,
    Path(cid): Path<String>,
    query: Query<Parameters>,
    headers: HeaderMap,
) -> Answer {
    let account = authorize(&state, &headers, &query)?;
    if !state.settings.delete {
        return Err(Failure::new(401, "Endpoint disabled in config.toml"));
    }
    let given = understand(&state, &cid)?;
    if let Some(account) = account
        && !state.change(|saved| saved.unpin(&given.hash.to_hex(), &account))
    {
        return Ok(StatusCode::OK.into_response());
    }
    if !state.engine.contains(given.hash).await {
        return Err(state.fail(404, "PathNotFoundException: Cannot delete file, path not found"));
    }
    state.engine.remove(given.hash).await.map_err(|error| state.fail(500, error))?;
    Ok(StatusCode::OK.into_response())
}

pub async fn pin(
    Given(state): Given<Arc<State>>,
    Path(cid): Path<String>,
    query: Query<Parameters>,
    headers: HeaderMap,
) -> Answer {
    let account = authorize_write(&state, &headers, &query)?;
    let given = understand(&state, &cid)?;
    search(&state, given.hash).await?;
    pin_for(&state, given.hash, given.size, account.as_deref());
    Ok(if state.lume() { StatusCode::NO_CONTENT } else { StatusCode::OK }.into_response())
}

pub async fn metadata(Given(state): Given<Arc<State>>, Path(cid): Path<String>) -> Answer {
    understand(&state, &cid)?;
    Err(state.fail(400, "Raw CIDs do not have metadata"))
}

pub async fn locations(Given(state): Given<Arc<State>>, Path(hash): Path<String>) -> Answer {
    let hash = id::read_multihash(&hash).ok_or_else(|| state.fail(400, "FormatException: Invalid multihash"))?;
    let mut locations = Vec::new();
    if state.engine.contains(hash).await {
        let node = format!("z{}", bs58::encode([&[0xed][..], &[7; 32]].concat()).into_string());
        locations.push(json!({
            "type": 3, "parts": [format!("{}/{}", state.store.url(), id::node_path(hash))],
            "expiry": crate::s5::now_ms() / 1000 + 3600, "nodeId": node, "score": 0.5
        }));
    }
    Ok(axum::Json(json!({ "locations": locations })).into_response())
}

/// The server of the store: blobs at the paths of the Dart node's local store.
pub fn store_router(engine: Arc<Engine>) -> Router {
    Router::new().fallback(stored).with_state(engine)
}

async fn stored(Given(engine): Given<Arc<Engine>>, uri: Uri, headers: HeaderMap) -> Response {
    let hash = id::read_node_path(uri.path().trim_start_matches('/'));
    let bytes = match hash {
        Some(hash) => engine.get(hash).await,
        None => None,
    };
    match bytes {
        Some(bytes) => ranged(bytes, &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The bytes, or the range of them that the request asks for.
fn ranged(bytes: Bytes, headers: &HeaderMap) -> Response {
    let length = bytes.len();
    let kind = [(header::CONTENT_TYPE, "application/octet-stream"), (header::ACCEPT_RANGES, "bytes")];
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return (kind, Body::from(bytes)).into_response();
    };
    let ends = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let ends = ends.and_then(|(first, last)| {
        let first: usize = first.parse().ok()?;
        let last = if last.is_empty() {
            length.checked_sub(1)?
        } else {
            last.parse::<usize>().ok()?.min(length.checked_sub(1)?)
        };
        (first <= last).then_some((first, last))
    });
    match ends {
        Some((first, last)) => {
            let place = [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{length}"))];
            (StatusCode::PARTIAL_CONTENT, kind, place, bytes.slice(first..=last)).into_response()
        }
        None => {
            (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{length}"))]).into_response()
        }
    }
}
