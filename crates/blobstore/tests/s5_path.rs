//! Path services, as four dialects speak it (emulated; the blob engine is the one of S5).

mod contract;
mod s5_common;

use blobstore::options::{self, Environment};
use blobstore::s5::cid::BlobId;
use blobstore::{Error, Object, Store};
use contract::{contract, expected, object, upload, verify};
use emulators::faults::{Fault, Kind};
use emulators::s5::PathService;
use emulators::s5::path::{Profile, Settings};
use s5_common::{context, count, path_service, path_store};
use std::path::Path;
use std::sync::Arc;

fn open(service: &PathService, receipts: &Path) -> Arc<dyn Store> {
    Arc::new(path_store(service, receipts))
}

fn contract_of(profile: Profile) {
    let service = path_service(profile);
    let folder = tempfile::tempdir().unwrap();
    contract(&|| open(&service, folder.path()));
}

#[test]
fn contract_emulated_test_server() {
    contract_of(Profile::Mock);
}

#[test]
fn contract_emulated_bridge() {
    contract_of(Profile::Bridge);
}

#[test]
fn contract_emulated_vector_db() {
    contract_of(Profile::VectorDb);
}

#[test]
fn opened_by_options() {
    let service = path_service(Profile::Bridge);
    let data = tempfile::tempdir().unwrap();
    let text = |text: &str| text.to_owned();
    let server = [(text("type"), text("s5")), (text("url"), service.url()), (text("prefix"), text("archive/of/mine"))];
    let mapping = [(text("token"), text("some-token"))];
    let store = || options::open("s5", &server, &mapping, &Environment::new(data.path())).unwrap();
    let objects = [object(10), object(20)];
    let receipt = upload(&*store(), &objects, &context()).unwrap();
    verify(&store, &receipt, &objects);
    assert!(service.paths().iter().all(|path| path.starts_with("archive/of/mine/")), "{:?}", service.paths());
    let receipts = std::fs::read_dir(data.path().join("pg_hybrid/receipts")).unwrap().count();
    assert!(receipts > 0, "receipts are in their usual place");
}

/// The dialect with two segments and JSON cannot hold an archive; that is said, and nothing is lost on the way.
#[test]
fn emulated_json_dialect_is_refused() {
    let service = path_service(Profile::Json);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&service, folder.path());
    let error = upload(&*store, &[object(10)], &context()).unwrap_err();
    assert!(matches!(&error, Error::Refused { status: Some(404), message } if message.contains("depth")), "{error:?}");
    assert!(service.paths().is_empty());
}

/// Bytes that come back as `{"type":"Buffer",..}` are no bytes, whatever server says so.
#[test]
fn json_buffers_are_refused() {
    let service = path_service(Profile::Mock);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&service, folder.path());
    let receipt = upload(&*store, &[object(3)], &context()).unwrap();
    let one = &receipt.objects[0];
    service.replace(&format!("home/hybridvec/{}", one.locator), br#"{"type":"Buffer","data":[1,2,3]}"#).unwrap();
    let error = store.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
    assert!(matches!(&error, Error::Protocol { message } if message.contains("JSON")), "{error:?}");
}

#[test]
fn what_is_sent_is_what_all_servers_understand() {
    for profile in [Profile::Mock, Profile::Bridge, Profile::VectorDb] {
        let service = path_service(profile);
        let folder = tempfile::tempdir().unwrap();
        let objects: Vec<Object> = (0..20).map(|n| object(100 + n)).collect();
        upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
        for path in service.paths() {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(&segments[..2], ["home", "hybridvec"]);
            let (kind, rest) = (segments[2], &segments[3..]);
            let digits = rest[1].rsplit_once('-').unwrap().1;
            assert!(rest.len() == 2 && digits.starts_with(rest[0]), "{path}");
            let width = if kind == "objects" { 2 } else { 1 };
            assert!(rest[0].len() == width && (rest[1].ends_with(".bin") || rest[1].ends_with(".cbor")), "{path}");
        }
        assert_eq!(service.paths().len(), 21);
    }
}

/// The bridge loses a directory at 1000 entries; 1300 objects and as many names survive it.
#[test]
fn emulated_bridge_does_not_lose_large_archives() {
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    contract::many(&|| open(&service, folder.path()), 1300);
    assert_eq!(service.paths().len(), 1300 + 1);
}

#[test]
fn faults_of_a_moment_are_survived() {
    let moments: Vec<(&str, Vec<Kind>)> = vec![
        ("PUT", vec![Kind::Delay { ms: 100 }]),
        ("PUT", vec![Kind::Reset]),
        ("PUT", vec![Kind::ResetUpload { after_bytes: 1000 }]),
        ("PUT", vec![Kind::CutUpload { after_bytes: 1000 }]),
        ("PUT", vec![Kind::Lost]),
        ("PUT", vec![Kind::text(502, "bad gateway"), Kind::text(503, "later"), Kind::html(504)]),
        ("PUT", vec![Kind::busy(0), Kind::text(500, "oops")]),
        ("PUT", vec![Kind::Truncate { keep: 3 }, Kind::Flip { byte: 70 }]),
        ("HEAD", vec![Kind::Reset, Kind::text(503, "")]),
        ("GET", vec![Kind::Truncate { keep: 3000 }]),
        ("GET", vec![Kind::Shorten { keep: 3000 }]),
        ("GET", vec![Kind::Flip { byte: 2222 }]),
        ("GET", vec![Kind::Reset, Kind::text(502, "bad gateway"), Kind::busy(0)]),
        ("GET", vec![Kind::Trickle { piece: 1000, pause_ms: 1 }]),
    ];
    for profile in [Profile::Mock, Profile::Bridge] {
        for (method, kinds) in &moments {
            let service = path_service(profile);
            let folder = tempfile::tempdir().unwrap();
            for kind in kinds {
                service.faults().add(Fault::on("/s5/fs/home/hybridvec/objects", kind.clone()).method(method));
            }
            let objects = [object(5000), object(6000)];
            let store = open(&service, folder.path());
            let receipt = upload(&*store, &objects, &context());
            let receipt = receipt.unwrap_or_else(|error| panic!("{profile:?} {method} {kinds:?}: {error}"));
            verify(&|| open(&service, folder.path()), &receipt, &objects);
        }
    }
}

#[test]
fn a_404_of_the_bridge_is_doubted() {
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&service, folder.path());
    let receipt = upload(&*store, &[object(500)], &context()).unwrap();
    let one = &receipt.objects[0];
    service.faults().add(Fault::on("", Kind::special("lag")).times(2));
    assert!(store.fetch(&one.locator, None, &expected(one), &context()).is_ok(), "the third answer counts");
    service.faults().add(Fault::on("", Kind::special("lag")).always());
    let error = store.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
}

#[test]
fn a_404_of_the_test_server_is_believed() {
    let service = path_service(Profile::Mock);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&service, folder.path());
    let receipt = upload(&*store, &[object(500)], &context()).unwrap();
    let one = &receipt.objects[0];
    let before = service.requests().len();
    service.faults().add(Fault::on("", Kind::special("lag")));
    assert!(matches!(store.fetch(&one.locator, None, &expected(one), &context()), Err(Error::NotFound { .. })));
    assert_eq!(service.requests().len(), before + 1);
}

/// Damage that lasts is told, names the object, and the next upload repairs it.
#[test]
fn lost_and_damaged_data_is_found_and_sent_again() {
    for profile in [Profile::Mock, Profile::Bridge, Profile::VectorDb] {
        let service = path_service(profile);
        let folder = tempfile::tempdir().unwrap();
        let store = open(&service, folder.path());
        let objects: Vec<Object> = (0..6).map(|n| object(1000 + n)).collect();
        let receipt = upload(&*store, &objects, &context()).unwrap();
        let path = |n: usize| format!("home/hybridvec/{}", receipt.objects[n].locator);
        assert!(service.lose(&path(1)).unwrap());
        let mut flipped = objects[2].bytes.clone();
        flipped[500] ^= 1;
        assert!(service.replace(&path(2), &flipped).unwrap());
        assert!(service.replace(&path(3), &objects[4].bytes).unwrap(), "another object in its place");
        assert!(service.replace(&path(5), b"").unwrap());
        let fetch = |n: usize| {
            let one = &receipt.objects[n];
            store.fetch(&one.locator, None, &expected(one), &context())
        };
        assert!(matches!(fetch(1), Err(Error::NotFound { object }) if object.contains(&receipt.objects[1].name)));
        for n in [2, 3, 5] {
            let wrong = fetch(n).unwrap_err();
            let named = matches!(&wrong, Error::Corrupt { object, .. } if object.contains(&receipt.objects[n].name));
            assert!(named, "{profile:?} {n}: {wrong:?}");
        }
        let again = upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
        let reused: Vec<bool> = again.objects.iter().map(|placed| placed.reused).collect();
        assert_eq!(reused, [true, false, false, false, true, false], "{profile:?}");
        verify(&|| open(&service, folder.path()), &again, &objects);
    }
}

#[test]
fn a_service_that_lost_everything_is_filled_again() {
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<Object> = (0..6).map(|n| object(1000 + n)).collect();
    upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
    service.wipe().unwrap();
    let again = upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
    assert!(again.objects.iter().all(|placed| !placed.reused));
    verify(&|| open(&service, folder.path()), &again, &objects);
}

/// Another database server, without receipts: what is there is read and compared, not sent.
#[test]
fn without_receipts_what_is_there_is_compared() {
    let service = path_service(Profile::Bridge);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = [object(1000), object(2000)];
    let receipt = upload(&*open(&service, one.path()), &objects, &context()).unwrap();
    let mut flipped = objects[1].bytes.clone();
    flipped[7] ^= 1;
    service.replace(&format!("home/hybridvec/{}", receipt.objects[1].locator), &flipped).unwrap();
    let again = upload(&*open(&service, two.path()), &objects, &context()).unwrap();
    assert_eq!([again.objects[0].reused, again.objects[1].reused], [true, false]);
    verify(&|| open(&service, two.path()), &again, &objects);
}

#[test]
fn a_wrong_cid_is_not_believed() {
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    let objects = [object(1000)];
    service.faults().add(Fault::on("", Kind::special("wrong-cid")));
    let receipt = upload(&*open(&service, folder.path()), &objects, &context()).expect("sent once more");
    verify(&|| open(&service, folder.path()), &receipt, &objects);
    service.faults().add(Fault::on("", Kind::special("wrong-cid")).always());
    let error = upload(&*open(&service, folder.path()), &[object(1000)], &context()).unwrap_err();
    assert!(matches!(&error, Error::Protocol { message } if message.contains("other bytes")), "{error:?}");
}

/// A file that was stored empty, with a success: found by its identifier, or by reading it back where there is none.
#[test]
fn data_lost_behind_a_success_is_found() {
    for special in [vec!["empty-file"], vec!["empty-file", "no-cid"]] {
        let service = path_service(Profile::Bridge);
        let folder = tempfile::tempdir().unwrap();
        let objects = [object(1000)];
        for name in &special {
            service.faults().add(Fault::on("", Kind::special(name)));
        }
        let receipt = upload(&*open(&service, folder.path()), &objects, &context()).expect("sent once more");
        verify(&|| open(&service, folder.path()), &receipt, &objects);
        for name in &special {
            service.faults().add(Fault::on("", Kind::special(name)).always());
        }
        let error = upload(&*open(&service, folder.path()), &[object(999)], &context()).unwrap_err();
        assert!(matches!(&error, Error::Protocol { .. }), "{error:?}");
    }
}

#[test]
fn the_identifier_in_the_answer_saves_reading_back() {
    let (bridge, mock) = (path_service(Profile::Bridge), path_service(Profile::Mock));
    let folder = tempfile::tempdir().unwrap();
    for (service, reads) in [(&bridge, 0), (&mock, 1)] {
        let one = object(1000);
        let store = open(service, folder.path());
        let mut begun = store.upload(&context()).unwrap();
        begun.put(one.clone()).unwrap();
        begun.finish(&mut |placed| contract::manifest(placed)).unwrap();
        assert_eq!(count(&service.requests(), "GET", "/objects/"), reads);
        assert_eq!(count(&service.requests(), "PUT", "/objects/"), 1);
        assert!(BlobId::of(&one.bytes).size == 1000);
    }
}

#[test]
fn refusals_are_not_repeated() {
    for status in [400, 401, 403, 413, 415] {
        let service = path_service(Profile::Mock);
        let folder = tempfile::tempdir().unwrap();
        service.faults().add(Fault::on("", Kind::json(status, r#"{"error":"no"}"#)).method("PUT").always());
        let error = upload(&*open(&service, folder.path()), &[object(10)], &context()).unwrap_err();
        assert!(matches!(error, Error::Refused { status: Some(given), .. } if given == status), "{status}: {error:?}");
        assert_eq!(count(&service.requests(), "PUT", ""), 1, "{status}");
    }
    let service = path_service(Profile::Bridge);
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::json(500, r#"{"error":"Upload failed","message":"InvalidPathException"}"#);
    service.faults().add(Fault::on("", kind).method("PUT").always());
    let error = upload(&*open(&service, folder.path()), &[object(10)], &context()).unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("home/")), "{error:?}");
    assert_eq!(count(&service.requests(), "PUT", ""), 1);
}

#[test]
fn interrupted_and_lasting_failures_leave_what_was_stored() {
    let service = path_service(Profile::Mock);
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<Object> = (0..8).map(|n| object(3000 + n)).collect();
    service.faults().add(Fault::on("", Kind::text(503, "down")).method("PUT").after(5).times(4));
    let error = upload(&*open(&service, folder.path()), &objects, &context()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let again = upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
    let reused = again.objects.iter().filter(|placed| placed.reused).count();
    assert_eq!(reused, 5, "what was stored before is not sent again");
    verify(&|| open(&service, folder.path()), &again, &objects);
}

#[test]
fn the_state_outlives_the_emulator() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = || Settings { state: Some(state.path().to_owned()), ..Settings::default() };
    let objects = [object(100), object(200)];
    let service = PathService::start(settings()).unwrap();
    let receipt = upload(&*open(&service, folder.path()), &objects, &context()).unwrap();
    drop(service);
    let service = PathService::start(settings()).unwrap();
    verify(&|| open(&service, folder.path()), &receipt, &objects);
    assert_eq!(open(&service, folder.path()).manifests(&context()).unwrap().len(), 1);
}

#[test]
fn a_manifest_may_be_named_by_its_name_alone() {
    let service = path_service(Profile::Mock);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&service, folder.path());
    let receipt = upload(&*store, &[object(10)], &context()).unwrap();
    assert!(store.fetch_manifest(&receipt.manifest.name, 1 << 20, &context()).is_ok());
    let path = format!("home/hybridvec/{}", receipt.manifest.locator);
    service.replace(&path, b"another manifest, once valid").unwrap();
    let error = store.fetch_manifest(&receipt.manifest.name, 1 << 20, &context()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { object, .. } if object.contains("manifest-")), "{error:?}");
}
