//! A Walrus daemon: publisher and aggregator on one port, over a network that consists of a table in memory.
//!
//! Blob ids, quilts, patch ids, sizes and prices are genuine. Epochs pass when told to. Every payment is written to a
//! ledger, so that a test can prove that nothing was paid twice. Besides the routes of a real daemon:
//!
//! | route | what it does |
//! |---|---|
//! | `GET /_emulator/ledger` | payments, oldest first |
//! | `GET /_emulator/epoch`, `POST` `{"epoch":40}` | reads or sets the current epoch |
//! | `POST /_emulator/forget` `{"blobId":".."}` | the network no longer knows the blob |
//! | `POST /_emulator/invalid` `{"blobId":".."}` | the network has marked the blob as inconsistent |
//!
//! Special faults (see [`crate::faults::Kind::Special`]), all on stores: `error-200` (an error in an answer of status 200,
//! nothing stored), `marked-invalid`, `no-patches` (stores a quilt and lists none of its patches), `wrong-id` (stores, and
//! answers the id of something else), `deletable` (stores as deletable what was asked to be permanent), `short` (stores for
//! one epoch whatever was asked), `late` (answers 504 at once and stores a quarter of a second later).

mod aggregator;
mod jwt;
mod publisher;
mod reply;
mod state;

pub use jwt::JwtRules;
pub use state::{Payment, Stored};

use crate::faults::Faults;
use crate::{Options, Server, Settings, serve};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use serde::Deserialize;
use state::Network;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use walrus::{BlobId, Prices, Shards};

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct Config {
    pub shards: Shards,
    pub prices: Prices,
    /// Most bytes of the body of a store of a blob.
    pub blob_body: usize,
    /// Most bytes of the body of a store of a quilt.
    pub quilt_body: usize,
    /// The epoch at the first start.
    pub epoch: u32,
    /// Tells columns of patches, as servers do since v1.35.
    pub ranges: bool,
    pub jwt: Option<JwtRules>,
    /// A content delivery network in front of the aggregator repeats a 404 for so many more requests of the same address.
    pub stale_404: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: Shards::NETWORK,
            prices: Prices::default(),
            blob_body: 10 << 20,
            quilt_body: 100 << 20,
            epoch: 34,
            ranges: true,
            jwt: None,
            stale_404: 0,
        }
    }
}

impl Config {
    /// Reads `--shards`, `--epoch`, `--blob-body`, `--quilt-body`, `--jwt-secret`, `--jwt-expiring-sec`,
    /// `--jwt-verify-upload true`, `--stale-404`.
    ///
    /// # Errors
    /// When a value is not a number, or the shards are not possible.
    pub fn from_options(options: &Options) -> io::Result<Self> {
        let default = Self::default();
        let jwt = options.text("jwt-secret").map(|secret| -> io::Result<JwtRules> {
            Ok(JwtRules {
                secret: secret.as_bytes().to_vec(),
                expiring_sec: options.number("jwt-expiring-sec", 0)?,
                verify_upload: options.text("jwt-verify-upload") == Some("true"),
            })
        });
        Ok(Self {
            shards: Shards::new(options.number("shards", 1000)?).map_err(io::Error::other)?,
            blob_body: options.number("blob-body", default.blob_body)?,
            quilt_body: options.number("quilt-body", default.quilt_body)?,
            epoch: options.number("epoch", default.epoch)?,
            stale_404: options.number("stale-404", 0)?,
            jwt: jwt.transpose()?,
            ..default
        })
    }
}

/// A running daemon.
pub struct Walrus {
    server: Server,
    daemon: Arc<Daemon>,
}

/// What all requests share.
struct Daemon {
    config: Config,
    faults: Arc<Faults>,
    network: Mutex<Network>,
    /// Addresses that the content delivery network answers with 404, and how often still.
    missing: Mutex<BTreeMap<String, u32>>,
}

impl Daemon {
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Walrus {
    /// # Errors
    /// When the port or the state directory cannot be used.
    pub fn start(settings: &Settings, config: Config) -> io::Result<Self> {
        let network = Network::open(settings.state.as_deref(), config.epoch)?;
        let faults = Arc::new(Faults::default());
        let daemon = Arc::new(Daemon {
            config,
            faults: Arc::clone(&faults),
            network: Mutex::new(network),
            missing: Mutex::default(),
        });
        let server = serve(router(&daemon), faults, settings.port)?;
        Ok(Self { server, daemon })
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn into_server(self) -> Server {
        self.server
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// Payments so far, oldest first.
    pub fn ledger(&self) -> Vec<Payment> {
        self.daemon.network().ledger().to_vec()
    }

    pub fn set_epoch(&self, epoch: u32) {
        self.daemon.network().set_epoch(epoch);
    }

    /// The network no longer knows the blob, as after a wipe.
    pub fn forget(&self, blob: BlobId) {
        self.daemon.network().forget(blob);
    }

    pub fn mark_invalid(&self, blob: BlobId) {
        self.daemon.network().mark_invalid(blob);
    }

    pub fn blobs(&self) -> Vec<BlobId> {
        self.daemon.network().blobs()
    }
}

/// For the command line.
///
/// # Errors
/// As [`Walrus::start`], and when an option is wrong.
pub fn start(settings: &Settings, options: &Options) -> io::Result<Server> {
    Ok(Walrus::start(settings, Config::from_options(options)?)?.into_server())
}

fn router(daemon: &Arc<Daemon>) -> Router {
    use aggregator as a;
    use axum::extract::DefaultBodyLimit;
    let blobs = put(publisher::store_blob).layer(DefaultBodyLimit::max(daemon.config.blob_body));
    let quilts = put(publisher::store_quilt).layer(DefaultBodyLimit::max(daemon.config.quilt_body));
    let reads = Router::new()
        .route("/v1/blobs/{id}", get(a::blob))
        .route("/v1/blobs/{id}/byte-range", get(a::byte_range))
        .route("/v1/blobs/by-object-id/{id}", get(a::by_object))
        .route("/v1/blobs/by-quilt-patch-id/{id}", get(a::by_patch))
        .route("/v1/blobs/by-quilt-id/{id}/{identifier}", get(a::by_identifier))
        .route("/v1/quilts/{id}/patches", get(a::patches))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(daemon), a::delivery));
    Router::new()
        .route("/v1/blobs", blobs)
        .route("/v1/quilts", quilts)
        .merge(reads)
        .route("/status", get(|| async { "OK" }))
        .route("/v1/api", get(|| async { axum::response::Html("<!DOCTYPE html><title>API</title>") }))
        .route("/_emulator/ledger", get(ledger))
        .route("/_emulator/epoch", get(epoch).post(set_epoch))
        .route("/_emulator/forget", post(forget))
        .route("/_emulator/invalid", post(invalid))
        .with_state(Arc::clone(daemon))
}

async fn ledger(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Payment>> {
    Json(daemon.network().ledger().to_vec())
}

#[derive(Deserialize)]
struct Epoch {
    epoch: u32,
}

async fn epoch(State(daemon): State<Arc<Daemon>>) -> Response {
    let epoch = daemon.network().epoch();
    Json(serde_json::json!({ "epoch": epoch })).into_response()
}

async fn set_epoch(State(daemon): State<Arc<Daemon>>, Json(wanted): Json<Epoch>) -> Response {
    daemon.network().set_epoch(wanted.epoch);
    Json(serde_json::json!({ "epoch": wanted.epoch })).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    blob_id: String,
}

async fn forget(State(daemon): State<Arc<Daemon>>, Json(named): Json<Named>) -> Response {
    match named.blob_id.parse() {
        Ok(blob) => daemon.network().forget(blob),
        Err(error) => return (axum::http::StatusCode::BAD_REQUEST, format!("{error}")).into_response(),
    }
    "{}".into_response()
}

async fn invalid(State(daemon): State<Arc<Daemon>>, Json(named): Json<Named>) -> Response {
    match named.blob_id.parse() {
        Ok(blob) => daemon.network().mark_invalid(blob),
        Err(error) => return (axum::http::StatusCode::BAD_REQUEST, format!("{error}")).into_response(),
    }
    "{}".into_response()
}
