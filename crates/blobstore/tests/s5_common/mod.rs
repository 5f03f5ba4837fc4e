//! Stores at emulators of S5.

#![allow(dead_code, reason = "each test file uses what it needs")]

use blobstore::Context;
use blobstore::http::{Network, check_base};
use blobstore::options::{S5Api, S5Options};
use blobstore::receipts::Receipts;
use blobstore::redact::{Redactor, Secret};
use blobstore::s5::path::PathStore;
use blobstore::s5::portal::PortalStore;
use emulators::s5::path::{Profile, Settings as PathSettings};
use emulators::s5::{PathService, Portal, portal};
use std::path::Path;
use std::time::Duration;

/// Seed phrase of the vectors.
pub const PHRASE: &str =
    "fault twenty against sodium wear outside tuck lecture report style nothing toward appear also love";

/// Options of a server at this URL, with receipts in this directory.
pub fn options(url: &str, api: S5Api, receipts: &Path) -> S5Options {
    let network = Network { timeout: Duration::from_secs(30), retries: 3, ..Network::default() };
    S5Options {
        server: "s5".to_owned(),
        url: check_base(url).expect("the URL of an emulator"),
        api,
        prefix: "home/hybridvec".to_owned(),
        token: None,
        seed: None,
        network,
        receipts: Receipts::new(receipts, &format!("s5 {url}")),
    }
}

pub fn path_service(profile: Profile) -> PathService {
    PathService::start(PathSettings { profile, ..PathSettings::default() }).expect("a path service")
}

pub fn path_store(service: &PathService, receipts: &Path) -> PathStore {
    PathStore::new(options(&service.url(), S5Api::Path, receipts)).expect("a store")
}

pub fn start(settings: portal::Settings) -> Portal {
    Portal::start(settings).expect("a portal")
}

/// Options of a portal, whose redirects are allowed.
pub fn portal_options(portal: &Portal, receipts: &Path) -> S5Options {
    let mut options = options(&portal.url(), S5Api::Portal, receipts);
    options.network.redirect_hosts = vec![portal.store_host()];
    options
}

pub fn portal_store(portal: &Portal, receipts: &Path) -> PortalStore {
    PortalStore::new(portal_options(portal, receipts)).expect("a store")
}

/// With an account by seed.
pub fn with_seed(mut options: S5Options, seed: &str) -> S5Options {
    options.seed = Some(Secret::new(seed));
    options.network.redactor = Redactor::new([Secret::new(seed)]);
    options
}

pub fn context() -> Context {
    Context::default()
}

/// Requests of this method on paths that contain `part`.
pub fn count(requests: &[emulators::Request], method: &str, part: &str) -> usize {
    requests.iter().filter(|request| request.method == method && request.path.contains(part)).count()
}
