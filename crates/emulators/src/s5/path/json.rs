//! J: `src/server.ts` of s5.js: paths of exactly two segments, kept in memory, handed out as JSON whatever they were.

use super::{Asked, State, decoded, error, express, reply};
use crate::s5::id;
use axum::body::Bytes;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Of a body that says it is JSON.
const LARGEST_JSON: usize = 100 * 1024;
/// Of all others.
const LARGEST_BODY: usize = 100 * 1_000_000;

pub async fn answer(state: &State, asked: Asked<'_>) -> Response {
    let json = asked.media_type() == Some("application/json");
    if asked.body.len() > if json { LARGEST_JSON } else { LARGEST_BODY } {
        return express(413, "PayloadTooLargeError: request entity too large");
    }
    let path = decoded(asked.path);
    let segments: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    match (asked.method, segments.as_slice()) {
        (&Method::GET, ["api", "v1", "health"]) => {
            let connection = json!({ "connected": true, "authenticated": false });
            reply(200, &json!({ "status": "healthy", "s5": connection, "timestamp": crate::s5::now_ms().to_string() }))
        }
        (&Method::POST, ["api", "v1", "upload"]) => upload(state, asked.body).await,
        (&Method::GET, ["api", "v1", "download", cid]) => download(state, cid).await,
        (&Method::GET, ["s5", "fs", kind]) => list(state, kind),
        (&Method::PUT, ["s5", "fs", kind, name]) => put(state, &format!("{kind}/{name}"), asked.body, json).await,
        (&Method::GET, ["s5", "fs", kind, name]) => get(state, &format!("{kind}/{name}")).await,
        (&Method::DELETE, ["s5", "fs", kind, name]) => match state.delete(&format!("{kind}/{name}")).await {
            Ok(deleted) => reply(200, &json!({ "success": deleted })),
            Err(text) => error(500, &text),
        },
        _ => express(404, &format!("Cannot {} {path}", asked.method)),
    }
}

async fn put(state: &State, path: &str, body: Bytes, json: bool) -> Response {
    if json && serde_json::from_slice::<Value>(&body).is_err() {
        return express(400, "SyntaxError: Unexpected token in JSON");
    }
    match state.store(path, body, json).await {
        Ok(_) => reply(200, &json!({ "success": true, "key": path })),
        Err(text) => error(500, &text),
    }
}

async fn get(state: &State, path: &str) -> Response {
    match state.read(path).await {
        Some((file, bytes)) if file.json => match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) => reply(200, &value),
            Err(parse) => error(500, &parse.to_string()),
        },
        Some((_, bytes)) => reply(200, &json!({ "type": "Buffer", "data": bytes.to_vec() })),
        None => error(404, "Not found"),
    }
}

fn list(state: &State, kind: &str) -> Response {
    let start = format!("{kind}/");
    let items: Vec<String> =
        state.files().keys().filter_map(|key| key.strip_prefix(&start).map(str::to_string)).collect();
    reply(200, &json!({ "items": items }))
}

/// Its identifiers have the multihash byte of the old form in the new one.
async fn upload(state: &State, body: Bytes) -> Response {
    match state.engine.put(body).await {
        Ok(stored) => {
            let mut bytes = stored.to_bytes();
            if let Some(function) = bytes.get_mut(2) {
                *function = 0x1f;
            }
            let cid = format!("b{}", id::base32().encode(&bytes));
            reply(200, &json!({ "cid": cid, "size": stored.size, "timestamp": crate::s5::now_ms().to_string() }))
        }
        Err(text) => error(500, &text),
    }
}

async fn download(state: &State, cid: &str) -> Response {
    let bytes = match id::read(cid) {
        Some(given) => state.engine.get(given.hash).await,
        None => None,
    };
    match bytes {
        Some(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        None => error(404, "Not found"),
    }
}
