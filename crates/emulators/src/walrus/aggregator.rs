//! Reads.

use super::Daemon;
use super::reply::{self, DAEMON};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;
use std::sync::{Arc, PoisonError};
use walrus::quilt::{Placed, Reader, Tags};
use walrus::{BlobId, PatchId};

type Reply<T> = Result<T, Box<Response>>;

/// Tags that are shown as headers unless the operator says otherwise.
const SHOWN_TAGS: [&str; 7] = [
    "content-type",
    "authorization",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "link",
];

/// A content delivery network that remembers what was not there.
pub async fn delivery(State(daemon): State<Arc<Daemon>>, request: Request, next: Next) -> Response {
    let address = request.uri().to_string();
    let remembered = {
        let mut missing = daemon.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match missing.get_mut(&address) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    };
    if remembered {
        return reply::not_found();
    }
    let response = next.run(request).await;
    let mut missing = daemon.missing.lock().unwrap_or_else(PoisonError::into_inner);
    if response.status() == StatusCode::NOT_FOUND && daemon.config.stale_404 > 0 {
        missing.insert(address, daemon.config.stale_404);
    } else {
        missing.remove(&address);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    #[serde(default)]
    strict_consistency_check: bool,
    #[serde(default)]
    skip_consistency_check: bool,
}

impl Consistency {
    fn check(&self) -> Reply<()> {
        if self.strict_consistency_check && self.skip_consistency_check {
            let message = "a check cannot be strict and skipped";
            return Err(Box::new(reply::error(400, "INVALID_CONSISTENCY_CHECK", DAEMON, message)));
        }
        Ok(())
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Reply<T> {
    text.parse().map_err(|_| {
        let message = format!("Invalid URL: Cannot parse `{text}`");
        Box::new(reply::text(StatusCode::BAD_REQUEST, &message))
    })
}

fn read(daemon: &Daemon, blob: BlobId) -> Reply<Arc<Vec<u8>>> {
    daemon.network().read(blob).ok_or_else(|| Box::new(reply::not_found()))
}

fn finish(reply: Reply<Response>) -> Response {
    reply.unwrap_or_else(|refused| *refused)
}

/// `GET /v1/blobs/{id}`
pub async fn blob(
    State(daemon): State<Arc<Daemon>>,
    Path(id): Path<String>,
    query: Query<Consistency>,
    headers: HeaderMap,
) -> Response {
    finish(parse(&id).and_then(|blob| {
        query.check()?;
        whole(&daemon, blob, &headers)
    }))
}

/// `GET /v1/blobs/by-object-id/{id}`
pub async fn by_object(
    State(daemon): State<Arc<Daemon>>,
    Path(id): Path<String>,
    query: Query<Consistency>,
    headers: HeaderMap,
) -> Response {
    let found = daemon.network().blob_of(&id).ok_or_else(|| Box::new(reply::not_found()));
    finish(found.and_then(|blob| {
        query.check()?;
        whole(&daemon, blob, &headers)
    }))
}

fn whole(daemon: &Daemon, blob: BlobId, headers: &HeaderMap) -> Reply<Response> {
    let bytes = read(daemon, blob)?;
    let Some(range) = headers.get(header::RANGE) else {
        return Ok(success(StatusCode::OK, bytes.to_vec(), &blob.to_string(), headers));
    };
    let wrong = || Box::new(reply::error(416, "INVALID_BYTE_RANGE", DAEMON, "the range cannot be satisfied"));
    let range = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.ok_or_else(wrong)?;
    let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    let part = if first > last { None } else { bytes.get(first..=last) }.ok_or_else(wrong)?;
    let mut response = success(StatusCode::PARTIAL_CONTENT, part.to_vec(), &blob.to_string(), headers);
    if let Ok(value) = HeaderValue::from_str(&format!("bytes {first}-{last}/{}", bytes.len())) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    start: usize,
    length: usize,
}

/// `GET /v1/blobs/{id}/byte-range`
pub async fn byte_range(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>, part: Query<Part>) -> Response {
    finish(parse::<BlobId>(&id).and_then(|blob| {
        let bytes = read(&daemon, blob)?;
        let wrong = || Box::new(reply::error(400, "INVALID_BYTE_RANGE", DAEMON, "the range cannot be satisfied"));
        let end = part.start.checked_add(part.length).filter(|_| part.length > 0).ok_or_else(wrong)?;
        let bytes = bytes.get(part.start..end).ok_or_else(wrong)?;
        let etag = format!("{blob}-{}-{}", part.start, part.length);
        Ok(success(StatusCode::OK, bytes.to_vec(), &etag, &HeaderMap::new()))
    }))
}

/// `GET /v1/blobs/by-quilt-patch-id/{id}`
pub async fn by_patch(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    finish(parse::<PatchId>(&id).and_then(|id| patch(&daemon, id.quilt, id.start, &headers)))
}

/// `GET /v1/blobs/by-quilt-id/{quilt}/{identifier}`
pub async fn by_identifier(
    State(daemon): State<Arc<Daemon>>,
    Path((quilt, identifier)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    finish(parse::<BlobId>(&quilt).and_then(|quilt| {
        let placed = list(&daemon, quilt)?.into_iter().find(|placed| placed.identifier == identifier);
        let missing = || reply::error(404, "QUILT_PATCH_NOT_FOUND", DAEMON, "the quilt has no such patch");
        patch(&daemon, quilt, placed.ok_or_else(|| Box::new(missing()))?.start, &headers)
    }))
}

/// `GET /v1/quilts/{id}/patches`
pub async fn patches(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>) -> Response {
    finish(parse::<BlobId>(&id).and_then(|quilt| {
        let entries = list(&daemon, quilt)?.into_iter().map(|placed| {
            let id = placed.id(quilt).to_string();
            json!({ "identifier": placed.identifier, "patch_id": id, "tags": placed.tags })
        });
        Ok(Json(entries.collect::<Vec<_>>()).into_response())
    }))
}

fn list(daemon: &Daemon, quilt: BlobId) -> Reply<Vec<Placed>> {
    let bytes = read(daemon, quilt)?;
    let reader = Reader::new(daemon.config.shards, &bytes).and_then(|reader| reader.patches());
    reader.map_err(|error| Box::new(reply::internal(&error.to_string())))
}

fn patch(daemon: &Daemon, quilt: BlobId, start: u16, headers: &HeaderMap) -> Reply<Response> {
    let bytes = read(daemon, quilt)?;
    let (identifier, tags, data) = Reader::new(daemon.config.shards, &bytes)
        .and_then(|reader| reader.patch(start))
        .map_err(|error| Box::new(reply::internal(&error.to_string())))?;
    let mut response = success(StatusCode::OK, data, &quilt.to_string(), headers);
    if let Ok(value) = HeaderValue::from_str(&identifier) {
        response.headers_mut().insert("x-quilt-patch-identifier", value);
    }
    show_tags(&mut response, &tags);
    Ok(response)
}

fn show_tags(response: &mut Response, tags: &Tags) {
    for name in SHOWN_TAGS {
        if let Some(Ok(value)) = tags.get(name).map(|value| HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn success(status: StatusCode, bytes: Vec<u8>, etag: &str, request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    reply::read_headers(&mut response, etag);
    let accept = request.get(header::ACCEPT).filter(|value| !value.as_bytes().contains(&b'*'));
    if let Some(kind) = accept.or_else(|| request.get(header::CONTENT_TYPE)) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}
