//! M: the test server of s5.js (`test/mocked/integration/test-server.js`): a flat map of keys.

use super::{Asked, State, error, media_type, reply};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LARGEST_BODY: usize = 50 << 20;

pub async fn answer(state: &State, asked: Asked<'_>) -> Response {
    if asked.path == "/health" && asked.method == Method::GET {
        let version = "0.1.0";
        return reply(
            200,
            &json!({ "status": "ok", "mockStorage": true, "server": "s5.js test server", "version": version }),
        );
    }
    let Some(path) = asked.path.strip_prefix("/s5/fs/") else { return error(404, "Endpoint not found") };
    match *asked.method {
        Method::PUT => put(state, path, &asked).await,
        Method::GET if path.is_empty() || path.ends_with('/') => list(state, path),
        Method::GET => get(state, path).await,
        Method::DELETE => match state.delete(path).await {
            Ok(_) => reply(200, &json!({ "success": true, "path": path, "deleted": true })),
            Err(text) => error(500, &text),
        },
        _ => error(404, "Endpoint not found"),
    }
}

async fn put(state: &State, path: &str, asked: &Asked<'_>) -> Response {
    if asked.body.len() > LARGEST_BODY {
        return error(500, "Internal server error");
    }
    if asked.media_type().is_none() {
        return error(400, "No data provided");
    }
    match state.store(path, asked.body.clone(), false).await {
        Ok(_) => {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&asked.body));
            let digest = digest.get(..32).unwrap_or_default();
            reply(201, &json!({ "cid": format!("s5://mock_{digest}"), "path": path }))
        }
        Err(text) => error(500, &text),
    }
}

async fn get(state: &State, path: &str) -> Response {
    match state.read(path).await {
        Some((_, bytes)) => ([(header::CONTENT_TYPE, media_type(path))], bytes).into_response(),
        None => error(404, "File not found"),
    }
}

/// Keys right below the path; at the root, all keys.
fn list(state: &State, path: &str) -> Response {
    let files = state.files();
    let entries: Vec<Value> = files
        .iter()
        .filter_map(|(key, file)| {
            let name = key.strip_prefix(path)?;
            let shown = path.is_empty() || (!name.is_empty() && !name.contains('/'));
            shown.then(|| {
                json!({ "name": name, "type": "file", "size": file.size, "created": file.created,
                        "modified": file.modified })
            })
        })
        .collect();
    reply(200, &json!({ "path": path, "entries": entries }))
}
