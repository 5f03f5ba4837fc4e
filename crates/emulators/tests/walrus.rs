//! The Walrus emulator over real sockets: what section 7 of the reference asks of it.

use data_encoding::BASE64URL_NOPAD;
use emulators::Settings;
use emulators::faults::{Fault, Kind};
use emulators::walrus::{Config, JwtRules, Walrus};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::blocking::multipart::{Form, Part};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};
use walrus::{BlobId, Patch, Shards, blob_id, quilt};

fn config() -> Config {
    Config { shards: Shards::new(10).unwrap(), blob_body: 4096, quilt_body: 8192, ..Config::default() }
}

fn start(config: Config) -> Walrus {
    Walrus::start(&Settings::default(), config).unwrap()
}

fn put(walrus: &Walrus, query: &str, bytes: &[u8]) -> Response {
    Client::new().put(format!("{}/v1/blobs{query}", walrus.url())).body(bytes.to_vec()).send().unwrap()
}

fn put_quilt(walrus: &Walrus, query: &str, parts: &[(&str, &[u8])]) -> Response {
    let form = parts.iter().fold(Form::new(), |form, (name, data)| {
        form.part((*name).to_string(), Part::bytes(data.to_vec()).file_name("x"))
    });
    Client::new().put(format!("{}/v1/quilts{query}", walrus.url())).multipart(form).send().unwrap()
}

fn get(walrus: &Walrus, path: &str) -> Response {
    Client::new().get(format!("{}{path}", walrus.url())).send().unwrap()
}

fn reason(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().unwrap();
    assert_eq!(body["error"]["code"], status);
    let details = body["error"]["details"].as_array().unwrap();
    let info = details.iter().find(|detail| detail["@type"] == "ErrorInfo").unwrap();
    (status, info["reason"].as_str().unwrap().to_string())
}

fn text(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().unwrap())
}

#[test]
fn a_blob_has_its_genuine_id_and_price() {
    let walrus = start(Config { shards: Shards::NETWORK, ..Config::default() });
    let answer: Value = put(&walrus, "?epochs=5", b"some other string").json().unwrap();
    let created = &answer["newlyCreated"];
    assert_eq!(created["blobObject"]["blobId"], "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUk");
    assert_eq!(created["blobObject"]["size"], 17);
    assert_eq!(created["blobObject"]["certifiedEpoch"], Value::Null);
    assert_eq!(created["blobObject"]["storage"]["endEpoch"], 39);
    assert_eq!(created["blobObject"]["storage"]["storageSize"], 66_034_000);
    assert_eq!(created["blobObject"]["deletable"], true);
    assert_eq!(
        created["resourceOperation"],
        json!({"registerFromScratch":{"encodedLength":66_034_000,"epochsAhead":5}})
    );
    assert_eq!(created["cost"], 32_760_000);
    let read = get(&walrus, "/v1/blobs/M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUk");
    assert_eq!(read.headers()["etag"], "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUk");
    assert!(read.headers().get("content-type").is_none());
    assert_eq!(read.text().unwrap(), "some other string");
}

#[test]
fn who_stores_a_deletable_blob_again_pays_again() {
    let walrus = start(config());
    let variant = |query: &str| -> Value { put(&walrus, query, b"x").json().unwrap() };
    for _ in 0..2 {
        assert!(variant("?epochs=5").get("newlyCreated").is_some());
    }
    assert_eq!(walrus.ledger().len(), 2);
    let answer = variant("?epochs=5&permanent=true");
    assert!(answer.get("newlyCreated").is_some(), "a deletable one does not stand for a permanent one");
    let answer = variant("?epochs=5&permanent=true");
    assert_eq!(answer["alreadyCertified"]["endEpoch"], 39);
    assert_eq!(answer["alreadyCertified"]["event"]["eventSeq"], "0");
    assert!(variant("?epochs=6&permanent=true").get("newlyCreated").is_some(), "it would not last as long");
    assert!(variant("?epochs=5&permanent=true&force=true").get("newlyCreated").is_some());
    assert_eq!(walrus.ledger().len(), 5);
}

#[test]
fn a_blob_ends_with_its_epochs() {
    let walrus = start(config());
    put(&walrus, "?epochs=2", b"x");
    let id = blob_id(Shards::new(10).unwrap(), b"x").unwrap();
    walrus.set_epoch(35);
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).status(), 200);
    walrus.set_epoch(36);
    assert_eq!(reason(get(&walrus, &format!("/v1/blobs/{id}"))), (404, "BLOB_NOT_FOUND".to_string()));
}

#[test]
fn queries_are_strict() {
    let walrus = start(config());
    for query in ["?cb=1", "?epochs=max", "?permanent=1", "?epochs=1&epochs=1"] {
        let (status, text) = text(put(&walrus, query, b"x"));
        assert_eq!(status, 400, "{query}");
        assert!(text.starts_with("Failed to deserialize query string: "), "{text}");
    }
    let both = put(&walrus, "?permanent=true&deletable=true", b"x");
    assert_eq!(reason(both), (400, "INVALID_BLOB_PERSISTENCE".to_string()));
    assert_eq!(put(&walrus, "?epochs=54", b"x").status(), 500);
    assert_eq!(walrus.ledger(), []);
    let id = BlobId([0; 32]);
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}?cb=1")).status(), 400);
    let both = get(&walrus, &format!("/v1/blobs/{id}?skip_consistency_check=true&strict_consistency_check=true"));
    assert_eq!(reason(both), (400, "INVALID_CONSISTENCY_CHECK".to_string()));
    let (status, text) = text(get(&walrus, "/v1/blobs/nonsense"));
    assert_eq!(status, 400);
    assert!(text.starts_with("Invalid URL: Cannot parse"), "{text}");
}

#[test]
fn limits_of_bodies() {
    let walrus = start(config());
    let (status, text) = text(put(&walrus, "", &[0; 4097]));
    assert_eq!((status, text.as_str()), (413, "Failed to buffer the request body: length limit exceeded"));
    let answer = put_quilt(&walrus, "", &[("a", &[0; 9000])]);
    assert_eq!(reason(answer), (400, "MALFORMED_REQUEST".to_string()));
    assert_eq!(walrus.ledger(), []);
}

#[test]
fn methods_and_paths() {
    let walrus = start(config());
    let response = Client::new().delete(format!("{}/v1/blobs", walrus.url())).send().unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "PUT");
    assert_eq!(text(get(&walrus, "/v2/blobs")), (404, String::new()));
    assert_eq!(text(get(&walrus, "/status")), (200, "OK".to_string()));
}

#[test]
fn quilts_and_their_patches() {
    let walrus = start(config());
    let patches: [(&str, &[u8]); 3] =
        [("b-2", b"two"), ("_metadata", br#"[{"identifier":"b-2","tags":{"rows":42}}]"#), ("a-1", &[7; 300])];
    let answer: Value = put_quilt(&walrus, "?epochs=3", &patches).json().unwrap();
    let tags = quilt::Tags::from([("rows".to_string(), "42".to_string())]);
    let none = quilt::Tags::new();
    let made = quilt::encode(
        Shards::new(10).unwrap(),
        &[
            Patch { identifier: "b-2", tags: &tags, data: b"two" },
            Patch { identifier: "a-1", tags: &none, data: &[7; 300] },
        ],
    )
    .unwrap();
    let id = blob_id(Shards::new(10).unwrap(), &made.bytes).unwrap();
    let object = &answer["blobStoreResult"]["newlyCreated"]["blobObject"];
    assert_eq!(object["blobId"], id.to_string());
    assert_eq!(object["size"], made.bytes.len());
    let stored = answer["storedQuiltBlobs"].as_array().unwrap();
    assert_eq!(stored[0]["identifier"], "a-1", "sorted");
    assert_eq!(stored[0]["quiltPatchId"], made.patches[0].id(id).to_string());
    assert_eq!(stored[1]["range"], json!([made.patches[1].start, made.patches[1].end]));
    let read = get(&walrus, &format!("/v1/blobs/by-quilt-id/{id}/b-2"));
    assert_eq!(read.headers()["etag"], id.to_string(), "all patches share it");
    assert_eq!(read.headers()["x-quilt-patch-identifier"], "b-2");
    assert!(read.headers().get("rows").is_none());
    assert_eq!(read.text().unwrap(), "two");
    let patch = stored[0]["quiltPatchId"].as_str().unwrap();
    assert_eq!(get(&walrus, &format!("/v1/blobs/by-quilt-patch-id/{patch}")).bytes().unwrap(), [7; 300].as_slice());
    let list: Value = get(&walrus, &format!("/v1/quilts/{id}/patches")).json().unwrap();
    assert_eq!(list[1], json!({"identifier":"b-2","patch_id":made.patches[1].id(id).to_string(),"tags":{"rows":"42"}}));
    let missing = get(&walrus, &format!("/v1/blobs/by-quilt-id/{id}/c"));
    assert_eq!(reason(missing), (404, "QUILT_PATCH_NOT_FOUND".to_string()));
    assert_eq!(get(&walrus, &format!("/v1/blobs/by-quilt-id/{id}/")).status(), 404);
}

#[test]
fn quilts_that_are_refused() {
    let walrus = start(config());
    let wrong = |parts: &[(&str, &[u8])]| reason(put_quilt(&walrus, "", parts)).0;
    assert_eq!(wrong(&[("a", b"1"), ("a", b"2")]), 400, "twice");
    assert_eq!(wrong(&[("a b", b"1")]), 400, "the name goes out as name*, which servers ignore");
    assert_eq!(wrong(&[("a", b"1"), ("_metadata", br#"[{"identifier":"a"},{"identifier":"a"}]"#)]), 400);
    assert_eq!(wrong(&[("_metadata", b"[]")]), 400, "no patch");
    let seven: Vec<String> = (0..7).map(|i| format!("p{i}")).collect();
    let seven: Vec<(&str, &[u8])> = seven.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    assert_eq!(wrong(&seven), 400, "10 shards have room for 6 patches");
    assert_eq!(walrus.ledger(), []);
    assert_eq!(put_quilt(&walrus, "", &seven[..6]).status(), 200);
}

#[test]
fn ranges_and_head() {
    let walrus = start(config());
    put(&walrus, "", b"0123456789");
    let id = blob_id(Shards::new(10).unwrap(), b"0123456789").unwrap();
    let url = format!("{}/v1/blobs/{id}", walrus.url());
    let range = |text: &str| Client::new().get(&url).header("range", text).send().unwrap();
    let part = range("bytes=2-4");
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(part.text().unwrap(), "234");
    for wrong in ["bytes=4-", "bytes=-4", "bytes=1-2,3-4", "bytes=4-2", "bytes=4-10"] {
        assert_eq!(reason(range(wrong)), (416, "INVALID_BYTE_RANGE".to_string()), "{wrong}");
    }
    let part = get(&walrus, &format!("/v1/blobs/{id}/byte-range?start=2&length=3"));
    assert_eq!((part.status().as_u16(), part.headers()["etag"].to_str().unwrap()), (200, &*format!("{id}-2-3")));
    assert_eq!(part.text().unwrap(), "234");
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}/byte-range?start=2&length=0")).status(), 400);
    let head = Client::new().head(&url).send().unwrap();
    assert_eq!(head.headers()["content-length"], "10");
}

fn token(secret: &[u8], claims: &Value) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#),
        BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
}

#[test]
fn tokens_are_used_once() {
    let rules = JwtRules { secret: b"secret".to_vec(), expiring_sec: 60, verify_upload: true };
    let walrus = start(Config { jwt: Some(rules), ..config() });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |jti: &str| json!({"iat": now, "exp": now + 60, "jti": jti, "max_size": 10, "max_epochs": 5});
    let send = |token: &str, epochs: u32, bytes: &[u8]| {
        let url = format!("{}/v1/blobs?epochs={epochs}", walrus.url());
        Client::new().put(url).bearer_auth(token).body(bytes.to_vec()).send().unwrap()
    };
    let (status, _) = text(put(&walrus, "", b"x"));
    assert_eq!(status, 400, "no token");
    assert_eq!(reason(send(&token(b"other", &claims("1")), 1, b"x")), (401, "INVALID_SIGNATURE".to_string()));
    let good = token(b"secret", &claims("1"));
    assert_eq!(reason(send(&good, 6, b"x")), (400, "INVALID_EPOCHS".to_string()));
    assert_eq!(reason(send(&good, 1, &[0; 11])), (400, "INVALID_SIZE".to_string()));
    assert_eq!(send(&good, 1, b"x").status(), 200, "claims that did not fit have not used it up");
    assert_eq!(reason(send(&good, 1, b"x")), (429, "TOKEN_ALREADY_USED".to_string()));
    let old = json!({"iat": now - 100, "exp": now - 40, "jti": "2"});
    assert_eq!(reason(send(&token(b"secret", &old), 1, b"x")), (504, "EXPIRED_SIGNATURE".to_string()));
    let long = json!({"iat": now, "exp": now + 61, "jti": "3"});
    assert_eq!(reason(send(&token(b"secret", &long), 1, b"x")), (400, "INVALID_EXPIRATION".to_string()));
    // A store that fails has used its token.
    walrus.faults().add(Fault::on("/v1/blobs", Kind::special("error-200")));
    let burnt = token(b"secret", &claims("4"));
    assert!(send(&burnt, 1, b"y").json::<Value>().unwrap().get("error").is_some());
    assert_eq!(send(&burnt, 1, b"y").status(), 429);
    assert_eq!(walrus.ledger().len(), 1);
}

#[test]
fn faults_over_the_wire() {
    let walrus = start(config());
    let order = |fault: Value| {
        let url = format!("{}/_emulator/faults", walrus.url());
        assert_eq!(Client::new().post(url).body(fault.to_string()).send().unwrap().status(), 200);
    };
    let send = |bytes: &[u8]| {
        Client::new().put(format!("{}/v1/blobs?permanent=true", walrus.url())).body(bytes.to_vec()).send()
    };
    order(json!({"method":"PUT","kind":"reset"}));
    assert!(send(b"x").is_err());
    order(json!([{"kind":{"reset_upload":{"after_bytes":100}}}]));
    assert!(send(&[1; 4000]).is_err());
    assert_eq!(walrus.ledger(), [], "nothing arrived");
    order(json!({"kind":"lost"}));
    assert!(send(b"x").is_err());
    assert_eq!(walrus.ledger().len(), 1, "it was stored all the same");
    assert!(send(b"x").unwrap().json::<Value>().unwrap().get("alreadyCertified").is_some());
    let id = blob_id(Shards::new(10).unwrap(), b"x").unwrap();
    order(json!({"method":"GET","kind":{"flip":{"byte":0}}}));
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).text().unwrap(), "y");
    order(json!({"method":"GET","kind":{"truncate":{"keep":0}}}));
    let cut = Client::new().get(format!("{}/v1/blobs/{id}", walrus.url())).send().and_then(Response::text);
    assert!(cut.is_err());
    order(
        json!({"method":"GET","kind":{"answer":{"status":502,"content_type":"text/html","body":"<html>","headers":[]}}}),
    );
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).status(), 502);
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).text().unwrap(), "x");
    order(json!({"kind":{"special":{"name":"late"}}}));
    assert_eq!(reason(send(b"later").unwrap()), (504, "INSUFFICIENT_CONFIRMATIONS".to_string()));
}

#[test]
fn a_stale_404_of_a_delivery_network() {
    let walrus = start(Config { stale_404: 2, ..config() });
    let id = blob_id(Shards::new(10).unwrap(), b"x").unwrap();
    let status = |query: &str| get(&walrus, &format!("/v1/blobs/{id}{query}")).status().as_u16();
    assert_eq!(status(""), 404);
    put(&walrus, "", b"x");
    assert_eq!(status("?skip_consistency_check=false"), 200, "another address");
    assert_eq!([status(""), status(""), status("")], [404, 404, 200]);
}

#[test]
fn the_state_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { port: 0, state: Some(directory.path().to_path_buf()) };
    let id = blob_id(Shards::new(10).unwrap(), b"x").unwrap();
    let ledger = {
        let walrus = Walrus::start(&settings, config()).unwrap();
        put(&walrus, "?permanent=true&epochs=3", b"x");
        walrus.set_epoch(35);
        // Of a blob that it never had.
        walrus.mark_invalid(blob_id(Shards::new(10).unwrap(), b"y").unwrap());
        walrus.ledger()
    };
    let walrus = Walrus::start(&settings, config()).unwrap();
    assert_eq!(walrus.ledger(), ledger);
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).text().unwrap(), "x");
    let epoch: Value = get(&walrus, "/_emulator/epoch").json().unwrap();
    assert_eq!(epoch, json!({"epoch": 35}));
    let object = &ledger[0].object;
    assert_eq!(get(&walrus, &format!("/v1/blobs/by-object-id/{object}")).text().unwrap(), "x");
    walrus.forget(id);
    assert_eq!(get(&walrus, &format!("/v1/blobs/{id}")).status(), 404);
}

#[test]
fn the_program_prints_its_address() {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_emulators"))
        .args(["walrus", "--port", "0", "--shards", "10"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = Client::new().get(format!("{}/status", line.trim())).send().map(|answer| answer.status().as_u16());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(status.unwrap(), 200);
}
