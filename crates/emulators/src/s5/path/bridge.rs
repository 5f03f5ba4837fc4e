//! B: the bridge of fabstir-llm-node: a real s5.js behind HTTP, with what that does to paths, media types and large
//! directories.

use super::{Asked, State, error, reply};
use crate::s5::id;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use s5_core::{BlobId, Hash};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LARGEST_BODY: usize = 100 << 20;
/// Entries at which s5.js turns a directory into a form that it cannot read again.
const DIRECTORY_LIMIT: usize = 1000;
/// What the text of an error of s5.js may contain: the key that writes to the whole store. Made up.
pub const SECRET: &str =
    "fs5://write:u7ZPsAA7qxKsqWq2k3B8DaBVzUzFPuUIGAARoE5K3yaaN@uJQQEBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e";

pub async fn answer(state: &State, asked: Asked<'_>) -> Response {
    // The name is cut out of the raw URL, so escapes and the query are part of it.
    let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{}{query}", asked.path);
    let get = asked.method == Method::GET;
    if let Some(path) = url.strip_prefix("/s5/fs/") {
        return match *asked.method {
            Method::PUT => put(state, path, &asked).await,
            Method::GET => read(state, path).await,
            Method::DELETE => match state.delete(path).await {
                Ok(_) => StatusCode::NO_CONTENT.into_response(),
                Err(text) => error(500, &text),
            },
            _ => no_route(&asked),
        };
    }
    if url == "/health" && get {
        return reply(
            200,
            &json!({ "status": "healthy", "service": "s5-bridge", "timestamp": crate::s5::now_ms().to_string(),
                     "activeDirLocks": 0, "initialized": true, "connected": true, "peerCount": 1, "portal": "emulated" }),
        );
    }
    if let Some(name) = asked.path.strip_prefix("/s5/upload/tus") {
        return super::bridge_tus::answer(state, name.trim_start_matches('/'), &asked).await;
    }
    let blob = url.strip_prefix("/s5/blob/").map(|cid| (cid, id::read(cid).map(|given| given.hash)));
    let blob = blob.or_else(|| url.strip_prefix("/s5/download/").map(|hash| (hash, id::read_multihash(hash))));
    match (blob, url.strip_prefix("/api/locations/")) {
        (Some((name, hash)), _) if get => serve(state, name, hash).await,
        (None, Some(hash)) if get => locations(state, hash, asked.headers).await,
        _ => no_route(&asked),
    }
}

pub fn no_route(asked: &Asked<'_>) -> Response {
    let text = format!("Route {}:{} not found", asked.method, asked.path);
    reply(404, &json!({ "message": text, "error": "Not Found", "statusCode": 404 }))
}

async fn serve(state: &State, name: &str, hash: Option<Hash>) -> Response {
    let bytes = match hash {
        Some(hash) => state.engine.get(hash).await,
        None => None,
    };
    match bytes {
        Some(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        None => {
            reply(502, &json!({ "error": "Blob download failed", "cid": name, "message": "no location has this blob" }))
        }
    }
}

async fn locations(state: &State, hash: &str, headers: &axum::http::HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let known = match id::read_multihash(hash) {
        Some(hash) => state.engine.contains(hash).await,
        None => false,
    };
    let parts = known.then(|| json!({ "parts": [format!("http://{host}/s5/download/{hash}")] }));
    reply(200, &json!({ "locations": parts.into_iter().collect::<Vec<_>>() }))
}

async fn put(state: &State, path: &str, asked: &Asked<'_>) -> Response {
    let refuse = |status: u16, code: &str, name: &str, text: String| {
        reply(status, &json!({ "statusCode": status, "code": code, "error": name, "message": text }))
    };
    if asked.body.len() > LARGEST_BODY {
        let text = "Request body is too large".to_string();
        return refuse(413, "FST_ERR_CTP_BODY_TOO_LARGE", "Payload Too Large", text);
    }
    let lost = match asked.media_type() {
        Some("application/octet-stream" | "text/plain") => false,
        // Its parser leaves an object where bytes are expected; their length is undefined, and nothing is stored.
        Some("application/json") => true,
        other => {
            let text = format!("Unsupported Media Type: {}", other.unwrap_or("undefined"));
            return refuse(415, "FST_ERR_CTP_INVALID_MEDIA_TYPE", "Unsupported Media Type", text);
        }
    };
    if asked.body.is_empty() {
        return error(400, "Request body is empty");
    }
    if !(path.starts_with("home/") || path.starts_with("archive/")) {
        return failed(path, "InvalidPathException");
    }
    if state.faults.take_special("secret", "PUT", asked.path) {
        return failed(path, &format!("Directory \"{SECRET}\" does not exist"));
    }
    let bytes = if lost || state.faults.take_special("empty-file", "PUT", asked.path) {
        axum::body::Bytes::new()
    } else {
        asked.body.clone()
    };
    if !state.files().keys().any(|key| parent(key) == parent(path)) {
        tokio::time::sleep(state.settings.new_directory).await;
    }
    match state.store(path, bytes, false).await {
        Ok(id) => {
            lose_large_directory(state, path);
            stored(state, path, asked, id, lost)
        }
        Err(text) => failed(path, &text),
    }
}

fn failed(path: &str, message: &str) -> Response {
    let debug = json!({ "requestId": "emulated", "errorType": "Error" });
    reply(500, &json!({ "error": "Upload failed", "path": path, "message": message, "debug": debug }))
}

fn stored(state: &State, path: &str, asked: &Asked<'_>, id: BlobId, lost: bool) -> Response {
    let mut shown = id;
    if state.faults.take_special("wrong-cid", "PUT", asked.path) {
        shown.hash = Hash::new(b"other bytes");
    }
    let mut value = json!({
        "success": true, "path": path, "cid": id::new(shown), "networkUploaded": true,
        "debug": { "requestId": "emulated", "uploadDurationMs": 1, "portalAccount": "emulated",
                   "rawHashHex": shown.hash.to_hex() }
    });
    if !lost && let Some(object) = value.as_object_mut() {
        object.insert("size".to_string(), json!(asked.body.len()));
    }
    if state.faults.take_special("no-cid", "PUT", asked.path)
        && let Some(object) = value.as_object_mut()
    {
        object.remove("cid");
    }
    reply(201, &value)
}

/// The directory of a path, without the last `/`.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// s5.js keeps at most 999 entries of a directory: with the next one, all are gone.
fn lose_large_directory(state: &State, path: &str) {
    let mut files = state.files();
    let mut directory = parent(path);
    while !directory.is_empty() {
        let start = format!("{directory}/");
        let below = files.keys().filter_map(|key| key.strip_prefix(&start));
        let entries: BTreeSet<&str> = below.map(|rest| rest.split('/').next().unwrap_or(rest)).collect();
        if entries.len() >= DIRECTORY_LIMIT {
            files.retain(|key, _| !key.starts_with(&start));
        }
        directory = parent(directory);
    }
}

/// Any failure is a 404. That of a missing directory says more than it should.
async fn read(state: &State, path: &str) -> Response {
    if let Some((_, bytes)) = state.read(path).await {
        let headers = [("content-type", "application/octet-stream"), ("x-s5-path", path)];
        return (headers, re_serialised(path, &bytes)).into_response();
    }
    let directory = format!("{}/", parent(path));
    let message = if state.files().keys().any(|key| key.starts_with(&directory)) {
        "File not found".to_string()
    } else {
        format!("Directory \"{SECRET}\" does not exist")
    };
    reply(404, &json!({ "error": "File not found or download failed", "path": path, "message": message }))
}

/// s5.js decodes what its media type (by extension) calls text or JSON, and the bridge writes the value again.
fn re_serialised(path: &str, bytes: &[u8]) -> Vec<u8> {
    let texts = [".json", ".txt", ".csv", ".md", ".xml", ".yaml", ".html"];
    if !texts.iter().any(|extension| path.ends_with(extension)) {
        return bytes.to_vec();
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => value.to_string().into_bytes(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned().into_bytes(),
    }
}
