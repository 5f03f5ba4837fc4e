//! Answers and errors in the shapes of a daemon.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;

pub const DAEMON: &str = "daemon.walrus.space";
pub const AUTH: &str = "auth.publisher.walrus.space";

/// An error in JSON.
pub fn error(status: u16, reason: &str, domain: &str, message: &str) -> Response {
    let text = match (status, domain) {
        (400, AUTH) => "FAILED_PRECONDITION",
        (400, _) => "INVALID_ARGUMENT",
        (401, _) => "UNAUTHENTICATED",
        (403, _) => "SIZE_EXCEEDED",
        (404, _) => "NOT_FOUND",
        (416, _) => "RANGE_NOT_SATISFIABLE",
        (429, _) => "RESOURCE_EXHAUSTED",
        (451, _) => "UNAVAILABLE_FOR_LEGAL_REASONS",
        (503, _) => "UNAVAILABLE",
        (504, _) => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut details = vec![json!({
        "@type": "ErrorInfo", "reason": reason, "domain": domain, "metadata": {}
    })];
    if status == 500 {
        details.push(json!({ "@type": "DebugInfo", "stackEntries": [], "detail": "TraceID: 0" }));
    }
    let body = json!({ "error": { "status": text, "code": status, "message": message, "details": details } });
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(body)).into_response()
}

pub fn text(status: StatusCode, message: &str) -> Response {
    (status, message.to_string()).into_response()
}

pub fn not_found() -> Response {
    error(404, "BLOB_NOT_FOUND", DAEMON, "the requested blob ID does not exist on Walrus")
}

pub fn internal(message: &str) -> Response {
    error(500, "INTERNAL_ERROR", DAEMON, message)
}

/// Adds the headers of every successful read.
pub fn read_headers(response: &mut Response, etag: &str) {
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("public, max-age=86400, stale-while-revalidate=3600"));
    if let Ok(value) = HeaderValue::from_str(etag) {
        headers.insert("etag", value);
    }
}
