//! Path services: `PUT`, `GET`, `DELETE /s5/fs/<path>`, in four of the dialects that exist.
//!
//! They agree on little more than the path. Each has the quirks that were observed in the program it stands for; see
//! the modules. Bytes are kept by the blob engine, so what a dialect stores can be lost apart from what it lists.

mod bridge;
mod bridge_tus;
mod json;
mod mock;
mod vector_db;

use super::engine::{Engine, wait};
use crate::faults::Faults;
use crate::{Options, Request, Server, serve};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Given;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use s5_core::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which program it stands for; letters as in the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// M: the test server of s5.js.
    #[default]
    Mock,
    /// B: the bridge of fabstir-llm-node, a real s5.js behind HTTP.
    Bridge,
    /// J: `src/server.ts` of s5.js; everything comes back as JSON, nothing outlives the process.
    Json,
    /// D: the service of fabstir-vectordb.
    VectorDb,
}

#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Port on loopback; 0 takes a free one.
    pub port: u16,
    /// Directory in which the state outlives the process.
    pub state: Option<PathBuf>,
    pub profile: Profile,
    /// The bridge waits as long before the first write into a new directory (2.6 s in the real one).
    pub new_directory: Duration,
}

/// A running path service.
pub struct PathService {
    server: Server,
    state: Arc<State>,
}

struct State {
    settings: Settings,
    engine: Engine,
    faults: Arc<Faults>,
    file: Option<PathBuf>,
    files: Mutex<BTreeMap<String, File>>,
    /// Of the bridge: uploads by pieces that are under way, with their lengths.
    uploads: Mutex<BTreeMap<String, (u64, Vec<u8>)>>,
}

/// What is known of a path besides the bytes. Times in milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct File {
    hash: [u8; 32],
    size: u64,
    json: bool,
    created: u64,
    modified: u64,
}

/// A request, read whole; HEAD is taken for GET, but for uploads by pieces.
struct Asked<'a> {
    method: &'a Method,
    /// Not decoded.
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl PathService {
    /// # Errors
    /// When the port cannot be bound or the saved state cannot be read.
    pub fn start(settings: Settings) -> io::Result<Self> {
        if let Some(directory) = &settings.state {
            std::fs::create_dir_all(directory)?;
        }
        let file = settings.state.as_ref().filter(|_| settings.profile != Profile::Json);
        let file = file.map(|directory| directory.join("paths.json"));
        let faults = Arc::new(Faults::default());
        let state = Arc::new(State {
            engine: Engine::open(settings.state.as_deref())?,
            faults: Arc::clone(&faults),
            files: Mutex::new(super::load(file.as_deref())?),
            uploads: Mutex::default(),
            file,
            settings,
        });
        let server = serve(router(Arc::clone(&state)), faults, state.settings.port)?;
        Ok(Self { server, state })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Paths that it lists, in order.
    pub fn paths(&self) -> Vec<String> {
        self.state.files().keys().cloned().collect()
    }

    /// Loses the bytes behind a path, which stays listed; `false` if there is no such path.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn lose(&self, path: &str) -> io::Result<bool> {
        wait(self.state.lose(path))?.map_err(io::Error::other)
    }

    /// Replaces the bytes behind a path by others, as if another had written there; `false` if there is no such path.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<bool> {
        if !self.state.files().contains_key(path) {
            return Ok(false);
        }
        let stored = wait(self.state.store(path, Bytes::copy_from_slice(bytes), false))?;
        stored.map_err(io::Error::other).map(|_| true)
    }

    /// Forgets everything, as a restart with loss of data would.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn wipe(&self) -> io::Result<()> {
        wait(self.state.wipe())?.map_err(io::Error::other)
    }

    /// Blobs that the engine holds.
    ///
    /// # Errors
    /// Those of the runtime.
    pub fn blobs(&self) -> io::Result<usize> {
        wait(self.state.engine.count())
    }
}

/// Starts a path service from the command line: `--profile M|B|J|D`.
///
/// # Errors
/// An unknown profile, and as [`PathService::start`].
pub fn start(settings: &crate::Settings, options: &Options) -> io::Result<Server> {
    let profile = match options.text("profile").unwrap_or("M") {
        "M" => Profile::Mock,
        "B" => Profile::Bridge,
        "J" => Profile::Json,
        "D" => Profile::VectorDb,
        other => return Err(io::Error::other(format!("--profile: \"{other}\" is none of M, B, J, D"))),
    };
    let settings = Settings { port: settings.port, state: settings.state.clone(), profile, ..Settings::default() };
    Ok(PathService::start(settings)?.server)
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/_emulator/wipe", post(wipe))
        .route("/_emulator/lose/{*path}", post(lose))
        .fallback(answer)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(state)
}

async fn wipe(Given(state): Given<Arc<State>>) -> Response {
    match state.wipe().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn lose(Given(state): Given<Arc<State>>, axum::extract::Path(path): axum::extract::Path<String>) -> Response {
    match state.lose(&path).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn answer(Given(state): Given<Arc<State>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    // A body that breaks off is an answer that nobody reads.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let tus = parts.uri.path().starts_with("/s5/upload/tus/");
    let method = if parts.method == Method::HEAD && !tus { Method::GET } else { parts.method.clone() };
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let asked = Asked { method: &method, path, query, headers: &parts.headers, body };
    match state.settings.profile {
        Profile::Mock => mock::answer(&state, asked).await,
        Profile::Bridge => bridge::answer(&state, asked).await,
        Profile::Json => json::answer(&state, asked).await,
        Profile::VectorDb => vector_db::answer(&state, asked).await,
    }
}

impl Asked<'_> {
    /// Media type without parameters, if there is a header.
    fn media_type(&self) -> Option<&str> {
        let value = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        Some(value.split(';').next().unwrap_or("").trim())
    }
}

impl State {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &str) -> Option<File> {
        self.files().get(path).cloned()
    }

    /// The bytes of a file; `None` if the path is unknown, its bytes are lost, or the fault `lag` hides it.
    async fn read(&self, path: &str) -> Option<(File, Bytes)> {
        let file = self.get(path)?;
        if self.faults.take_special("lag", "GET", &format!("/s5/fs/{path}")) {
            return None;
        }
        let bytes = self.engine.get(Hash::from_bytes(file.hash)).await?;
        Some((file, bytes))
    }

    async fn store(&self, path: &str, bytes: Bytes, json: bool) -> Result<s5_core::BlobId, String> {
        let id = self.engine.put(bytes).await?;
        let now = super::now_ms();
        let mut files = self.files();
        let created = files.get(path).map_or(now, |file| file.created);
        let file = File { hash: *id.hash.as_bytes(), size: id.size, json, created, modified: now };
        files.insert(path.to_string(), file);
        self.save(&files)?;
        Ok(id)
    }

    /// Forgets a path; `false` if it was unknown. The bytes go when no other path has them.
    async fn delete(&self, path: &str) -> Result<bool, String> {
        let hash = {
            let mut files = self.files();
            let Some(file) = files.remove(path) else { return Ok(false) };
            self.save(&files)?;
            let shared = files.values().any(|other| other.hash == file.hash);
            (!shared).then_some(file.hash)
        };
        if let Some(hash) = hash {
            self.engine.remove(Hash::from_bytes(hash)).await?;
        }
        Ok(true)
    }

    async fn lose(&self, path: &str) -> Result<bool, String> {
        let Some(file) = self.get(path) else { return Ok(false) };
        self.engine.remove(Hash::from_bytes(file.hash)).await?;
        Ok(true)
    }

    async fn wipe(&self) -> Result<(), String> {
        {
            let mut files = self.files();
            files.clear();
            self.save(&files)?;
        }
        self.engine.wipe().await
    }

    fn save(&self, files: &BTreeMap<String, File>) -> Result<(), String> {
        super::save(self.file.as_deref(), files).map_err(|error| error.to_string())
    }
}

fn reply(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(value)).into_response()
}

fn error(status: u16, text: &str) -> Response {
    reply(status, &json!({ "error": text }))
}

/// What Express answers where there is no route.
fn express(status: u16, text: &str) -> Response {
    let page = format!("<!DOCTYPE html>\n<html lang=\"en\">\n<body>\n<pre>{text}</pre>\n</body>\n</html>\n");
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// Media type by the extension of a name.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("cbor") => "application/cbor",
        Some("txt") => "text/plain",
        _ => "application/octet-stream",
    }
}

/// Percent-decoding as Express does it; what cannot be decoded stays.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = if *first == b'%' { tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok()) } else { None };
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
