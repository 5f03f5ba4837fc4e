//! Uploads that go on after an interruption (TUS 1.0.0), as portals understand them.
//!
//! The Dart node differs from the standard: a wrong offset is a 500, an incomplete piece is answered without its offset,
//! and a blob that it has already is a 409. So the offset is asked for whenever it is not certain.

use super::cid::BlobId;
use super::portal::Portal;
use crate::http::{Answer, Body, HeaderName, Method, Repeat, Request, Url, Verdict, sleep, usual};
use crate::{Context, Error, Result};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Uploads that are begun for one blob, at most.
const BEGINNINGS: u32 = 3;
const REPLY: usize = 64 << 10;

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Sent, checked by the portal, pinned.
    Stored,
    /// The portal had it; whether it is pinned for us is not known.
    WasThere,
}

/// How one upload ended that was begun.
enum Fate {
    Stored,
    /// The portal lost it, or says that the bytes arrived damaged: another one may do better.
    Begin(String),
}

pub fn upload(portal: &Portal, id: &BlobId, bytes: &Bytes, context: &Context) -> Result<End> {
    let mut last = String::new();
    for _ in 0..BEGINNINGS {
        let Some(place) = create(portal, id, context)? else { return Ok(End::WasThere) };
        match push(portal, &place, bytes, context)? {
            Fate::Stored => return Ok(End::Stored),
            Fate::Begin(why) => last = why,
        }
    }
    Err(Error::Unreachable { message: format!("the upload did not come to an end: {last}") })
}

fn header(name: &'static str, value: impl ToString) -> (HeaderName, String) {
    (HeaderName::from_static(name), value.to_string())
}

fn already(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    answer.status.as_u16() == 409
        || answer.status.as_u16() == 500 && (text.contains("already exists") || text.contains("already been uploaded"))
}

/// Begins an upload; where its pieces go. `None` if the portal has the blob.
fn create(portal: &Portal, id: &BlobId, context: &Context) -> Result<Option<Url>> {
    let judge = |answer: &Answer| if already(answer) { Verdict::Take } else { usual(answer) };
    let headers = vec![
        header("tus-resumable", "1.0.0"),
        header("upload-length", id.size),
        header("upload-metadata", id.tus_metadata()),
    ];
    // Beginning twice leaves an upload without pieces behind, which the portal drops.
    let request = Request {
        headers,
        limit: REPLY,
        repeat: Repeat::Safe,
        judge: Some(&judge),
        ..Request::new(Method::POST, portal.route("s5/upload/tus")?)
    };
    let answer = portal.send(&request, context)?;
    if already(&answer) {
        return Ok(None);
    }
    if answer.status.as_u16() != 201 {
        return Err(answer.error("upload"));
    }
    let bad = || Error::Protocol { message: "the portal does not say where the pieces of an upload go".to_owned() };
    let place = answer.header("location").and_then(|place| answer.url.join(place).ok()).ok_or_else(bad)?;
    // Only path and query: behind a proxy the portal may not know its own name, and no other host gets our token.
    let mut url = portal.route("")?;
    url.set_path(place.path());
    url.set_query(place.query());
    Ok(Some(url))
}

/// Sends what is missing until all is there.
fn push(portal: &Portal, place: &Url, bytes: &Bytes, context: &Context) -> Result<Fate> {
    let length = bytes.len();
    let mut offset = 0;
    let mut failures = 0;
    loop {
        let why = match patch(portal, place, bytes, offset, context) {
            Ok(answer) => match answer.status.as_u16() {
                200 | 204 if said_offset(&answer).map_or(answer.status.as_u16() == 204, |said| said == length) => {
                    return Ok(Fate::Stored);
                }
                200 | 204 => "a piece was not taken as a whole".to_owned(),
                404 | 410 => return Ok(Fate::Begin("the portal forgot it".to_owned())),
                500 if String::from_utf8_lossy(&answer.body).contains("Invalid hash") => {
                    return Ok(Fate::Begin("the portal received other bytes than were sent".to_owned()));
                }
                409 | 429 | 500..=599 => answer.text(),
                _ => return Err(answer.error("upload")),
            },
            Err(error @ (Error::Cancelled | Error::Option { .. } | Error::Refused { .. })) => return Err(error),
            Err(error) => error.to_string(),
        };
        context.check()?;
        let Some(reached) = ask(portal, place, context)? else {
            return Ok(Fate::Begin("the portal forgot it".to_owned()));
        };
        failures = if reached > offset { 0 } else { failures + 1 };
        if failures > portal.retries() || reached > length {
            return Err(Error::Unreachable { message: format!("the upload does not go on: {why}") });
        }
        offset = reached;
        context.progress.retries.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(50 << failures.min(6)), context)?;
    }
}

fn said_offset(answer: &Answer) -> Option<usize> {
    answer.header("upload-offset")?.parse().ok()
}

/// Sends all from `offset` on. With nothing left to send, asks the portal to finish.
fn patch(portal: &Portal, place: &Url, bytes: &Bytes, offset: usize, context: &Context) -> Result<Answer> {
    let headers = vec![
        header("tus-resumable", "1.0.0"),
        header("upload-offset", offset),
        header("content-type", "application/offset+octet-stream"),
    ];
    let body = Body::Bytes(bytes.slice(offset.min(bytes.len())..));
    let request =
        Request { headers, body, limit: REPLY, repeat: Repeat::Never, ..Request::new(Method::PATCH, place.clone()) };
    portal.send(&request, context)
}

/// How many bytes the portal has; `None` if it does not know the upload.
fn ask(portal: &Portal, place: &Url, context: &Context) -> Result<Option<usize>> {
    let request = Request {
        headers: vec![header("tus-resumable", "1.0.0")],
        limit: REPLY,
        repeat: Repeat::Safe,
        ..Request::new(Method::HEAD, place.clone())
    };
    let answer = portal.send(&request, context)?;
    match (answer.status.as_u16(), said_offset(&answer)) {
        (200 | 204, Some(offset)) => Ok(Some(offset)),
        (404 | 410, _) => Ok(None),
        (200 | 204, None) => {
            Err(Error::Protocol { message: "the portal does not say how far an upload is".to_owned() })
        }
        _ => Err(answer.error("upload")),
    }
}
