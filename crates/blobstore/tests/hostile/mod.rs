//! A small HTTP server that behaves as badly as it is told to.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Number of the request, over all connections.
    pub number: usize,
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

type Answer = dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// Listens on a port of its own until dropped.
pub struct Server {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` writes whatever it likes for each request. The connection goes on if the answer left it so that it can.
    pub fn start(answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (asked, connections) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicUsize>::default());
        let (open, stop) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::<AtomicBool>::default());
        let answer: Arc<Answer> = Arc::new(answer);
        let (all, count, sockets, ended) = (asked.clone(), connections.clone(), open.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                sockets.lock().unwrap().push(stream.try_clone().expect("a second handle"));
                let (answer, all) = (answer.clone(), all.clone());
                let sockets = sockets.clone();
                serving.push(std::thread::spawn(move || {
                    let peer = stream.peer_addr().ok();
                    let reset = serve(stream, &*answer, &all);
                    let mut sockets = sockets.lock().unwrap();
                    let at = sockets.iter().position(|socket| socket.peer_addr().ok() == peer);
                    if let Some(socket) = at.map(|at| sockets.remove(at)).filter(|_| !reset) {
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                }));
            }
            for thread in serving {
                let _ = thread.join();
            }
        });
        Self { port, asked, connections, open, stop, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for stream in self.open.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the connection is to be reset.
fn serve(mut stream: TcpStream, answer: &Answer, all: &Mutex<Vec<Asked>>) -> bool {
    let Ok(clone) = stream.try_clone() else { return false };
    let mut reader = BufReader::new(clone);
    while let Some(mut asked) = read_request(&mut reader) {
        {
            let mut all = all.lock().unwrap();
            asked.number = all.len();
            all.push(asked.clone());
        }
        if let Err(error) = answer(&asked, &mut stream) {
            return error.kind() == std::io::ErrorKind::ConnectionAborted;
        }
    }
    false
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { number: 0, method, target, headers, body })
}

/// A well-formed answer.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len())?;
    stream.write_all(body)
}

/// Ends the connection so that the other side sees a reset, not an end.
pub fn reset(stream: &TcpStream) -> std::io::Result<()> {
    // A socket that lingers for no time is reset when its last handle is closed.
    rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?;
    Err(std::io::ErrorKind::ConnectionAborted.into())
}
