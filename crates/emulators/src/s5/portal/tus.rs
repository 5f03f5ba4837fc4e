//! Uploads in pieces (TUS 1.0.0), with the deviations of the Dart node.

use super::accounts::authorize_write;
use super::blobs::pin_for;
use super::{Answer, Failure, State};
use crate::s5::id;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State as Given};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http_body_util::BodyExt;
use s5_core::Hash;
use std::collections::HashMap;
use std::sync::Arc;

/// An upload under way.
pub struct Session {
    account: Option<String>,
    length: u64,
    /// As the client said: function byte, then hash.
    multihash: Vec<u8>,
    bytes: Vec<u8>,
}

type Parameters = HashMap<String, String>;

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The multihash in `Upload-Metadata`: `hash` and a text that is base64 of base64url.
fn expected(headers: &HeaderMap) -> Option<Vec<u8>> {
    let metadata = headers.get("upload-metadata")?.to_str().ok()?;
    let value = metadata.split(',').find_map(|pair| pair.trim().strip_prefix("hash "))?;
    let text = BASE64.decode(value.as_bytes()).ok()?;
    BASE64URL_NOPAD.decode(&text).ok().filter(|multihash| multihash.len() == 33)
}

pub async fn create(Given(state): Given<Arc<State>>, query: Query<Parameters>, headers: HeaderMap) -> Answer {
    let account = authorize_write(&state, &headers, &query)?;
    let missing = || state.fail(400, "Null check operator used on a null value");
    let length = number(&headers, "upload-length").ok_or_else(missing)?;
    let multihash = expected(&headers).ok_or_else(missing)?;
    let hash = <[u8; 32]>::try_from(multihash.get(1..).unwrap_or_default()).map_err(|_| missing())?;
    let hash = Hash::from_bytes(hash);
    if state.engine.contains(hash).await {
        if state.lume() {
            return Err(Failure::new(500, "file already exists"));
        }
        let cid = id::legacy(hash, length);
        return Err(Failure::new(409, format!("Raw file with CID {cid} has already been uploaded to this node")));
    }
    let name = bs58::encode(crate::s5::fresh()).into_string();
    state.uploads().insert(name.clone(), Session { account, length, multihash, bytes: Vec::new() });
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let query = match token.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if state.lume() => format!("?auth_token={token}"),
        _ => String::new(),
    };
    let place = format!("http://{host}/s5/upload/tus/{name}{query}");
    Ok((StatusCode::CREATED, [("tus-resumable", "1.0.0"), ("location", &place)]).into_response())
}

pub async fn head(Given(state): Given<Arc<State>>, Path(name): Path<String>) -> Answer {
    let uploads = state.uploads();
    let Some(session) = uploads.get(&name) else { return Err(Failure::new(404, "")) };
    let headers = [
        ("tus-resumable", "1.0.0".to_string()),
        ("upload-offset", session.bytes.len().to_string()),
        ("upload-length", session.length.to_string()),
        ("cache-control", "no-store".to_string()),
    ];
    Ok(headers.into_response())
}

pub async fn patch(
    Given(state): Given<Arc<State>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Answer {
    let offset = number(&headers, "upload-offset");
    let here = state.uploads().get(&name).map(|session| session.bytes.len() as u64);
    let Some(here) = here else { return Err(Failure::new(404, "")) };
    let offset = offset.ok_or_else(|| state.fail(400, "Null check operator used on a null value"))?;
    if offset != here {
        return Err(state.fail(409, "Invalid offset"));
    }
    // What came before the connection broke is kept.
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| state.fail(400, error.to_string()))?;
        if let (Some(data), Some(session)) = (frame.data_ref(), state.uploads().get_mut(&name)) {
            session.bytes.extend_from_slice(data);
        }
    }
    let (here, length) = match state.uploads().get(&name) {
        Some(session) => (session.bytes.len() as u64, session.length),
        None => return Err(Failure::new(404, "")),
    };
    if here < length {
        // The Dart node says nothing of the offset before the end.
        let offset = [("upload-offset", here.to_string())];
        return Ok(if state.lume() {
            (StatusCode::NO_CONTENT, [("tus-resumable", "1.0.0")], offset).into_response()
        } else {
            [("tus-resumable", "1.0.0")].into_response()
        });
    }
    finish(&state, &name, here).await
}

/// The last piece has come: the hash is checked and the blob stored.
async fn finish(state: &State, name: &str, length: u64) -> Answer {
    let Some(session) = state.uploads().remove(name) else { return Err(Failure::new(404, "")) };
    let hash = Hash::new(&session.bytes);
    let function = if state.lume() { session.multihash.first().copied().unwrap_or(0) } else { 0x1f };
    if session.multihash != [&[function][..], hash.as_bytes()].concat() || length != session.length {
        return Err(state.fail(400, "Invalid hash found"));
    }
    state.engine.put(Bytes::from(session.bytes)).await.map_err(|error| state.fail(500, error))?;
    pin_for(state, hash, length, session.account.as_deref());
    let offset = [("upload-offset", length.to_string())];
    Ok((StatusCode::NO_CONTENT, [("tus-resumable", "1.0.0")], offset).into_response())
}
