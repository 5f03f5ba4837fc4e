//! A portal: the HTTP interface of the Dart node, or of its relative in Go ("Lume").
//!
//! As the reference describes them (`lib/http_api/http_api.dart`; Lume `internal/api`): exceptions become answers 500 with
//! their text, unknown blobs are searched for and end in 500 "Timed out", new identifiers are misread by the Dart node,
//! and blobs are handed out by redirects to a second server, the one of the store.

mod accounts;
mod blobs;
mod registry;
mod saved;
mod tus;

use super::engine::{Engine, wait};
use super::id;
use crate::faults::Faults;
use crate::{Options, Request, Server, serve};
use axum::Router;
use axum::extract::{Path, State as Given};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use s5_core::Hash;
use saved::Saved;
use serde_json::json;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which portal it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    #[default]
    Dart,
    Lume,
}

/// Which identifiers the routes with an identifier in them understand. The others name a blob that nobody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    #[default]
    Legacy,
    New,
    Both,
}

/// Who may register an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    #[default]
    Open,
    /// Who sends this token.
    Invited(String),
    Closed,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Port on loopback; 0 takes a free one. The server of the store takes a free one always.
    pub port: u16,
    /// Directory in which the state outlives the process.
    pub state: Option<PathBuf>,
    pub profile: Profile,
    pub ids: Ids,
    /// Uploads, downloads, pins and deletes need an account.
    pub accounts: bool,
    pub registration: Registration,
    /// The route that deletes is enabled.
    pub delete: bool,
    /// Largest body of a simple upload, in millions of bytes.
    pub upload_limit_mb: usize,
    /// Bytes that an account may store before it is restricted.
    pub storage_limit: u64,
    /// How long an unknown blob is searched for.
    pub search: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            state: None,
            profile: Profile::Dart,
            ids: Ids::Legacy,
            accounts: false,
            registration: Registration::Open,
            delete: true,
            upload_limit_mb: 34,
            storage_limit: 10_000_000_000,
            search: Duration::from_millis(20),
        }
    }
}

/// A running portal, with the server of its store.
pub struct Portal {
    server: Server,
    state: Arc<State>,
}

struct State {
    settings: Settings,
    engine: Arc<Engine>,
    faults: Arc<Faults>,
    /// The server of the store.
    store: Server,
    saved: Mutex<Saved>,
    /// Lost on restart, as in the Dart node.
    uploads: Mutex<HashMap<String, tus::Session>>,
}

impl Portal {
    /// # Errors
    /// When a port cannot be bound or the saved state cannot be read.
    pub fn start(settings: Settings) -> io::Result<Self> {
        if let Some(directory) = &settings.state {
            std::fs::create_dir_all(directory)?;
        }
        let engine = Arc::new(Engine::open(settings.state.as_deref())?);
        let faults = Arc::new(Faults::default());
        let state = Arc::new(State {
            saved: Mutex::new(Saved::open(settings.state.as_deref())?),
            store: serve(blobs::store_router(Arc::clone(&engine)), Arc::default(), 0)?,
            uploads: Mutex::default(),
            faults: Arc::clone(&faults),
            engine,
            settings,
        });
        let server = serve(router(Arc::clone(&state)), faults, state.settings.port)?;
        Ok(Self { server, state })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// `host:port` of the store, where redirects lead.
    pub fn store_host(&self) -> String {
        self.state.store.address().to_string()
    }

    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    pub fn store_faults(&self) -> &Faults {
        self.state.store.faults()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    pub fn store_requests(&self) -> Vec<Request> {
        self.state.store.requests()
    }

    /// Loses the bytes of a blob.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn lose(&self, hash: [u8; 32]) -> io::Result<()> {
        wait(self.state.engine.remove(Hash::from_bytes(hash)))?.map_err(io::Error::other)
    }

    /// Whether the bytes of a blob are there.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn holds(&self, hash: [u8; 32]) -> io::Result<bool> {
        wait(self.state.engine.contains(Hash::from_bytes(hash)))
    }

    /// Whether any account pins a blob.
    pub fn pins(&self, hash: [u8; 32]) -> bool {
        self.state.saved().pins.contains_key(&Hash::from_bytes(hash).to_hex())
    }

    /// Forgets everything, as a restart with loss of data would.
    ///
    /// # Errors
    /// Those of the store's directory.
    pub fn wipe(&self) -> io::Result<()> {
        wait(self.state.wipe())?.map_err(io::Error::other)
    }

    /// Makes every token invalid.
    pub fn forget_tokens(&self) {
        self.state.change(|saved| saved.tokens.clear());
    }

    /// Loses the uploads under way, as a restart does.
    pub fn forget_uploads(&self) {
        self.state.uploads().clear();
    }

    /// Waits until the process is told to end.
    pub fn wait(self) {
        self.server.wait();
    }
}

/// Starts a portal from the command line: `--portal dart|lume`, `--accounts on`, `--ids legacy|new|both`.
///
/// # Errors
/// An option with an unknown value, and as [`Portal::start`].
pub fn start(settings: &crate::Settings, options: &Options) -> io::Result<Server> {
    let unknown = |name: &str, value: &str| io::Error::other(format!("--{name}: \"{value}\" is unknown"));
    let profile = match options.text("portal").unwrap_or("dart") {
        "dart" => Profile::Dart,
        "lume" => Profile::Lume,
        other => return Err(unknown("portal", other)),
    };
    let ids = match options.text("ids").unwrap_or("legacy") {
        "legacy" => Ids::Legacy,
        "new" => Ids::New,
        "both" => Ids::Both,
        other => return Err(unknown("ids", other)),
    };
    let accounts = match options.text("accounts").unwrap_or("off") {
        "on" => true,
        "off" => false,
        other => return Err(unknown("accounts", other)),
    };
    let settings =
        Settings { port: settings.port, state: settings.state.clone(), profile, ids, accounts, ..Settings::default() };
    Ok(Portal::start(settings)?.server)
}

/// An answer that is no success.
struct Failure(Box<Response>);

type Answer = Result<Response, Failure>;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl Failure {
    fn new(status: u16, response: impl IntoResponse) -> Self {
        let mut response = response.into_response();
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(Box::new(response))
    }
}

impl State {
    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<String, tus::Session>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is saved, and saves it.
    fn change<R>(&self, change: impl FnOnce(&mut Saved) -> R) -> R {
        let mut saved = self.saved();
        let result = change(&mut saved);
        saved.write();
        result
    }

    fn lume(&self) -> bool {
        self.settings.profile == Profile::Lume
    }

    /// An exception of the Dart node (500 with the text), or what Lume answers in its place.
    fn fail(&self, lume: u16, text: impl Into<String>) -> Failure {
        let text = text.into();
        if self.lume() { Failure::new(lume, axum::Json(json!({ "error": text }))) } else { Failure::new(500, text) }
    }

    async fn wipe(&self) -> Result<(), String> {
        self.engine.wipe().await?;
        self.uploads().clear();
        self.change(Saved::clear);
        Ok(())
    }
}

fn router(state: Arc<State>) -> Router {
    let accounts = if state.settings.accounts { accounts::router() } else { Router::new() };
    Router::new()
        .route("/", get(async || "S5 Node is running! :) v1.0.0-pre.1"))
        .route("/s5/version", get(version))
        .route("/s5/upload", post(blobs::upload))
        .route("/s5/upload/tus", post(tus::create))
        .route("/s5/upload/tus/{id}", get(not_found).head(tus::head).patch(tus::patch))
        .route("/s5/blob/{cid}", get(blobs::redirect))
        .route("/s5/download/{cid}", get(blobs::download))
        .route("/s5/delete/{cid}", delete(blobs::delete))
        .route("/s5/pin/{cid}", post(blobs::pin))
        .route("/s5/metadata/{cid}", get(blobs::metadata))
        .route("/s5/debug/storage_locations/{hash}", get(blobs::locations))
        .route("/s5/registry", get(registry::get).post(registry::set))
        .route("/_emulator/wipe", post(wipe))
        .route("/_emulator/lose/{cid}", post(lose))
        .route("/{cid}", get(blobs::serve))
        .merge(accounts)
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(axum::middleware::from_fn(cors))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(state)
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "404 not found")
}

async fn version(Given(state): Given<Arc<State>>) -> Answer {
    if state.lume() {
        return Ok(not_found().await.into_response());
    }
    Ok(axum::Json(json!({ "node": "1.0.0-pre.1" })).into_response())
}

async fn wipe(Given(state): Given<Arc<State>>) -> Answer {
    state.wipe().await.map_err(|error| Failure::new(500, error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn lose(Given(state): Given<Arc<State>>, Path(cid): Path<String>) -> Answer {
    let given = id::read(&cid).ok_or_else(|| Failure::new(400, "no identifier"))?;
    state.engine.remove(given.hash).await.map_err(|error| Failure::new(500, error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn cors(request: axum::extract::Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
