//! Helper threads and the tables of archives, inside a server.

#[pgrx::pg_schema]
mod tests {
    use crate::archive::record::{self, ArchiveKind, ArchiveRecord, Identity};
    use crate::archive::thread::Session;
    use blobstore::memory::Memory;
    use blobstore::{
        Abilities, Context, Error, Expected, Health, Listed, Object, Placed, Price, Receipt, Result, Store, Upload,
    };
    use pgrx::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    /// A store that is deaf: its calls take seconds, whatever the session wants. Objects go to memory.
    struct Deaf {
        objects: Memory,
        /// Told when an upload began, and of the puts.
        log: Arc<Mutex<Vec<String>>>,
    }

    /// How long a deaf call takes.
    const DEAF: Duration = Duration::from_secs(2);

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    impl Drop for Deaf {
        fn drop(&mut self) {
            // As a client of HTTP that waits for its threads.
            std::thread::sleep(Duration::from_millis(300));
            DROPPED.fetch_add(1, Relaxed);
        }
    }

    impl Store for Deaf {
        fn abilities(&self) -> Abilities {
            self.objects.abilities()
        }

        fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
            Ok(Box::new(Slow { upload: self.objects.upload(context)?, log: Arc::clone(&self.log) }))
        }

        fn fetch(
            &self,
            locator: &str,
            manifest: Option<&str>,
            expected: &Expected,
            context: &Context,
        ) -> Result<Vec<u8>> {
            self.objects.fetch(locator, manifest, expected, context)
        }

        fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
            self.objects.fetch_manifest(locator, limit, context)
        }

        fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
            self.objects.remove(locator, context)
        }

        fn manifests(&self, _context: &Context) -> Result<Vec<Listed>> {
            panic!("a fault of ours")
        }

        fn price(&self, _lengths: &[u64], _manifest: u64) -> Option<Price> {
            None
        }

        fn check(&self, _context: &Context) -> Result<Health> {
            std::thread::sleep(DEAF);
            Err(Error::TimedOut)
        }
    }

    /// Takes a moment for an object, so that the queue fills, and refuses one that is named so.
    struct Slow<'a> {
        upload: Box<dyn Upload + 'a>,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Upload for Slow<'_> {
        fn put(&mut self, object: Object) -> Result<()> {
            self.log.lock().expect("no panic").push(object.name.clone());
            std::thread::sleep(Duration::from_millis(2));
            if object.name.starts_with("refused") {
                return Err(Error::Refused { status: Some(507), message: "full".into() });
            }
            self.upload.put(object)
        }

        fn finish(self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt> {
            self.upload.finish(manifest)
        }
    }

    fn session() -> (Session, Arc<Mutex<Vec<String>>>) {
        let log = Arc::default();
        let theirs = Arc::clone(&log);
        let open = move || Ok((Arc::new(Deaf { objects: Memory::default(), log: theirs }) as Arc<dyn Store>, ()));
        let (session, ()) = Session::open("deaf", open).expect("opens");
        (session, log)
    }

    fn object(prefix: &str, bytes: Vec<u8>) -> Object {
        let hash = blake3::hash(&bytes).to_hex();
        let ending = if prefix == "manifest" { "cbor" } else { "bin" };
        Object { name: format!("{prefix}-{}.{ending}", &hash[..32]), bytes }
    }

    fn bytes(seed: u32, length: usize) -> Vec<u8> {
        seed.to_le_bytes().into_iter().cycle().take(length).collect()
    }

    /// Has this session canceled in a moment, by another process as always.
    fn cancel_soon() {
        let pid = std::process::id();
        std::process::Command::new("sh").args(["-c", &format!("sleep 0.2; kill -INT {pid}")]).spawn().expect("sh");
    }

    /// Milliseconds until `work` was canceled.
    fn canceled_after(work: impl FnOnce() + std::panic::UnwindSafe) -> u128 {
        let start = Instant::now();
        let canceled = PgTryBuilder::new(|| {
            work();
            false
        })
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |_| true)
        .execute();
        assert!(canceled, "the statement was canceled");
        start.elapsed().as_millis()
    }

    fn wait_until(what: &str, happened: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !happened() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[pg_test]
    fn a_helper_that_does_not_listen_is_left_behind() {
        let dropped = DROPPED.load(Relaxed);
        cancel_soon();
        let took = canceled_after(|| {
            let (session, _) = session();
            _ = session.run(|store, context| store.check(context));
        });
        assert!(took < DEAF.as_millis(), "{took} ms");
        // It ends by itself, and takes the store with it.
        assert_eq!(DROPPED.load(Relaxed), dropped);
        wait_until("the store is dropped", || DROPPED.load(Relaxed) == dropped + 1);
    }

    #[pg_test]
    fn a_session_does_not_wait_for_the_end_of_its_store() {
        let dropped = DROPPED.load(Relaxed);
        let (session, _) = session();
        let start = Instant::now();
        drop(session);
        assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
        wait_until("the store is dropped", || DROPPED.load(Relaxed) > dropped);
    }

    #[pg_test]
    fn objects_arrive_in_order_however_many_there_are() {
        let (session, log) = session();
        let mut upload = session.upload();
        // 120 MiB, so more than the queue takes.
        let names: Vec<String> = (0..60)
            .map(|i| {
                let object = object("graph", bytes(i, 2 << 20));
                let name = object.name.clone();
                upload.put(object).expect("taken");
                name
            })
            .collect();
        let receipt = upload
            .finish(|places| {
                let list: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
                object("manifest", list.join("\n").into_bytes())
            })
            .expect("stored");
        assert_eq!(receipt.objects.iter().map(|place| place.name.clone()).collect::<Vec<_>>(), names);
        assert_eq!(*log.lock().expect("no panic"), names);
        let locator = receipt.manifest.locator;
        let manifest = session.run(move |store, context| store.fetch_manifest(&locator, 1 << 20, context));
        assert_eq!(manifest.expect("there"), names.join("\n").into_bytes());
    }

    #[pg_test]
    fn an_error_of_the_helper_ends_the_upload() {
        let (session, log) = session();
        let mut upload = session.upload();
        upload.put(object("graph", bytes(1, 100))).expect("taken");
        upload.put(object("refused", bytes(2, 100))).expect("taken, not sent yet");
        let error = (0..10_000).find_map(|i| upload.put(object("graph", bytes(i, 1 << 20))).err()).expect("an end");
        assert_eq!(error, Error::Refused { status: Some(507), message: "full".into() });
        assert_eq!(log.lock().expect("no panic").len(), 2);
    }

    #[pg_test]
    fn an_upload_that_is_dropped_ends() {
        let (session, log) = session();
        let mut upload = session.upload();
        upload.put(object("graph", bytes(1, 100))).expect("taken");
        drop(upload);
        let sent = log.lock().expect("no panic").len();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(log.lock().expect("no panic").len(), sent, "nothing is sent after that");
        assert!(session.run(|_, _| Ok(1)).is_ok_and(|n| n == 1), "the session goes on");
    }

    #[pg_test]
    fn a_session_that_waits_for_room_is_canceled() {
        let (session, _) = session();
        cancel_soon();
        let session = std::panic::AssertUnwindSafe(session);
        let took = canceled_after(move || {
            let session = session;
            let mut upload = session.upload();
            loop {
                upload.put(object("graph", bytes(7, 8 << 20))).expect("taken");
            }
        });
        assert!(took < 1000, "{took} ms");
    }

    #[pg_test]
    fn a_stream_ends_with_the_error_of_its_helper() {
        let (session, _) = session();
        let mut stream = session.stream(10, |_, sink| {
            for i in 0..1000u32 {
                sink.push(4, i)?;
            }
            Err(Error::NotFound { object: "the next".into() })
        });
        for i in 0..1000 {
            assert_eq!(stream.next(), Ok(Some(i)));
        }
        assert_eq!(stream.next(), Err(Error::NotFound { object: "the next".into() }));
        assert_eq!(stream.next(), Ok(None));
        let mut stream = session.stream(10, |_, sink| (0..7u8).try_for_each(|i| sink.push(100, i)));
        assert_eq!((0..8).filter_map(|_| stream.next().expect("no error")).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[pg_test(error = "a helper thread failed; the server's log has more")]
    fn a_panic_of_a_helper_is_an_error() {
        let (session, _) = session();
        _ = session.run(|store, context| store.manifests(context));
    }

    #[pg_test]
    fn helpers_are_deaf_to_signals() {
        let (session, _) = session();
        let blocked = session.run(|_, _| {
            let of = |thread: &str| {
                let status = std::fs::read_to_string(format!("/proc/{thread}/status")).expect("Linux");
                let line =
                    status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask").trim().to_string();
                u64::from_str_radix(&line, 16).expect("hexadecimal")
            };
            let inner = std::thread::spawn(move || of("thread-self")).join().expect("no panic");
            Ok((of("thread-self"), inner))
        });
        // SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGHUP.
        let wanted = [2, 15, 10, 12, 14, 1].iter().fold(0u64, |mask, signal| mask | 1 << (signal - 1));
        let (outer, inner) = blocked.expect("runs");
        assert_eq!((outer & wanted, inner & wanted), (wanted, wanted));
    }

    fn archive(manifest: &str, created_at: i64) -> ArchiveRecord {
        ArchiveRecord {
            server: "attic".into(),
            manifest: manifest.into(),
            kind: ArchiveKind::Export,
            identity: record::our_identity(),
            database: "db".into(),
            table_schema: "s".into(),
            table_name: "a \"table\"".into(),
            index_name: Some("i".into()),
            definition_hash: "f00d".into(),
            created_at,
            rows: 1_000,
            objects: 3,
            bytes: 1 << 40,
            reused: 1,
            units: Some(7),
            cost: Some(1_100_000),
            coin: Some("FROST".into()),
            expires_epoch: Some(42),
            expires_at: Some(i64::MAX / 4),
            tags: vec![("host".into(), "a b".into()), ("note".into(), "ä 'quoted'".into())],
        }
    }

    #[pg_test]
    fn what_is_recorded_is_listed() {
        let (old, new) = (archive("m1", 1_000_001), archive("m2", 2_000_000));
        let backup = ArchiveRecord {
            kind: ArchiveKind::Backup,
            index_name: None,
            units: None,
            cost: None,
            coin: None,
            expires_epoch: None,
            expires_at: None,
            tags: vec![],
            ..archive("m3", 0)
        };
        for archive in [&old, &backup, &new] {
            record::record(archive);
        }
        assert_eq!(record::list("attic"), [new.clone(), old.clone(), backup.clone()]);
        assert_eq!(record::list("cellar"), []);
        let again = ArchiveRecord { reused: 3, created_at: 3_000_000, ..old };
        record::record(&again);
        assert_eq!(record::list("attic"), [again, new, backup]);
        assert!(record::forget("attic", "m1") && !record::forget("attic", "m1") && !record::forget("cellar", "m2"));
        assert_eq!(record::list("attic").len(), 2);
    }

    #[pg_test]
    fn who_may_nothing_else_may_record() {
        Spi::run("CREATE ROLE nobody_else; SET LOCAL ROLE nobody_else; SET LOCAL search_path = ''").expect("role");
        record::record(&archive("m1", 5));
        assert_eq!(record::list("attic").len(), 1);
        let user = Spi::get_one::<String>("SELECT current_user::text || current_setting('search_path')");
        assert_eq!(user, Ok(Some("nobody_else\"\"".into())), "user and search path are as before");
        let refused = PgTryBuilder::new(|| Spi::run("DELETE FROM public.hybrid_archives").is_err())
            .catch_when(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, |_| true)
            .execute();
        assert!(refused, "by SQL they may not");
    }

    #[pg_test]
    fn sets_of_others_are_not_ours_until_adopted() {
        let ours = record::our_identity();
        assert_eq!(record::our_identity(), ours, "a set is begun once");
        assert!(record::is_ours(&ours));
        // A clone by pg_dump has the row of its original.
        let theirs = Identity { set: [0xab; 16], ..ours };
        Spi::run("INSERT INTO hybrid_archive_sets VALUES (repeat('ab', 16), '4711', 1, NULL)").expect("insert");
        assert!(!record::is_ours(&theirs));
        // One by copy and promotion has the same system identifier, on another timeline.
        Spi::run(&format!(
            "INSERT INTO hybrid_archive_sets VALUES (repeat('cd', 16), '{}', {}, NULL)",
            ours.system_identifier,
            ours.timeline + 1
        ))
        .expect("insert");
        assert!(!record::is_ours(&Identity { set: [0xcd; 16], ..ours }));
        Spi::run("SELECT hybrid_archive_adopt(repeat('ab', 16))").expect("adopts");
        assert!(record::is_ours(&theirs));
        assert_eq!(record::our_identity(), ours, "new archives go on with the set that was begun here");
    }
}
