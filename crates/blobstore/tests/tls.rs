//! https: certificates are checked, and `ca_file` adds to those that are trusted.

use blobstore::http::{Client, Method, Network, Repeat, Request, Url};
use blobstore::options::{Environment, open};
use blobstore::{Context, Error};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

const AUTHORITY: &[u8] = include_bytes!("tls/authority.pem");

/// A server for `localhost` that answers every request with "hello". Ends with the process.
fn server() -> u16 {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem")).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            let mut head = [0; 4096];
            // A client that does not trust us ends the handshake here.
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
            }
            session.send_close_notify();
            let _ = session.complete_io(&mut socket);
        }
    });
    port
}

fn ask(network: Network, host: &str, port: u16) -> Result<Vec<u8>, Error> {
    let url = Url::parse(&format!("https://{host}:{port}/")).unwrap();
    let context = Context::default();
    let request = Request { repeat: Repeat::Safe, ..Request::new(Method::GET, url) };
    let answer = Client::new(network)?.send(&request, &context);
    let retries = context.progress.retries.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(retries, 0, "a certificate does not get better by asking again");
    Ok(answer?.body)
}

#[test]
fn certificates_are_checked() {
    let port = server();
    let trusting = || Network { authorities: Some(AUTHORITY.to_vec()), ..Network::default() };
    assert_eq!(ask(trusting(), "localhost", port).unwrap(), b"hello");
    let error = ask(Network::default(), "localhost", port).unwrap_err();
    assert!(matches!(&error, Error::Unreachable { message } if message.contains("certificate")), "{error}");
    let error = ask(trusting(), "127.0.0.1", port).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { message } if message.contains("certificate")),
        "another name: {error}"
    );
}

#[test]
fn files_without_certificates_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let text = |text: &str| text.to_owned();
    let server = [
        (text("type"), text("s5")),
        (text("url"), text("https://localhost:1")),
        (text("ca_file"), path.to_str().unwrap().to_owned()),
    ];
    for content in [None, Some(&b""[..]), Some(b"hello"), Some(include_bytes!("tls/server.key"))] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
            assert!(Client::new(Network { authorities: Some(content.to_vec()), ..Network::default() }).is_err());
        } else {
            let error = open("s5", &server, &[], &Environment::new(folder.path())).err().unwrap();
            assert!(matches!(&error, Error::Option { option, .. } if option == "ca_file"), "{error}");
        }
    }
}
