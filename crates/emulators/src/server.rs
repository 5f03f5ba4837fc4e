//! The socket in front of an emulator, with faults.

use crate::faults::{Fault, Faults, Kind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// A request as it came in, before faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// `Content-Length`, 0 where it is absent.
    pub length: u64,
}

/// A running emulator; dropping it closes its sockets and ends its threads.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    router: Router,
    faults: Arc<Faults>,
    requests: Mutex<Vec<Request>>,
}

/// Serves `router` on a loopback port (0 takes a free one).
///
/// # Errors
/// When the port cannot be bound.
pub fn serve(router: Router, faults: Arc<Faults>, port: u16) -> io::Result<Server> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared { router, faults, requests: Mutex::default() });
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let connections = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name("emulator".to_string()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, connections) => {}
                _ = stopped => {}
            }
        });
        // Open connections end with the runtime; a handler in the middle of a computation is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(Server { address, shared, stop: Some(stop), thread: Some(thread) })
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Requests since the start, oldest first, without those under `/_emulator/`.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Waits until the server ends, which it does when the process is told to.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let stop = self.stop.take();
            let _ = thread.join();
            drop(stop);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&shared)));
            // An error here is a client that went away, or a fault: the connection is closed either way.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error makes hyper close the connection at once; unread bytes make the kernel send a reset.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection reset as ordered")
    }
}

impl std::error::Error for Reset {}

async fn answer(request: hyper::Request<hyper::body::Incoming>, shared: Arc<Shared>) -> Result<Response, Reset> {
    let method = request.method().as_str().to_string();
    let path = request.uri().path().to_string();
    if path.starts_with("/_emulator/") {
        return Ok(admin(request, &shared, &path).await);
    }
    note(&request, &shared);
    let request = request.map(Body::new);
    let Some(kind) = shared.faults.take(&method, &path) else { return Ok(pass(&shared, request).await) };
    match kind {
        Kind::Delay { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(pass(&shared, request).await)
        }
        Kind::Reset => Err(Reset),
        Kind::ResetUpload { after_bytes } => {
            read_some(request.into_body(), after_bytes).await;
            Err(Reset)
        }
        Kind::CutUpload { after_bytes } => {
            let (_, body) = pass(&shared, request.map(|body| cut(body, after_bytes))).await.into_parts();
            let _ = body.collect().await;
            Err(Reset)
        }
        Kind::Stall => std::future::pending().await,
        Kind::Answer { status, content_type, body, headers } => {
            read_some(request.into_body(), usize::MAX).await;
            Ok(ordered(status, &content_type, body, headers))
        }
        Kind::Lost => {
            let (_, body) = pass(&shared, request).await.into_parts();
            let _ = body.collect().await;
            Err(Reset)
        }
        Kind::Truncate { .. } | Kind::Shorten { .. } | Kind::Flip { .. } | Kind::Trickle { .. } => {
            Ok(mangle(pass(&shared, request).await, kind).await)
        }
        Kind::Special { .. } => Ok(pass(&shared, request).await),
    }
}

fn note<B>(request: &hyper::Request<B>, shared: &Shared) {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0);
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let entry = Request { method: request.method().to_string(), path, length };
    shared.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(entry);
}

async fn pass(shared: &Shared, request: hyper::Request<Body>) -> Response {
    match shared.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn read_some(body: Body, limit: usize) {
    let mut body = body;
    let mut seen = 0;
    while seen < limit {
        match body.frame().await {
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// The first `keep` bytes of a body, then an error.
fn cut(body: Body, keep: usize) -> Body {
    let stream = futures_util::stream::unfold(Some((body, keep)), |state| async move {
        let (mut body, keep) = state?;
        let frame = if keep > 0 { body.frame().await } else { None };
        let Some(Ok(mut data)) = frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())) else {
            return Some((Err(Reset), None));
        };
        data.truncate(keep);
        let left = keep - data.len();
        Some((Ok(data), Some((body, left))))
    });
    Body::from_stream(stream)
}

fn ordered(status: u16, content_type: &str, body: String, headers: Vec<(String, String)>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let given = headers.into_iter().chain([("content-type".to_string(), content_type.to_string())]);
    for (name, value) in given {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Applies a fault of the answer's body.
async fn mangle(response: Response, kind: Kind) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut bytes = body.collect().await.map(|whole| whole.to_bytes().to_vec()).unwrap_or_default();
    let body = match kind {
        Kind::Flip { byte } if !bytes.is_empty() => {
            let at = byte % bytes.len();
            bytes[at] ^= 1;
            Body::from(bytes)
        }
        Kind::Shorten { keep } => {
            bytes.truncate(keep);
            parts.headers.remove(header::CONTENT_LENGTH);
            Body::from(bytes)
        }
        Kind::Truncate { keep } => {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            bytes.truncate(keep);
            in_pieces(vec![Bytes::from(bytes)], Duration::from_millis(20), true)
        }
        Kind::Trickle { piece, pause_ms } => {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            let pieces = bytes.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect();
            in_pieces(pieces, Duration::from_millis(pause_ms), false)
        }
        _ => Body::from(bytes),
    };
    Response::from_parts(parts, body)
}

/// A body that pauses after each piece, and fails at the end if told to.
fn in_pieces(pieces: Vec<Bytes>, pause: Duration, fail: bool) -> Body {
    let pieces = pieces.into_iter();
    let stream = futures_util::stream::unfold((pieces, true), move |(mut pieces, first)| async move {
        if !first {
            tokio::time::sleep(pause).await;
        }
        match pieces.next() {
            Some(piece) => Some((Ok(piece), (pieces, false))),
            None if fail => Some((Err(Reset), (pieces, false))),
            None => None,
        }
    });
    Body::from_stream(stream)
}

async fn admin(request: hyper::Request<hyper::body::Incoming>, shared: &Shared, path: &str) -> Response {
    match (request.method().clone(), path) {
        (Method::POST, "/_emulator/faults") => {
            let body = request.into_body().collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
            match parse_faults(&body) {
                Ok(faults) => {
                    faults.into_iter().for_each(|fault| shared.faults.add(fault));
                    ordered(200, "application/json", "{}".to_string(), Vec::new())
                }
                Err(error) => ordered(400, "text/plain", error.to_string(), Vec::new()),
            }
        }
        (Method::DELETE, "/_emulator/faults") => {
            shared.faults.clear();
            ordered(200, "application/json", "{}".to_string(), Vec::new())
        }
        (Method::GET, "/_emulator/requests") => {
            let requests = shared.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let body = serde_json::to_string(&requests).unwrap_or_default();
            ordered(200, "application/json", body, Vec::new())
        }
        _ => pass(shared, request.map(Body::new)).await,
    }
}

fn parse_faults(body: &[u8]) -> serde_json::Result<Vec<Fault>> {
    match serde_json::from_slice::<serde_json::Value>(body)? {
        array @ serde_json::Value::Array(_) => serde_json::from_value(array),
        one => Ok(vec![serde_json::from_value(one)?]),
    }
}
