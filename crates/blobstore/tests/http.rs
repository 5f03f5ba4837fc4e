//! The HTTP client against servers that do what servers should not.

mod hostile;

use blobstore::http::{Body, Client, Method, Network, Part, Repeat, Request, Url};
use blobstore::redact::{Redactor, Secret};
use blobstore::{Context, Error};
use hostile::{Server, reply, reset};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn client() -> Client {
    Client::new(Network { timeout: Duration::from_secs(60), ..Network::default() }).unwrap()
}

fn client_with(change: impl FnOnce(&mut Network)) -> Client {
    let mut network = Network::default();
    change(&mut network);
    Client::new(network).unwrap()
}

fn get(server: &Server, path: &str) -> Request<'static> {
    Request::new(Method::GET, Url::parse(&server.url(path)).unwrap())
}

fn safe(request: Request<'_>) -> Request<'_> {
    Request { repeat: Repeat::Safe, ..request }
}

#[test]
fn asks_plainly_and_keeps_the_connection() {
    let server = Server::start(|_, stream| reply(stream, "200 OK", "x-mark: 7\r\n", b"hello"));
    let (client, context) = (client(), Context::default());
    for _ in 0..30 {
        let answer = client.send(&get(&server, "/a%20b?c=d"), &context).unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("X-Mark"), &*answer.body), (200, Some("7"), &b"hello"[..]));
    }
    let asked = &server.asked()[2];
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/a%20b?c=d"));
    assert_eq!(asked.headers["user-agent"], concat!("hybridvec/", env!("CARGO_PKG_VERSION")));
    assert_eq!(asked.headers["accept-encoding"], "identity");
    for name in ["authorization", "cookie", "referer", "transfer-encoding"] {
        assert!(!asked.headers.contains_key(name), "{name}");
    }
    // A connection is given back a moment after the answer is whole, so that one request or another may miss it.
    assert!(server.connections() < 15, "connections are used again, there were {}", server.connections());
}

#[test]
fn an_endless_body_is_stopped_at_the_limit() {
    let server = Server::start(|asked, stream| {
        let head = if asked.target == "/chunked" { "transfer-encoding: chunked\r\n" } else { "connection: close\r\n" };
        write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n")?;
        loop {
            let chunk = [b'x'; 0x1000];
            if asked.target == "/chunked" {
                write!(stream, "1000\r\n")?;
            }
            stream.write_all(&chunk)?;
            if asked.target == "/chunked" {
                write!(stream, "\r\n")?;
            }
        }
    });
    for path in ["/chunked", "/close"] {
        let request = Request { limit: 100_000, ..safe(get(&server, path)) };
        let error = Error::from(client().send(&request, &Context::default()).unwrap_err());
        assert!(matches!(&error, Error::Protocol { message } if message.contains("100000 bytes")), "{error}");
    }
    assert_eq!(server.asked().len(), 2, "not asked again");
}

#[test]
fn an_announced_length_above_the_limit_is_refused_at_once() {
    let server = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n")?;
        stream.write_all(b"and then nothing")
    });
    let error = Error::from(client().send(&safe(get(&server, "/")), &Context::default()).unwrap_err());
    assert!(matches!(error, Error::Protocol { .. } | Error::Unreachable { .. }), "{error}");
    assert!(!matches!(error, Error::TimedOut));
}

#[test]
fn an_error_page_is_read_in_part() {
    let server = Server::start(|_, stream| reply(stream, "400 Bad", "", &[b'y'; 100_000]));
    let answer = client().send(&get(&server, "/"), &Context::default()).unwrap();
    assert_eq!(answer.body.len(), 16 << 10);
    assert!(matches!(answer.error("x"), Error::Refused { status: Some(400), message } if message.len() < 400));
}

/// A byte now and then keeps no attempt alive for longer than its limit.
#[test]
fn slow_servers_run_into_the_limit() {
    let server = Server::start(|asked, stream| {
        if asked.target == "/body" {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n")?;
        } else {
            write!(stream, "HTTP/1.1 200 OK\r\nx: ")?;
        }
        loop {
            stream.write_all(b"z")?;
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let client = client_with(|network| {
        network.timeout = Duration::from_millis(300);
        network.retries = 1;
    });
    for path in ["/head", "/body"] {
        let failure = client.send(&safe(get(&server, path)), &Context::default()).unwrap_err();
        assert_eq!((failure.error, failure.may_have_arrived), (Error::TimedOut, true));
    }
    assert_eq!(server.asked().len(), 4, "each was asked twice");
}

/// The best of some tries, so that a busy machine fails no test.
#[test]
fn cancelled_within_100_ms() {
    let server = Server::start(|asked, stream| {
        if asked.target == "/body" {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\nbegin")?;
        }
        if asked.target == "/later" {
            return reply(stream, "503 Busy", "retry-after: 50\r\n", b"");
        }
        // Silence, until the other side has gone.
        std::io::copy(&mut stream.try_clone()?, &mut std::io::sink()).map(drop)
    });
    let client = client();
    for path in ["/head", "/body", "/later"] {
        let best = (0..5).map(|_| {
            let context = Context::default();
            let asked = server.asked().len();
            std::thread::scope(|scope| {
                let call = scope.spawn(|| {
                    let outcome = client.send(&safe(get(&server, path)), &context);
                    (outcome, Instant::now())
                });
                while server.asked().len() == asked {
                    std::thread::yield_now();
                }
                let stop = Instant::now();
                context.stop.store(true, Ordering::Relaxed);
                let (outcome, end) = call.join().unwrap();
                assert_eq!(outcome.unwrap_err().error, Error::Cancelled, "{path}");
                end.duration_since(stop)
            })
        });
        let best = best.min().unwrap();
        assert!(best < Duration::from_millis(100), "{path}: {best:?}");
    }
}

#[test]
fn the_deadline_of_the_session_counts() {
    let server = Server::start(|_, stream| std::io::copy(&mut stream.try_clone()?, &mut std::io::sink()).map(drop));
    let context = Context { deadline: Some(Instant::now() + Duration::from_millis(100)), ..Context::default() };
    assert_eq!(client().send(&safe(get(&server, "/")), &context).unwrap_err().error, Error::TimedOut);
    assert!(server.asked().len() <= 1, "no attempt after the deadline");
}

/// A bad answer first, then a good one.
fn flaky(bad: impl Fn(&mut std::net::TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
    Server::start(move |asked, stream| match asked.number {
        0 => bad(stream),
        _ => reply(stream, "200 OK", "", b"whole"),
    })
}

#[test]
fn broken_answers_are_repeated_where_that_is_safe() {
    type Bad = fn(&mut std::net::TcpStream) -> std::io::Result<()>;
    let kinds: [(&str, Bad); 6] = [
        ("reset before the answer", |stream| reset(stream)),
        ("reset in the body", |stream| {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf of it")?;
            stream.flush()?;
            reset(stream)
        }),
        ("short body", |stream| {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf of it")?;
            Err(std::io::Error::other("end"))
        }),
        ("chunks that end early", |stream| {
            write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n")?;
            Err(std::io::Error::other("end"))
        }),
        ("garbage", |stream| {
            stream.write_all(b"\x00\x01\x02 what is this\r\n\r\n")?;
            Err(std::io::Error::other("end"))
        }),
        ("closed at once", |_| Err(std::io::Error::other("end"))),
    ];
    for (kind, bad) in kinds {
        let server = flaky(bad);
        let context = Context::default();
        let answer =
            client().send(&safe(get(&server, "/")), &context).unwrap_or_else(|failure| panic!("{kind}: {failure:?}"));
        assert_eq!((&*answer.body, answer.retries), (&b"whole"[..], 1), "{kind}");
        assert_eq!(context.progress.retries.load(Ordering::Relaxed), 1);

        for repeat in [Repeat::Never, Repeat::Undone] {
            let server = flaky(bad);
            let request = Request { repeat, ..get(&server, "/") };
            let failure = client().send(&request, &context).unwrap_err();
            assert!(failure.may_have_arrived, "{kind}");
            assert!(matches!(failure.error, Error::Unreachable { .. }), "{kind}: {}", failure.error);
            assert_eq!(server.asked().len(), 1, "{kind}: asked once");
        }
    }
}

#[test]
fn busy_servers_are_asked_again() {
    let burst = || {
        Server::start(|asked, stream| match asked.number {
            0 => reply(stream, "503 Busy", "", b"later"),
            1 => reply(stream, "502 Bad Gateway", "", b"<html>later</html>"),
            2 => reply(stream, "500 Oops", "", b""),
            _ => reply(stream, "200 OK", "", b"now"),
        })
    };
    let (server, context) = (burst(), Context::default());
    assert_eq!(client().send(&safe(get(&server, "/")), &context).unwrap().retries, 3);
    assert_eq!(context.progress.retries.load(Ordering::Relaxed), 3);

    let server = burst();
    let answer = client_with(|network| network.retries = 1).send(&safe(get(&server, "/")), &context).unwrap();
    assert_eq!((answer.status.as_u16(), answer.retries), (502, 1), "the last answer is returned");
    let error = answer.error("x").to_string();
    assert!(error.contains("HTTP 502: <html>later</html>"), "{error}");

    for (status, repeat) in
        [("503 Busy", Repeat::Never), ("503 Busy", Repeat::Undone), ("400 Bad", Repeat::Safe), ("403 No", Repeat::Safe)]
    {
        let server = Server::start(move |_, stream| reply(stream, status, "", b""));
        client().send(&Request { repeat, ..get(&server, "/") }, &context).unwrap();
        assert_eq!(server.asked().len(), 1, "{status} with {repeat:?}");
    }
}

#[test]
fn retry_after_is_honoured() {
    let asking = |value: &'static str| {
        Server::start(move |asked, stream| match asked.number {
            0 => reply(stream, "429 Too Many", &format!("retry-after: {value}\r\n"), b""),
            _ => reply(stream, "200 OK", "", b""),
        })
    };
    for repeat in [Repeat::Safe, Repeat::Undone] {
        let server = asking("1");
        let begin = Instant::now();
        let answer = client().send(&Request { repeat, ..get(&server, "/") }, &Context::default()).unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        assert!(begin.elapsed() >= Duration::from_secs(1), "it waited as told");
    }
    let server = asking("100000");
    let answer = client().send(&safe(get(&server, "/")), &Context::default()).unwrap();
    assert_eq!((answer.status.as_u16(), server.asked().len()), (429, 1), "nobody waits for a day");
}

#[test]
fn nothing_was_sent_where_nobody_listens() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let client = client_with(|network| network.retries = 1);
    let url = Url::parse(&format!("http://127.0.0.1:{port}/x")).unwrap();
    let request = Request { repeat: Repeat::Undone, ..Request::new(Method::PUT, url) };
    let context = Context::default();
    let failure = client.send(&request, &context).unwrap_err();
    assert!(!failure.may_have_arrived && failure.error.to_string().contains("no connection"), "{failure:?}");
    assert_eq!(context.progress.retries.load(Ordering::Relaxed), 1, "it could be tried again");
    for _ in 0..3 {
        client.send(&request, &context).unwrap_err();
    }
    let error = client.send(&request, &context).unwrap_err().error.to_string();
    assert!(error.contains("left alone"), "the circuit is open: {error}");
}

#[test]
fn redirects_are_followed_with_care() {
    let other = Server::start(|_, stream| reply(stream, "200 OK", "", b"there"));
    let elsewhere = other.url("/blob");
    let target = elsewhere.clone();
    let server = Server::start(move |asked, stream| {
        let to = |place: &str| format!("location: {place}\r\n");
        match &*asked.target {
            "/near" => reply(stream, "307 T", &to("/x/../here"), b""),
            "/far" => reply(stream, "302 T", &to(&target), b""),
            "/loop" => reply(stream, "301 T", &to("/loop"), b""),
            "/foreign" => reply(stream, "302 T", &to("http://169.254.169.254/latest/meta-data"), b""),
            "/file" => reply(stream, "302 T", &to("file:///etc/passwd"), b""),
            "/plain" => reply(stream, "302 T", &to("http://cdn.example.org/x"), b""),
            "/password" => reply(stream, "302 T", &to("https://me:T0PSECRET@cdn.example.org/x"), b""),
            "/nowhere" => reply(stream, "302 T", "", b""),
            "/here" => reply(stream, "200 OK", "", b"here"),
            _ => reply(stream, "404 No", "", b""),
        }
    });
    let token = || Ok(Some(Secret::new("T0PSECRET")));
    let ask = |client: &Client, path: &str| {
        let request = Request {
            authorize: Some(&token),
            headers: vec![(blobstore::http::HeaderName::from_static("x-own"), "1".to_owned())],
            ..get(&server, path)
        };
        client.follow(&request, &Context::default()).map_err(Error::from)
    };
    let strict = client();
    let answer = ask(&strict, "/near").unwrap();
    assert_eq!((&*answer.body, answer.url.path()), (&b"here"[..], "/here"));
    assert_eq!(server.asked()[1].headers["authorization"], "Bearer T0PSECRET", "the server itself may know");

    for path in ["/far", "/foreign", "/file", "/plain", "/password", "/nowhere", "/loop"] {
        let error =
            ask(&client_with(|network| network.redirect_hosts = vec!["cdn.example.org".to_owned()]), path).unwrap_err();
        assert!(matches!(error, Error::Refused { .. } | Error::Protocol { .. }), "{path}: {error}");
        assert!(!error.to_string().contains("T0PSECRET"), "{error}");
    }
    assert_eq!(server.asked().iter().filter(|asked| asked.target == "/loop").count(), 6, "five hops");
    assert!(other.asked().is_empty(), "another port is another server");

    let open = client_with(|network| network.redirect_hosts = vec!["127.0.0.1".to_owned()]);
    assert_eq!(ask(&open, "/far").unwrap().body, b"there");
    let asked = &other.asked()[0];
    assert!(!asked.headers.contains_key("authorization") && !asked.headers.contains_key("x-own"), "{asked:?}");

    let answer = strict.send(&get(&server, "/near"), &Context::default()).unwrap();
    assert_eq!(answer.status.as_u16(), 307, "send follows nothing");
    assert!(matches!(answer.error("x"), Error::Protocol { .. }));
}

#[test]
fn compressed_answers_are_refused_not_inflated() {
    let server = Server::start(|_, stream| reply(stream, "200 OK", "content-encoding: gzip\r\n", b"\x1f\x8b\x08bomb"));
    let error = Error::from(client().send(&safe(get(&server, "/")), &Context::default()).unwrap_err());
    assert!(matches!(&error, Error::Protocol { message } if message.contains("compresses")), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn endless_headers_end() {
    let server = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
        for number in 0_u64.. {
            write!(stream, "x-{number}: {}\r\n", "y".repeat(1000))?;
        }
        Ok(())
    });
    let error = client().send(&get(&server, "/"), &Context::default()).unwrap_err().error;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn every_attempt_has_its_own_token_and_no_error_shows_it() {
    let server = Server::start(|asked, stream| {
        let echo = format!("you said {} and fs5://write:abc@key", asked.headers["authorization"]);
        reply(stream, if asked.number < 2 { "503 Busy" } else { "403 No" }, "", echo.as_bytes())
    });
    let count = AtomicUsize::new(0);
    let token = || Ok(Some(Secret::new(format!("token-{}", count.fetch_add(1, Ordering::Relaxed)))));
    let request = Request { authorize: Some(&token), ..safe(get(&server, "/")) };
    let answer = client().send(&request, &Context::default()).unwrap();
    let sent: Vec<String> = server.asked().iter().map(|asked| asked.headers["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer token-0", "Bearer token-1", "Bearer token-2"]);
    let error = answer.error("x").to_string();
    assert!(!error.contains("token-2") && !error.contains("write:abc") && error.contains("you said"), "{error}");

    let bare = Server::start(|_, stream| reply(stream, "403 No", "", b"hush1234 is wrong"));
    let client = client_with(|network| network.redactor = Redactor::new([Secret::new("hush1234")]));
    let error = client.send(&get(&bare, "/"), &Context::default()).unwrap().error("x").to_string();
    assert!(error.ends_with("[hidden] is wrong"), "{error}");

    let smuggled = || Ok(Some(Secret::new("a\r\nx-evil: 1")));
    let request = Request { authorize: Some(&smuggled), ..get(&bare, "/") };
    let error = client.send(&request, &Context::default()).unwrap_err().error.to_string();
    assert!(error.contains("no header may have") && !error.contains("evil"), "{error}");
}

#[test]
fn forms_are_sent_whole_in_every_attempt() {
    let server = Server::start(|asked, stream| match asked.number {
        0 => reply(stream, "503 Busy", "", b""),
        _ => reply(stream, "200 OK", "", b""),
    });
    let part = |name: &str, bytes: &[u8]| Part {
        name: name.to_owned(),
        file_name: Some("x.bin".to_owned()),
        content_type: Some("application/octet-stream"),
        bytes: bytes.to_vec().into(),
    };
    let body = Body::Form(vec![part("segment-01.bin", b"one"), part("_metadata", b"[]")]);
    let request = Request { method: Method::PUT, body, ..safe(get(&server, "/")) };
    client().send(&request, &Context::default()).unwrap();
    for asked in server.asked() {
        let text = String::from_utf8(asked.body).unwrap();
        assert!(
            text.contains("name=\"segment-01.bin\"; filename=\"x.bin\"\r\n") && text.contains("\r\n\r\none\r\n"),
            "{text}"
        );
        assert!(asked.headers["content-type"].starts_with("multipart/form-data; boundary="));
    }
    for name in ["", "a b", "a\"b", "a\r\nb", "ü"] {
        let request = Request { body: Body::Form(vec![part(name, b"x")]), ..get(&server, "/") };
        assert!(client().send(&request, &Context::default()).is_err(), "{name:?}");
    }
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn other_machines_need_https() {
    for text in ["http://example.org/", "https://me:pw@example.org/", "ftp://127.0.0.1/", "http://192.0.2.1/"] {
        let request = Request::new(Method::GET, Url::parse(text).unwrap());
        let error = client().send(&request, &Context::default()).unwrap_err().error;
        assert!(matches!(error, Error::Protocol { .. }) && !error.to_string().contains("pw"), "{error}");
    }
}

#[test]
fn a_listing_without_end_is_an_error() {
    let server = Server::start(|asked, stream| {
        let body = format!(r#"{{"entries":[],"cursor":"{}"}}"#, asked.number);
        reply(stream, "200 OK", "", body.as_bytes())
    });
    let scratch = tempfile::tempdir().expect("a directory");
    let options = [("type", "s5"), ("url", &server.url("/"))].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let store = blobstore::options::open("s5", &options, &[], &blobstore::options::Environment::new(scratch.path()));
    let listed = store.expect("good options").manifests(&Context::default());
    assert!(matches!(listed, Err(Error::Protocol { .. })), "{listed:?}");
}
