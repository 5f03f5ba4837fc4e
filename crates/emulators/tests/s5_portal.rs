//! The emulated portal, route by route, as the reference describes the Dart node and Lume.

use data_encoding::BASE64URL_NOPAD;
use emulators::s5::Portal;
use emulators::s5::portal::{Ids, Profile, Settings};
use reqwest::blocking::{Client, Response, multipart};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

const HELLO_LEGACY: &str = "z4odpG7DykwpqRfgykXzSL5UEZQXMEHtjwGJQdg3FyS7KzcAE";
const HELLO_NEW: &str = "blobb5v2jqhx2ocqmrafy3dazqxihlw6l6z43tgs7tekolkxznobrvhrebm";
const HELLO_MULTIHASH: &str = "H9dJge-nCgyIC42MGYXQddvL9nm5ml-ZFOWq-WuDGp4k";
const HELLO_TUS_1F: &str = "hash SDlkSmdlLW5DZ3lJQzQyTUdZWFFkZHZMOW5tNW1sLVpGT1dxLVd1REdwNGs=";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../blobstore/tests/s5-vectors.json")).expect("JSON")
}

fn start(settings: Settings) -> Portal {
    Portal::start(settings).expect("a portal")
}

fn lume() -> Settings {
    Settings { profile: Profile::Lume, ids: Ids::Both, ..Settings::default() }
}

fn client() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

fn get(portal: &Portal, path: &str) -> Response {
    client().get(format!("{}{path}", portal.url())).send().unwrap()
}

fn post(portal: &Portal, path: &str, body: impl Into<reqwest::blocking::Body>) -> Response {
    client().post(format!("{}{path}", portal.url())).body(body).send().unwrap()
}

fn answer(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().unwrap())
}

#[test]
fn simple_uploads() {
    let portal = start(Settings::default());
    let expected = (200, json!({ "cid": HELLO_LEGACY }).to_string());
    assert_eq!(answer(post(&portal, "/s5/upload", "hello world")), expected);
    assert_eq!(answer(post(&portal, "/s5/upload", "hello world")), expected, "again changes nothing");
    let form = |kind: Option<&str>, bytes: &'static [u8]| {
        let part = multipart::Part::bytes(bytes).file_name("file");
        let part =
            kind.map_or(Ok(multipart::Part::bytes(bytes).file_name("file")), |kind| part.mime_str(kind)).unwrap();
        let form = multipart::Form::new().part("file", part);
        answer(client().post(format!("{}/s5/upload", portal.url())).multipart(form).send().unwrap())
    };
    assert_eq!(form(Some("application/octet-stream"), b"hello world"), expected);
    let binary: &[u8] = &[0xff, 0x00, 0xfe, 0x80];
    let stored = form(Some("application/octet-stream"), binary);
    for kind in [None, Some("text/plain"), Some("application/json")] {
        assert_ne!(form(kind, binary), stored, "{kind:?} is decoded as text");
    }
    let large = answer(post(&portal, "/s5/upload", vec![0; 34_000_001]));
    assert_eq!(large, (500, "This API only supports a maximum size of 34 MB".to_owned()));
    assert_eq!(post(&portal, "/s5/upload", vec![0; 34_000_000]).status(), 200);
}

#[test]
fn downloads_of_the_node() {
    let portal = start(Settings::default());
    post(&portal, "/s5/upload", "hello world");
    let redirect = get(&portal, &format!("/s5/blob/{HELLO_LEGACY}.bin"));
    assert_eq!(redirect.status(), 307);
    let place = redirect.headers()["location"].to_str().unwrap().to_owned();
    assert!(place.ends_with("/1/d7/lu/ta/pp/u4fazcalrwgbtboqoxn4x5tzxgnf7giu4wvps24ddkpci"), "{place}");
    assert!(place.contains(&portal.store_host()) && !place.starts_with(&portal.url()), "another server");
    assert_eq!(client().get(&place).send().unwrap().text().unwrap(), "hello world");
    let download = get(&portal, &format!("/s5/download/{HELLO_LEGACY}"));
    assert_eq!(download.headers()["etag"], format!("\"{HELLO_MULTIHASH}\"").as_str());
    assert_eq!(download.text().unwrap(), "hello world");
    let new = answer(get(&portal, &format!("/s5/download/{HELLO_NEW}")));
    assert_eq!(new, (500, "This is not a raw CID".to_owned()));
    let (status, text) = answer(get(&portal, &format!("/s5/blob/{HELLO_NEW}")));
    assert!(status == 500 && text.contains("Timed out after"), "new identifiers are misread: {text}");
    assert_eq!(answer(get(&portal, "/s5/nothing")), (404, "404 not found".to_owned()));
    assert_eq!(answer(get(&portal, "/s5/version")), (200, r#"{"node":"1.0.0-pre.1"}"#.to_owned()));
    let options = client().request(reqwest::Method::OPTIONS, format!("{}/s5/upload", portal.url())).send().unwrap();
    assert_eq!(options.status(), 204);
    let places = get(&portal, &format!("/s5/debug/storage_locations/{HELLO_MULTIHASH}?types=3,5")).text().unwrap();
    assert!(places.contains(&portal.store_host()), "{places}");
}

#[test]
fn downloads_of_lume() {
    let portal = start(lume());
    post(&portal, "/s5/upload", "hello world");
    for cid in [HELLO_LEGACY, HELLO_NEW, "zhJTVDhCHWPUyxGXJUzWswmsSe9q2arcU3dgyBhRP542wa9Bpb"] {
        assert_eq!(get(&portal, &format!("/s5/blob/{cid}")).status(), 302, "{cid}");
    }
    assert_eq!(get(&portal, &format!("/s5/download/{HELLO_MULTIHASH}")).text().unwrap(), "hello world");
    assert_eq!(get(&portal, "/s5/download/z4odvyg7EbrxBZ5mJjwSJEr47rdfL4jbVDrBfQnzzwNUup8s6").status(), 404);
    assert_eq!(post(&portal, &format!("/s5/pin/{HELLO_LEGACY}"), "").status(), 204);
    assert_eq!(get(&portal, "/s5/version").status(), 404);
}

#[test]
fn ranges_only_of_large_blobs() {
    let portal = start(Settings::default());
    let pattern: Vec<u8> = (0..262_145_u32).map(|i| (i % 251) as u8).collect();
    for (bytes, status) in [(&pattern[..262_144], 200), (&pattern[..], 206)] {
        let stored: Value = serde_json::from_str(&post(&portal, "/s5/upload", bytes.to_vec()).text().unwrap()).unwrap();
        let cid = stored["cid"].as_str().unwrap();
        let url = format!("{}/{cid}", portal.url());
        let part = client().get(&url).header("range", "bytes=250-253").send().unwrap();
        assert_eq!(part.status(), status);
        if status == 206 {
            assert_eq!(part.bytes().unwrap(), &bytes[250..254]);
            assert_eq!(client().get(&url).header("range", "bytes=9999999-").send().unwrap().status(), 416);
        }
    }
}

fn create(portal: &Portal, length: u64, metadata: &str) -> Response {
    let request = client().post(format!("{}/s5/upload/tus", portal.url())).header("tus-resumable", "1.0.0");
    request.header("upload-length", length).header("upload-metadata", metadata).send().unwrap()
}

fn patch(place: &str, offset: u64, body: &'static str) -> Response {
    let request = client().patch(place).header("tus-resumable", "1.0.0").header("upload-offset", offset);
    request.header("content-type", "application/offset+octet-stream").body(body).send().unwrap()
}

fn location(response: &Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

#[test]
fn pieces_at_the_node() {
    let portal = start(Settings::default());
    let created = create(&portal, 11, HELLO_TUS_1F);
    assert_eq!(created.status(), 201);
    let place = location(&created);
    let first = patch(&place, 0, "hello ");
    assert!(first.status() == 200 && first.headers().get("upload-offset").is_none(), "no offset before the end");
    assert_eq!(answer(patch(&place, 0, "hello ")), (500, "Invalid offset".to_owned()));
    let head = client().head(&place).send().unwrap();
    assert_eq!(
        (head.headers()["upload-offset"].as_bytes(), head.headers()["upload-length"].as_bytes()),
        (&b"6"[..], &b"11"[..])
    );
    let last = patch(&place, 6, "world");
    assert_eq!((last.status().as_u16(), last.headers()["upload-offset"].as_bytes()), (204, &b"11"[..]));
    let (status, text) = answer(create(&portal, 11, HELLO_TUS_1F));
    assert_eq!(status, 409);
    assert_eq!(text, format!("Raw file with CID {HELLO_LEGACY} has already been uploaded to this node"));
    let missing = client().post(format!("{}/s5/upload/tus", portal.url())).header("upload-length", 1).send().unwrap();
    assert_eq!(missing.status(), 500);
}

/// The multihash byte must be `1f` at the node, whatever the documents say; Lume looks at the hash alone.
#[test]
fn the_rule_of_1f() {
    let inner = format!("Ht{}", &HELLO_MULTIHASH[2..]);
    let metadata_1e = format!("hash {}", data_encoding::BASE64.encode(inner.as_bytes()));
    let portal = start(Settings::default());
    let place = location(&create(&portal, 11, &metadata_1e));
    assert_eq!(answer(patch(&place, 0, "hello world")), (500, "Invalid hash found".to_owned()));
    assert!(get(&portal, &format!("/s5/blob/{HELLO_LEGACY}")).status() == 500, "the data is gone");
    let place = location(&create(&portal, 11, HELLO_TUS_1F));
    assert_eq!(answer(patch(&place, 0, "hello_world")).0, 500, "other bytes");
    portal.forget_uploads();
    assert_eq!(patch(&place, 0, "hello world").status(), 404, "uploads do not outlive a restart");

    let portal = start(lume());
    let place = location(&create(&portal, 11, &metadata_1e));
    assert_eq!(patch(&place, 0, "hello world").status(), 204);
    assert_eq!(answer(create(&portal, 11, HELLO_TUS_1F)), (500, "file already exists".to_owned()));
}

#[test]
fn registry() {
    for (settings, stored) in [(Settings::default(), 204), (lume(), 200)] {
        let portal = start(settings);
        let entry = vectors()["registry_entry"]["json"].clone();
        let path = format!("/s5/registry?pk={}", entry["pk"].as_str().unwrap());
        assert_eq!(answer(get(&portal, &path)), (404, String::new()));
        assert_eq!(post(&portal, "/s5/registry", entry.to_string()).status(), stored);
        assert_eq!(serde_json::from_str::<Value>(&get(&portal, &path).text().unwrap()).unwrap(), entry);
        assert!(post(&portal, "/s5/registry", entry.to_string()).text().unwrap().contains("Revision number too low"));
        let mut forged = entry.clone();
        forged["revision"] = json!(2);
        assert!(post(&portal, "/s5/registry", forged.to_string()).text().unwrap().contains("Invalid signature found"));
        forged["revision"] = json!((1_u64 << 48) + 1);
        assert!(post(&portal, "/s5/registry", forged.to_string()).text().unwrap().contains("Invalid revision"));
        forged["data"] = json!(BASE64URL_NOPAD.encode(&[7; 65]));
        assert!(post(&portal, "/s5/registry", forged.to_string()).text().unwrap().contains("Data too long"));
        forged["pk"] = json!(BASE64URL_NOPAD.encode(&[7; 33]));
        assert!(post(&portal, "/s5/registry", forged.to_string()).text().unwrap().contains("Only ed25519 keys"));
    }
}

#[test]
fn accounts_on_and_off() {
    let portal = start(Settings { accounts: true, ..Settings::default() });
    let refused = (401, r#"{"error":"No auth token found"}"#.to_owned());
    assert_eq!(answer(post(&portal, "/s5/upload", "x")), refused);
    assert_eq!(answer(get(&portal, &format!("/s5/download/{HELLO_LEGACY}"))), refused);
    assert_eq!(get(&portal, &format!("/s5/blob/{HELLO_LEGACY}")).status(), 500, "anonymous, and not there");
    let wrong = client().post(format!("{}/s5/upload", portal.url())).bearer_auth("S5Ax").body("x").send().unwrap();
    assert_eq!(answer(wrong), (401, r#"{"error":"Invalid auth token"}"#.to_owned()));
    let vector = vectors()["account_challenge"][0].clone();
    let key = vector["pubKey"].as_str().unwrap();
    let challenge: Value =
        serde_json::from_str(&get(&portal, &format!("/s5/account/register?pubKey={key}")).text().unwrap()).unwrap();
    assert_eq!(BASE64URL_NOPAD.decode(challenge["challenge"].as_str().unwrap().as_bytes()).unwrap().len(), 32);
    let stale =
        json!({ "pubKey": key, "response": vector["response"], "signature": vector["signature"], "label": "app" });
    assert_eq!(answer(post(&portal, "/s5/account/register", stale.to_string())), (500, "Invalid challenge".to_owned()));
    let off = start(Settings::default());
    assert_eq!(get(&off, &format!("/s5/account/login?pubKey={key}")).status(), 404);
}
