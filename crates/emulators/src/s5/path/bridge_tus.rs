//! Uploads by pieces at the bridge (`src/tus_upload.js`): no path, no hash; the answer to the last piece has the
//! identifier.

use super::{Asked, State, error};
use crate::s5::id;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::PoisonError;

const RESUMABLE: (&str, &str) = ("tus-resumable", "1.0.0");

pub async fn answer(state: &State, name: &str, asked: &Asked<'_>) -> Response {
    let number = |name: &str| asked.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    match *asked.method {
        Method::POST if name.is_empty() => match number("upload-length") {
            Some(length) => create(state, length, asked),
            None => error(400, "Upload-Length required"),
        },
        Method::HEAD => match with(state, name, |upload| (upload.0, upload.1.len())) {
            Some((length, here)) => {
                let numbers = [("upload-offset", here.to_string()), ("upload-length", length.to_string())];
                ([RESUMABLE, ("cache-control", "no-store")], numbers).into_response()
            }
            None => error(404, "Upload not found"),
        },
        Method::PATCH => match number("upload-offset") {
            Some(offset) => piece(state, name, offset, &asked.body).await,
            None => error(400, "Upload-Offset required"),
        },
        _ => super::bridge::no_route(asked),
    }
}

fn create(state: &State, length: u64, asked: &Asked<'_>) -> Response {
    let name = format!("tus-{}", bs58::encode(crate::s5::fresh()).into_string());
    let host = asked.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let place = format!("http://{host}/s5/upload/tus/{name}");
    state.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (length, Vec::new()));
    (StatusCode::CREATED, [RESUMABLE, ("upload-offset", "0"), ("location", &place)]).into_response()
}

/// Looks at an upload, or changes it.
fn with<R>(state: &State, name: &str, look: impl FnOnce(&mut (u64, Vec<u8>)) -> R) -> Option<R> {
    state.uploads.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name).map(look)
}

async fn piece(state: &State, name: &str, offset: u64, body: &[u8]) -> Response {
    let taken = with(state, name, |(length, bytes)| {
        if offset != bytes.len() as u64 {
            return None;
        }
        bytes.extend_from_slice(body);
        Some((bytes.len() as u64, bytes.len() as u64 >= *length))
    });
    let (here, complete) = match taken {
        None => return error(404, "Upload not found"),
        Some(None) => return error(409, "Offset mismatch"),
        Some(Some(taken)) => taken,
    };
    let offset = [("upload-offset", here.to_string())];
    if !complete {
        return (StatusCode::NO_CONTENT, [RESUMABLE], offset).into_response();
    }
    let whole = state.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    let (_, bytes) = whole.unwrap_or_default();
    match state.engine.put(Bytes::from(bytes)).await {
        Ok(stored) => {
            let cid = [("x-s5-cid", id::new(stored))];
            (StatusCode::NO_CONTENT, [RESUMABLE], offset, cid).into_response()
        }
        Err(text) => error(500, &text),
    }
}
