//! HTTP as the stores need it: bounded in time and bytes, cancelled at once, repeated only where that is safe.
//!
//! - One attempt has a limit for connecting, one for silence in the middle of a body, and one for all of it.
//! - A body is read up to a limit given by the caller, never decompressed, and a short one is an error.
//! - Redirects are followed by [`Client::follow`] alone, to hosts that the server's options name.
//! - https, but for this machine itself. No credentials in URLs. No proxy, whatever the environment says.
//!
//! Calls block. Inside, each runs on a small private runtime, so that a cancelled one drops its connection instead of
//! waiting for it. Nothing is started before the first request: its thread decides which signals are blocked.

mod attempt;
mod breaker;
mod redirect;
mod wait;

pub use redirect::check_base;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use reqwest::{Method, StatusCode, Url};
pub use wait::sleep;

use crate::redact::{Redactor, Secret};
use crate::{Context, Error, Result};
use attempt::Engine;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Bytes that are read of an answer that is not a success, to tell a person what it says.
const ERROR_BODY: usize = 16 << 10;

/// Bytes of such an answer that are shown.
const EXCERPT: usize = 300;

/// What the options of a server say about the network.
#[derive(Clone, Debug)]
pub struct Network {
    pub connect_timeout: Duration,
    /// For one attempt, from its start to the last byte of the answer.
    pub timeout: Duration,
    /// How often a request is made again.
    pub retries: u32,
    /// Hosts (`host` or `host:port`, lower case) that redirects may lead to, besides the server itself.
    pub redirect_hosts: Vec<String>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub authorities: Option<Vec<u8>>,
    pub redactor: Redactor,
    pub wallclock: Wallclock,
}

/// Time of day. A test may give its own.
#[derive(Clone)]
pub struct Wallclock(pub Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Default for Wallclock {
    fn default() -> Self {
        Self(Arc::new(SystemTime::now))
    }
}

impl fmt::Debug for Wallclock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wallclock")
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(120),
            retries: 4,
            redirect_hosts: Vec::new(),
            authorities: None,
            redactor: Redactor::default(),
            wallclock: Wallclock::default(),
        }
    }
}

/// When a request may be made again after an attempt that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    #[default]
    Never,
    /// If the failed attempt did nothing: no connection was made, or the answer was 429.
    Undone,
    /// After every failure that may pass: doing it twice is as good as once.
    Safe,
}

/// What the caller thinks of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it, good or bad.
    Take,
    /// Ask again, as [`Repeat`] allows; take it if there is no attempt left.
    Again,
}

/// What is sent. Clones share the bytes.
#[derive(Clone, Debug, Default)]
pub enum Body {
    #[default]
    Empty,
    Bytes(Bytes),
    /// `multipart/form-data`.
    Form(Vec<Part>),
}

/// A part of a form. `name` and `file_name` consist of `[A-Za-z0-9._-]`, so that nobody needs to quote them.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    pub file_name: Option<String>,
    pub content_type: Option<&'static str>,
    pub bytes: Bytes,
}

/// Makes the value that follows `Authorization: Bearer`, for each attempt anew. `None`: no header.
pub type Authorize<'a> = &'a dyn Fn() -> Result<Option<Secret>>;

/// A request. `..Request::new(..)` fills in what is usual.
#[derive(Clone)]
pub struct Request<'a> {
    pub method: Method,
    pub url: Url,
    /// Besides `User-Agent`, `Authorization`, `Accept-Encoding`, `Content-Length` and a form's `Content-Type`.
    pub headers: Vec<(HeaderName, String)>,
    pub body: Body,
    /// Bytes of the longest answer that is taken.
    pub limit: usize,
    pub repeat: Repeat,
    pub authorize: Option<Authorize<'a>>,
    /// Judges answers; [`usual`] if not given.
    pub judge: Option<&'a dyn Fn(&Answer) -> Verdict>,
}

impl Request<'_> {
    /// No headers, no body, an answer of at most 64 KiB, not repeated.
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: Body::Empty,
            limit: 64 << 10,
            repeat: Repeat::Never,
            authorize: None,
            judge: None,
        }
    }
}

/// A whole answer, of any status. Of one that is no success `body` may be only the beginning.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Where it came from, after redirects.
    pub url: Url,
    /// Attempts before this one.
    pub retries: u32,
    redactor: Redactor,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body for a person: one short line, without secrets.
    pub fn text(&self) -> String {
        self.redactor.excerpt(&self.body, EXCERPT)
    }

    /// This answer as an error, for callers that expected another. `object` is what was asked for.
    pub fn error(&self, object: &str) -> Error {
        let status = self.status.as_u16();
        let text = match self.text() {
            text if text.is_empty() => self.status.canonical_reason().unwrap_or("no reason given").to_owned(),
            text => text,
        };
        match status {
            404 | 410 => Error::NotFound { object: object.to_owned() },
            300..=399 => Error::Protocol { message: format!("HTTP {status}, a redirect where none is expected") },
            408 | 425 | 429 | 500..=599 => {
                Error::Unreachable { message: format!("{} answers HTTP {status}: {text}", redirect::origin(&self.url)) }
            }
            400..=499 => Error::Refused { status: Some(status), message: text },
            _ => Error::Protocol { message: format!("HTTP {status}: {text}") },
        }
    }
}

/// A request that got no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub error: Error,
    /// The server may have received the request and done what it asks for.
    pub may_have_arrived: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, may_have_arrived: false }
    }
}

/// Answers that a repeat may better: 408, 425, 429, 500, 502, 503, 504.
pub fn usual(answer: &Answer) -> Verdict {
    match answer.status.as_u16() {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => Verdict::Again,
        _ => Verdict::Take,
    }
}

/// Connections to servers. One for each store; may be used from several threads at once.
pub struct Client {
    network: Network,
    engine: Mutex<Option<Arc<Engine>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Client {
    /// # Errors
    /// [`Error::Option`] if the certificates cannot be read.
    pub fn new(network: Network) -> Result<Self> {
        if let Some(pem) = &network.authorities {
            attempt::certificates(pem)?;
        }
        Ok(Self { network, engine: Mutex::new(None) })
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    fn engine(&self) -> Result<Arc<Engine>> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        let started = Arc::new(Engine::start(&self.network)?);
        *engine = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Makes a request, again as [`Request::repeat`] allows, and returns the last answer, of whatever status. Redirects
    /// are answers like others.
    ///
    /// # Errors
    /// As the transport; [`Error::Cancelled`] and [`Error::TimedOut`] as `context`.
    pub fn send(&self, request: &Request<'_>, context: &Context) -> std::result::Result<Answer, Failure> {
        redirect::check_url(&request.url)?;
        attempt::check_form(&request.body)?;
        let engine = self.engine()?;
        let breaker = breaker::of(&redirect::origin(&request.url));
        let mut arrived = false;
        let mut retries = 0;
        loop {
            context.check()?;
            let pass = breaker.enter(Instant::now()).map_err(|left| self.left_alone(&request.url, left, arrived))?;
            let outcome = engine.attempt(request, &self.network, context);
            let pause = match outcome {
                Ok(mut answer) => {
                    pass.reached();
                    answer.retries = retries;
                    let verdict = request.judge.map_or_else(|| usual(&answer), |judge| judge(&answer));
                    match self.pause_after(&answer, verdict, request.repeat, retries) {
                        Some(pause) => pause,
                        None => return Ok(answer),
                    }
                }
                Err(fault) => {
                    if fault.unreachable {
                        pass.failed(Instant::now());
                    }
                    arrived |= fault.arrived;
                    let repeat = match request.repeat {
                        Repeat::Never => false,
                        Repeat::Undone => !arrived,
                        Repeat::Safe => true,
                    };
                    if !repeat || !fault.passing || retries >= self.network.retries {
                        return Err(Failure { error: fault.error, may_have_arrived: arrived });
                    }
                    wait::backoff(retries)
                }
            };
            wait::sleep(pause, context).map_err(|error| Failure { error, may_have_arrived: arrived })?;
            retries += 1;
            context.progress.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long to wait before the request is made again; `None`: take the answer.
    fn pause_after(&self, answer: &Answer, verdict: Verdict, repeat: Repeat, retries: u32) -> Option<Duration> {
        let allowed = match repeat {
            Repeat::Never => false,
            Repeat::Undone => answer.status == StatusCode::TOO_MANY_REQUESTS,
            Repeat::Safe => true,
        };
        if verdict == Verdict::Take || !allowed || retries >= self.network.retries {
            return None;
        }
        let asked =
            answer.header("retry-after").and_then(|value| wait::retry_after(value, (self.network.wallclock.0)()));
        match asked {
            Some(asked) if asked > wait::LONGEST_RETRY_AFTER => None,
            // A little more than asked, so that those who were told the same do not come at the same time.
            Some(asked) => Some(asked + wait::backoff(0)),
            None => Some(wait::backoff(retries)),
        }
    }

    fn left_alone(&self, url: &Url, left: Duration, arrived: bool) -> Failure {
        let message = format!(
            "{} failed {} times in a row and is left alone for another {:.1} s",
            redirect::origin(url),
            breaker::FAILURES,
            left.as_secs_f64()
        );
        Failure { error: Error::Unreachable { message }, may_have_arrived: arrived }
    }
}
