//! D: the service of fabstir-vectordb (`bindings/node/services/s5-http-service.js`) with its storage in memory.

use super::{Asked, State, decoded, error, express, reply};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub async fn answer(state: &State, asked: Asked<'_>) -> Response {
    if asked.path == "/health" && asked.method == Method::GET {
        return reply(200, &json!({ "status": "healthy", "mode": "mock" }));
    }
    let path = decoded(asked.path);
    let Some(path) = path.strip_prefix("/s5/fs/") else {
        return express(404, &format!("Cannot {} {path}", asked.method));
    };
    match *asked.method {
        Method::PUT => match state.store(path, asked.body.clone(), false).await {
            Ok(_) => reply(200, &json!({ "success": true })),
            Err(text) => error(500, &text),
        },
        Method::GET if path.is_empty() || path.ends_with('/') => {
            let paths: Vec<String> = state.files().keys().filter(|key| key.starts_with(path)).cloned().collect();
            reply(200, &json!(paths))
        }
        Method::GET => match state.read(path).await {
            Some((_, bytes)) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
            None => error(404, "Path not found"),
        },
        Method::DELETE => match state.delete(path).await {
            Ok(true) => reply(200, &json!({ "success": true })),
            Ok(false) => error(404, "Path not found"),
            Err(text) => error(500, &text),
        },
        _ => express(404, &format!("Cannot {} /s5/fs/{path}", asked.method)),
    }
}
