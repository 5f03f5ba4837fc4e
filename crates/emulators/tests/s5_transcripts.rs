//! Path services against what the real programs answered (`s5-vectors.json`, `transcripts`).

use emulators::s5::PathService;
use emulators::s5::path::{Profile, Settings};
use reqwest::Method;
use reqwest::blocking::{Client, Response};
use serde_json::Value;

fn start(profile: Profile) -> PathService {
    PathService::start(Settings { profile, ..Settings::default() }).expect("a path service")
}

/// Sends the request of an entry. Its first two words are method and path; what follows in brackets says how it
/// deviates.
fn send(service: &PathService, entry: &Value) -> Response {
    let line = entry["request"].as_str().expect("a request");
    let mut words = line.split(' ');
    let method: Method = words.next().and_then(|word| word.parse().ok()).expect("a method");
    let path = words.next().expect("a path");
    let mut request = Client::new().request(method.clone(), format!("{}{path}", service.url()));
    for (name, value) in entry["request_headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().expect("a header"));
    }
    let body = match &entry["request_body"] {
        Value::Null if line.contains("over 50 MiB") => vec![0; (50 << 20) + 1],
        Value::Null if line.contains("JSON over 100 kB") => format!("\"{}\"", "x".repeat(110_000)).into_bytes(),
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        value => value.to_string().into_bytes(),
    };
    if line.contains("JSON over") {
        request = request.header("content-type", "application/json");
    } else if entry["request_headers"].is_null() && method == Method::PUT && !line.contains("no Content-Type") {
        request = request.header("content-type", "application/octet-stream");
    }
    if method == Method::PUT {
        request = request.body(body);
    }
    request.send().expect("an answer")
}

/// Whether a value is as expected. `*` stands for anything; keys with `_` are notes.
fn fits(expected: &Value, given: &Value) -> bool {
    match (expected, given) {
        (Value::String(text), _) if text.starts_with('*') => true,
        (Value::Object(expected), Value::Object(given)) => {
            let keys = expected.keys().filter(|key| !key.starts_with('_'));
            keys.clone().count() == given.len()
                && keys.into_iter().all(|key| given.get(key).is_some_and(|value| fits(&expected[key], value)))
        }
        (Value::Array(expected), Value::Array(given)) => {
            expected.len() == given.len() && expected.iter().zip(given).all(|(expected, given)| fits(expected, given))
        }
        _ => expected == given,
    }
}

fn replay(profile: Profile, name: &str) {
    let vectors: Value = serde_json::from_str(include_str!("../../blobstore/tests/s5-vectors.json")).expect("JSON");
    let service = start(profile);
    let entries = vectors["transcripts"][name].as_array().expect("a transcript");
    assert!(entries.len() > 10);
    for entry in entries {
        let line = &entry["request"];
        let response = send(&service, entry);
        assert_eq!(u64::from(response.status().as_u16()), entry["status"].as_u64().unwrap(), "{line}");
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = response.bytes().expect("a body");
        match &entry["response_body"] {
            Value::Null => assert!(body.is_empty() || line.as_str().unwrap().starts_with("HEAD"), "{line}"),
            Value::String(text) if text == "*HTML" => {
                assert!(header("content-type").starts_with("text/html"), "{line}")
            }
            Value::String(text) if text.contains("(header ") => {
                assert_eq!(body, text.split(" (header").next().unwrap(), "{line}");
                assert_eq!(header("x-s5-path"), "home/seg/a.bin");
            }
            Value::String(text) if text.starts_with("empty; headers") => {
                assert_eq!((header("tus-resumable").as_str(), header("upload-offset").as_str()), ("1.0.0", "0"));
                assert!(header("location").starts_with(&format!("{}/s5/upload/tus/tus-", service.url())), "{line}");
            }
            Value::String(text) => assert_eq!(body, text.as_str(), "{line}"),
            expected => {
                let given: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{line}: {body:?}"));
                assert!(fits(expected, &given), "{line}\nexpected {expected}\ngiven    {given}");
            }
        }
    }
}

#[test]
fn emulated_test_server_of_s5js() {
    replay(Profile::Mock, "M_test_server");
}

#[test]
fn emulated_server_ts() {
    replay(Profile::Json, "J_server_ts");
}

#[test]
fn emulated_bridge() {
    replay(Profile::Bridge, "B_bridge");
}

/// The bridge stores an empty file and reports success when it is sent JSON, and rewrites what it takes for text.
#[test]
fn emulated_bridge_damages_json_and_text() {
    let service = start(Profile::Bridge);
    let client = Client::new();
    let url = |name: &str| format!("{}/s5/fs/home/{name}", service.url());
    let put = |name: &str, kind: &str, body: &'static str| {
        let answer = client.put(url(name)).header("content-type", kind).body(body).send().unwrap();
        assert_eq!(answer.status(), 201, "{name}");
    };
    let get = |name: &str| client.get(url(name)).send().unwrap().bytes().unwrap();
    put("a.json", "application/json", "{\"a\": 1}");
    assert!(get("a.json").is_empty());
    put("b.json", "application/octet-stream", "{\"a\":   1}");
    assert_eq!(get("b.json"), "{\"a\":1}");
    put("c.bin", "application/octet-stream", "{\"a\":   1}");
    assert_eq!(get("c.bin"), "{\"a\":   1}");
}

/// A directory with 1000 entries is lost, and only that one.
#[test]
fn emulated_bridge_loses_large_directories() {
    let service = start(Profile::Bridge);
    let client = Client::new();
    let url = |name: &str| format!("{}/s5/fs/home/{name}", service.url());
    let put = |name: &str| {
        let request = client.put(url(name)).header("content-type", "application/octet-stream").body(name.to_owned());
        assert_eq!(request.send().unwrap().status(), 201);
    };
    let there = |name: &str| client.get(url(name)).send().unwrap().status() == 200;
    put("other/a.bin");
    for n in 0..999 {
        put(&format!("large/{n}.bin"));
    }
    assert!(there("large/0.bin"));
    put("large/999.bin");
    assert!(!there("large/0.bin") && !there("large/999.bin") && there("other/a.bin"));
}

#[test]
fn emulated_bridge_tells_secrets() {
    let service = start(Profile::Bridge);
    let text = reqwest::blocking::get(format!("{}/s5/fs/home/none/x.bin", service.url())).unwrap().text().unwrap();
    assert!(text.contains("fs5://write:u"), "{text}");
}

#[test]
fn emulated_bridge_takes_pieces() {
    let service = start(Profile::Bridge);
    let client = Client::new();
    let created = client.post(format!("{}/s5/upload/tus", service.url())).header("upload-length", "11").send().unwrap();
    let place = created.headers()["location"].to_str().unwrap().to_owned();
    let piece = |offset: &str, body: &'static str| {
        client.patch(&place).header("upload-offset", offset).body(body).send().unwrap()
    };
    assert_eq!(piece("0", "hello ").status(), 204);
    assert_eq!(piece("0", "hello ").status(), 409);
    assert_eq!(client.head(&place).send().unwrap().headers()["upload-offset"], "6");
    let last = piece("6", "world");
    let cid = last.headers()["x-s5-cid"].to_str().unwrap();
    assert_eq!(cid, "blobb5v2jqhx2ocqmrafy3dazqxihlw6l6z43tgs7tekolkxznobrvhrebm");
    assert_eq!(
        reqwest::blocking::get(format!("{}/s5/blob/{cid}", service.url())).unwrap().text().unwrap(),
        "hello world"
    );
    let multihash = "H9dJge-nCgyIC42MGYXQddvL9nm5ml-ZFOWq-WuDGp4k";
    let places: Value = serde_json::from_str(
        &reqwest::blocking::get(format!("{}/api/locations/{multihash}", service.url())).unwrap().text().unwrap(),
    )
    .unwrap();
    let place = places["locations"][0]["parts"][0].as_str().unwrap();
    assert_eq!(reqwest::blocking::get(place).unwrap().text().unwrap(), "hello world");
}

#[test]
fn routes_of_every_emulator() {
    let service = start(Profile::Mock);
    let client = Client::new();
    let url = |path: &str| format!("{}{path}", service.url());
    client.put(url("/s5/fs/home/a.bin")).header("content-type", "application/octet-stream").body("x").send().unwrap();
    assert_eq!(client.post(url("/_emulator/lose/home/a.bin")).send().unwrap().status(), 204);
    assert_eq!(client.get(url("/s5/fs/home/a.bin")).send().unwrap().status(), 404);
    assert!(client.get(url("/s5/fs/home/")).send().unwrap().text().unwrap().contains("a.bin"), "it is still listed");
    assert_eq!(client.post(url("/_emulator/wipe")).send().unwrap().status(), 204);
    assert!(service.paths().is_empty() && service.blobs().unwrap() == 0);
}
