//! No secret reaches an error, a health report or a receipt, whatever a server repeats of what it was sent.

mod contract;
mod s5_common;

use blobstore::options::{S5Api, S5Options};
use blobstore::redact::{Redactor, Secret};
use blobstore::s5::cid::{Base, BlobId};
use blobstore::s5::{open, phrase};
use blobstore::{Expected, Store};
use contract::{object, upload};
use emulators::faults::{Fault, Faults, Kind};
use emulators::s5::path::Profile;
use emulators::s5::portal::Settings;
use s5_common::{PHRASE, context, options, path_service, portal_options, start};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

const TOKEN: &str = "S5AtHeToKeNoFtHeUsErMaPpInG0123456789abcdef";
/// Got at a login, so that the options do not know it. Of no form that is known.
const LOGIN: &str = "given-at-login-4711-xyz";
/// How it begins, should a cut leave the rest away.
const LOGIN_BEGIN: &str = "given-at";
/// As s5.js puts it into the text of an exception.
const WRITE_KEY: &str = "uRtXkSecretWriteKeyOfAll_0123456789";
const OTHER: &str = "S5AaNoThErToKeNoFsOmEbOdYeLsE0123456789abc";

/// Says all secrets, in the ways in which servers do; `padding` moves them to where long texts are cut.
fn chatter(login: bool, padding: usize) -> String {
    let login = if login { LOGIN } else { "" };
    let padding = "x".repeat(padding);
    format!(
        "{padding} {login} failed: Directory \"fs5://write:{WRITE_KEY}@uKey\" does not exist; Authorization: Bearer {TOKEN}; \
         /s5/upload/tus/x?auth_token={OTHER}; s5-auth-token={OTHER}; {{\"authToken\":\"{OTHER}\"}} {login} \
         {PHRASE} http://me:{OTHER}@example.org/x {TOKEN}"
    )
}

fn clean(what: &str, text: &impl Debug) {
    let text = format!("{text:?}");
    for secret in [TOKEN, LOGIN, LOGIN_BEGIN, WRITE_KEY, OTHER, "S5AtHe", "uRtXk", "against sodium", "//me"] {
        assert!(!text.contains(secret), "{what}: \"{secret}\" in {text}");
    }
}

/// Does everything, and looks at all texts.
fn everything(what: &str, store: &dyn Store, folder: &Path) {
    let one = object(2000);
    let id = BlobId::of(&one.bytes);
    let hex = &blake3::Hash::from_bytes(id.hash).to_hex()[..32];
    let expected = Expected { hash: id.hash, length: id.size };
    let mut failed = 0;
    let mut look = |step: &str, error: Option<blobstore::Error>| {
        if let Some(error) = error {
            failed += 1;
            clean(&format!("{what}: {step}"), &(error.to_string(), &error));
        }
    };
    look("upload", upload(store, &[one], &context()).err());
    for locator in [format!("objects/{}/segment-{hex}.bin", &hex[..2]), id.text(Base::Base32)] {
        look("fetch", store.fetch(&locator, None, &expected, &context()).err());
        look("fetch_manifest", store.fetch_manifest(&locator, 1 << 20, &context()).err());
        look("remove", store.remove(&locator, &context()).err());
    }
    for pasted in [TOKEN, PHRASE, "fs5://write:uRtXkSecretWriteKeyOfAll_0123456789@x"] {
        look("pasted", store.fetch_manifest(pasted, 1 << 20, &context()).err());
        look("pasted", store.remove(pasted, &context()).err());
    }
    look("manifests", store.manifests(&context()).err());
    match store.check(&context()) {
        Ok(health) => clean(what, &health),
        Err(error) => look("check", Some(error)),
    }
    assert!(failed > 5, "{what}: only {failed} failures");
    for entry in walk(folder) {
        clean(what, &String::from_utf8_lossy(&std::fs::read(entry).unwrap()));
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_file()).collect()
}

fn with_secrets(mut options: S5Options, login: bool) -> S5Options {
    if login {
        options.seed = Some(Secret::new(PHRASE));
    } else {
        options.token = Some(Secret::new(TOKEN));
    }
    options.network.redactor = Redactor::new([Secret::new(TOKEN), Secret::new(PHRASE)]);
    options.network.retries = 0;
    options
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Json,
    Text(usize),
}

/// Shapes of answers. With the paddings, a text of 300 bytes is cut within a secret.
const SHAPES: [Shape; 6] =
    [Shape::Json, Shape::Text(0), Shape::Text(285), Shape::Text(278), Shape::Text(200), Shape::Text(170)];

/// Orders the chatter as the answer to every request.
fn order(faults: &Faults, status: u16, shape: Shape, login: bool) {
    let text = |padding| chatter(login, padding);
    let kind = match shape {
        Shape::Json => Kind::json(status, &serde_json::json!({ "error": text(0), "message": text(0) }).to_string()),
        Shape::Text(padding) => Kind::text(status, &text(padding)),
    };
    faults.add(Fault::on("/", kind).always());
}

const STATUSES: [u16; 12] = [200, 201, 204, 307, 400, 401, 403, 404, 409, 413, 500, 503];

#[test]
fn path_services() {
    for shape in SHAPES {
        for status in STATUSES {
            let service = path_service(Profile::Bridge);
            let folder = tempfile::tempdir().unwrap();
            order(service.faults(), status, shape, false);
            let store = open(with_secrets(options(&service.url(), S5Api::Path, folder.path()), false)).unwrap();
            everything(&format!("path {status} {shape:?}"), &*store, folder.path());
        }
    }
}

#[test]
fn path_service_as_it_is() {
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    service.faults().add(Fault::on("", Kind::special("secret")).always());
    let store = open(with_secrets(options(&service.url(), S5Api::Path, folder.path()), false)).unwrap();
    everything("the bridge's own secrets", &*store, folder.path());
}

#[test]
fn portals() {
    for shape in SHAPES {
        for status in STATUSES {
            for login in [false, true] {
                let portal = start(Settings::default());
                let folder = tempfile::tempdir().unwrap();
                if login {
                    let challenge = format!(r#"{{"challenge":"{}"}}"#, "q6ur".repeat(10) + "q6s");
                    let token = format!(r#"{{"authToken":"{LOGIN}"}}"#);
                    portal.faults().add(Fault::on("/s5/account", Kind::json(200, &challenge)).method("GET").always());
                    portal.faults().add(Fault::on("/s5/account", Kind::json(200, &token)).method("POST").always());
                }
                order(portal.faults(), status, shape, login);
                let store = open(with_secrets(portal_options(&portal, folder.path()), login)).unwrap();
                everything(&format!("portal {status} {shape:?} {login}"), &*store, folder.path());
            }
        }
    }
}

#[test]
fn redirects_and_places_of_uploads() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    for place in ["http://me:pw-of-me@192.0.2.1/", &format!("http://192.0.2.1/?auth_token={OTHER}"), "http://\u{7f}"] {
        let mut kind = Kind::text(307, &chatter(false, 0));
        if let Kind::Answer { headers, .. } = &mut kind {
            headers.push(("location".to_owned(), place.to_owned()));
        }
        portal.faults().clear();
        portal.faults().add(Fault::on("/", kind).always());
        let store = open(with_secrets(portal_options(&portal, folder.path()), false)).unwrap();
        everything(place, &*store, folder.path());
    }
}

#[test]
fn nothing_secret_has_a_printed_form() {
    let folder = tempfile::tempdir().unwrap();
    let options = with_secrets(options("http://127.0.0.1:1", S5Api::Portal, folder.path()), true);
    clean("options", &options);
    let bad = phrase::key("against sodium", "h").unwrap_err();
    clean("phrase", &bad);
    let _: Arc<dyn Store> = open(options).unwrap();
}
