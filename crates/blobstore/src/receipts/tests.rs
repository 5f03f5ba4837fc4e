use super::*;
use std::sync::atomic::Ordering;

fn content(text: &str) -> Content {
    let hash = blake3::hash(text.as_bytes()).into();
    Content { name: format!("{text}.bin"), hash, length: text.len() as u64, locator: format!("./{text}.bin") }
}

fn intent(container: &str, contents: &[&str]) -> Intent {
    let contents = contents.iter().map(|text| content(text)).collect();
    Intent { container: container.to_owned(), contents, details: BTreeMap::new() }
}

fn outcome(end_epoch: u64) -> Outcome {
    Outcome { end_epoch: Some(end_epoch), coins: Some(7), ..Outcome::default() }
}

fn begin(receipts: &Receipts, container: &str, contents: &[&str]) {
    receipts.begin(&intent(container, contents), &Context::default()).unwrap();
}

fn containers(receipts: &Receipts) -> Vec<String> {
    receipts.all().unwrap().into_iter().map(|entry| entry.intent.container).collect()
}

fn file_of(directory: &Path) -> std::path::PathBuf {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "journal")).unwrap()
}

#[test]
fn tells_what_was_stored_and_what_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("pg_hybrid/receipts");
    let (one, two) = (Receipts::new(&directory, "walrus x"), Receipts::new(&directory, "walrus x"));
    assert!(one.all().unwrap().is_empty() && one.find(&content("a").hash).unwrap().is_empty());
    assert!(!directory.exists(), "asking makes nothing");

    begin(&one, "first", &["a", "b"]);
    assert_eq!(two.pending().unwrap(), [intent("first", &["a", "b"])], "another session sees it");
    assert!(two.find(&content("a").hash).unwrap().is_empty(), "what is announced is not stored");
    two.settle("first", &outcome(30)).unwrap();
    assert!(one.pending().unwrap().is_empty());

    begin(&one, "second", &["b", "c"]);
    let locators = BTreeMap::from([("b.bin".to_owned(), "second/b".to_owned())]);
    one.settle("second", &Outcome { locators, ..outcome(31) }).unwrap();
    let found = two.find(&content("b").hash).unwrap();
    let places: Vec<(&str, &str)> = found.iter().map(|found| (&*found.container, &*found.content.locator)).collect();
    assert_eq!(places, [("second", "second/b"), ("first", "./b.bin")], "the latest first, with its final place");

    begin(&two, "first", &["a", "b"]);
    let entry = one.get("first").unwrap().unwrap();
    assert!(entry.pending && entry.outcome == Some(outcome(30)), "being stored again, it is still stored");
    one.forget("second", &Context::default()).unwrap();
    assert!(two.find(&content("c").hash).unwrap().is_empty());
    assert_eq!(containers(&two), ["first"]);
    two.settle("never announced", &outcome(1)).unwrap();
    assert_eq!(containers(&one), ["first"]);
    assert!(Receipts::new(&directory, "walrus y").all().unwrap().is_empty(), "another place has another journal");

    use std::os::unix::fs::PermissionsExt;
    for (path, mode) in [(&directory, 0o700), (&file_of(&directory), 0o600)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

/// A crash leaves any beginning of what was being written.
#[test]
fn a_torn_tail_is_cut_and_the_rest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Receipts::new(folder.path(), "s5 x");
    let mut ends = Vec::new();
    for container in ["one", "two", "three"] {
        begin(&whole, container, &["a", "b"]);
        ends.push(std::fs::metadata(file_of(folder.path())).unwrap().len());
    }
    let bytes = std::fs::read(file_of(folder.path())).unwrap();
    for length in 0..=bytes.len() {
        let torn = tempfile::tempdir().unwrap();
        let path = torn.path().join(file_of(folder.path()).file_name().unwrap());
        std::fs::write(&path, &bytes[..length]).unwrap();
        let count = ends.iter().filter(|end| **end <= length as u64).count();
        let receipts = Receipts::new(torn.path(), "s5 x");
        assert_eq!(containers(&receipts).len(), count, "cut at {length}");
        if length % 7 == 0 {
            begin(&receipts, "new", &["c"]);
            let mut expected: Vec<&str> = ["one", "two", "three"][..count].to_vec();
            expected.push("new");
            assert_eq!(containers(&receipts), expected, "cut at {length}, then written to");
            assert_eq!(containers(&Receipts::new(torn.path(), "s5 x")), expected, "and read by another");
        }
    }
}

#[test]
fn what_is_cut_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    begin(&Receipts::new(folder.path(), "s5 x"), "one", &["a"]);
    let path = file_of(folder.path());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], &[b'r'; 10_000]].concat()).unwrap();
    begin(&Receipts::new(folder.path(), "s5 x"), "two", &["a"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * whole.len() as u64 - first_record(&whole));
}

/// Bytes up to the end of the first record, which names the place.
fn first_record(journal: &[u8]) -> u64 {
    let length = u32::from_le_bytes(journal[26..30].try_into().unwrap());
    22 + 16 + u64::from(length)
}

#[test]
fn damage_costs_the_records_it_hits() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Receipts::new(folder.path(), "s5 x");
    for number in 0..5 {
        begin(&whole, &format!("container {number}"), &["a"]);
    }
    let path = file_of(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        // A new file: what a session has read already it does not read again.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &damaged).unwrap();
        match Receipts::new(folder.path(), "s5 x").all() {
            Ok(entries) => assert!(at >= 22 && entries.len() >= 4, "byte {at}: {} are left", entries.len()),
            Err(error) => assert!(at < 22 && matches!(error, Error::File { .. }), "byte {at}: {error}"),
        }
    }
}

#[test]
fn sessions_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for session in 0..6 {
            let directory = folder.path();
            scope.spawn(move || {
                let receipts = Receipts::new(directory, "walrus x");
                for number in 0..20 {
                    let container = format!("{session}-{number}");
                    begin(&receipts, &container, &["a"]);
                    receipts.settle(&container, &outcome(number)).unwrap();
                }
            });
        }
    });
    let receipts = Receipts::new(folder.path(), "walrus x");
    assert_eq!(receipts.find(&content("a").hash).unwrap().len(), 120);
    assert!(receipts.pending().unwrap().is_empty());
}

#[test]
fn a_long_journal_is_rewritten_under_the_eyes_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, reader) = (Receipts::new(folder.path(), "walrus x"), Receipts::new(folder.path(), "walrus x"));
    begin(&writer, "kept", &["a"]);
    writer.settle("kept", &outcome(1)).unwrap();
    begin(&writer, "open again", &["b"]);
    writer.settle("open again", &outcome(2)).unwrap();
    begin(&writer, "open again", &["b"]);
    let before = reader.all().unwrap();
    let mut longest = 0;
    for number in 0..12 {
        let mut large = intent("large", &["c"]);
        large.details.insert("x".to_owned(), format!("{number}").repeat(150_000));
        writer.begin(&large, &Context::default()).unwrap();
        writer.forget("large", &Context::default()).unwrap();
        assert_eq!(reader.all().unwrap(), before, "after {number}");
        longest = longest.max(std::fs::metadata(file_of(folder.path())).unwrap().len());
    }
    // All of it together has more than two million bytes.
    assert!(longest < SMALLEST_REWRITE + 600_000, "{longest} bytes at most");
    begin(&reader, "later", &["d"]);
    assert_eq!(containers(&writer), ["kept", "open again", "later"]);
    assert_eq!(containers(&Receipts::new(folder.path(), "walrus x")), ["kept", "open again", "later"]);
}

#[test]
fn waiting_for_others_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let receipts = Receipts::new(folder.path(), "walrus x");
    begin(&receipts, "one", &["a"]);
    let lock = std::fs::File::open(file_of(folder.path()).with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let context = Context::default();
    context.stop.store(true, Ordering::Relaxed);
    assert_eq!(receipts.begin(&intent("two", &["a"]), &context), Err(Error::Cancelled));
    assert_eq!(containers(&receipts), ["one"], "reading waits for nobody");
    drop(lock);
    begin(&receipts, "two", &["a"]);
}

#[test]
fn records_of_a_newer_release_are_not_guessed_at() {
    let folder = tempfile::tempdir().unwrap();
    let receipts = Receipts::new(folder.path(), "walrus x");
    begin(&receipts, "one", &["a"]);
    let mut journal = Journal::new(folder.path(), file_of(folder.path()).file_stem().unwrap().to_str().unwrap());
    let mut lock = journal.lock(&Context::default()).unwrap();
    journal.read_locked(&mut lock).unwrap();
    journal.append(&mut lock, br#"{"marvel":{}}"#).unwrap();
    drop(lock);
    let error = Receipts::new(folder.path(), "walrus x").all().unwrap_err().to_string();
    assert!(error.contains("newer release"), "{error}");
}
