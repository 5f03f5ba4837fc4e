//! One attempt to get one answer.

use super::wait::LOOK;
use super::{Answer, Body, ERROR_BODY, HeaderValue, Network, Part, Request, redirect};
use crate::redact::Redactor;
use crate::{Context, Error, Result};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING};
use reqwest::multipart;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Longest silence in the middle of a body.
const SILENCE: Duration = Duration::from_secs(30);

/// Connections that nobody uses are closed before most servers close them: a request on a connection that the server
/// just closed may or may not have arrived.
const IDLE: Duration = Duration::from_secs(10);

/// An attempt without a whole answer.
#[derive(Debug)]
pub(super) struct Fault {
    pub error: Error,
    /// The server may have received the request.
    pub arrived: bool,
    /// The next attempt may do better.
    pub passing: bool,
    /// It is a matter of the connection.
    pub unreachable: bool,
}

impl Fault {
    /// A failure that stays, once the server has answered.
    fn lasting(error: Error) -> Self {
        Self { error, arrived: true, passing: false, unreachable: false }
    }
}

/// The runtime and its connections. Dropping it waits for nothing, e.g. not for the name service.
#[derive(Debug)]
pub(super) struct Engine {
    client: reqwest::Client,
    runtime: Option<Runtime>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The certificates in a file of `ca_file`.
///
/// # Errors
/// [`Error::Option`] if there is none, or one cannot be read.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<reqwest::Certificate>> {
    let bad = |message: String| Error::Option {
        option: "ca_file".to_owned(),
        message,
        hint: Some("The file contains certificates in PEM format.".to_owned()),
    };
    match reqwest::Certificate::from_pem_bundle(pem) {
        Ok(certificates) if certificates.is_empty() => Err(bad("there is no certificate in the file".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(format!("a certificate cannot be read: {}", cause(&error)))),
    }
}

/// # Errors
/// [`Error::Protocol`] if a name in a form would need quoting.
pub(super) fn check_form(body: &Body) -> Result<()> {
    let Body::Form(parts) = body else { return Ok(()) };
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    };
    let good = |part: &Part| plain(&part.name) && part.file_name.as_deref().is_none_or(plain);
    match parts.iter().find(|part| !good(part)) {
        Some(part) => Err(Error::Protocol { message: format!("\"{}\" cannot be the name of a part", part.name) }),
        None => Ok(()),
    }
}

impl Engine {
    pub(super) fn start(network: &Network) -> Result<Self> {
        let failed = |what: String| Error::Unreachable { message: format!("no connections can be made: {what}") };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("blobstore http")
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hybridvec/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(network.connect_timeout)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        for certificate in network.authorities.as_deref().map(certificates).transpose()?.unwrap_or_default() {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(|error| failed(cause(&error)))?;
        Ok(Self { client, runtime: Some(runtime) })
    }

    /// Sends once. Looks at `context` every [`LOOK`] and drops the connection when told to.
    pub(super) fn attempt(
        &self,
        request: &Request<'_>,
        network: &Network,
        context: &Context,
    ) -> std::result::Result<Answer, Fault> {
        let (ready, redactor) = self
            .prepare(request, &network.redactor)
            .map_err(|error| Fault { arrived: false, ..Fault::lasting(error) })?;
        let Some(runtime) = &self.runtime else {
            return Err(Fault::lasting(Error::Cancelled));
        };
        runtime.block_on(async {
            let work = timeout(network.timeout, exchange(&self.client, ready, request, network.timeout, redactor));
            match watched(work, context).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Fault { error: Error::TimedOut, arrived: true, passing: true, unreachable: true }),
                Err(error) => Err(Fault::lasting(error)),
            }
        })
    }

    /// The request, and a redactor that knows its token: servers repeat what they were sent.
    fn prepare(&self, request: &Request<'_>, redactor: &Redactor) -> Result<(reqwest::Request, Redactor)> {
        let mut redactor = redactor.clone();
        let bad = |what: String| Error::Protocol { message: format!("the request cannot be made: {what}") };
        let mut builder = self.client.request(request.method.clone(), request.url.clone());
        builder = builder.header(ACCEPT_ENCODING, "identity");
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(secret) = request.authorize.map(|authorize| authorize()).transpose()?.flatten() {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.reveal()))
                .map_err(|_| bad("the token contains characters that no header may have".to_owned()))?;
            value.set_sensitive(true);
            redactor = redactor.and(secret);
            builder = builder.header(AUTHORIZATION, value);
        }
        builder = match &request.body {
            Body::Empty => builder,
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::Form(parts) => builder.multipart(form(parts).map_err(|error| bad(cause(&error)))?),
        };
        Ok((builder.build().map_err(|error| bad(cause(&error)))?, redactor))
    }
}

fn form(parts: &[Part]) -> reqwest::Result<multipart::Form> {
    let mut form = multipart::Form::new().percent_encode_noop();
    for part in parts {
        let mut sent = multipart::Part::stream_with_length(part.bytes.clone(), part.bytes.len() as u64);
        if let Some(content_type) = part.content_type {
            sent = sent.mime_str(content_type)?;
        }
        if let Some(file_name) = &part.file_name {
            sent = sent.file_name(file_name.clone());
        }
        form = form.part(part.name.clone(), sent);
    }
    Ok(form)
}

/// `work`, unless `context` ends it first.
async fn watched<T>(work: impl Future<Output = T>, context: &Context) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        context.check()?;
        let look =
            context.deadline.map_or(LOOK, |deadline| LOOK.min(deadline.saturating_duration_since(Instant::now())));
        if let Ok(done) = timeout(look, work.as_mut()).await {
            return Ok(done);
        }
    }
}

async fn exchange(
    client: &reqwest::Client,
    ready: reqwest::Request,
    request: &Request<'_>,
    limit_of_time: Duration,
    redactor: Redactor,
) -> std::result::Result<Answer, Fault> {
    let fault = |error: &reqwest::Error, answered: bool| transport_fault(error, answered, request, &redactor);
    let mut response = client.execute(ready).await.map_err(|error| fault(&error, false))?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        && status.is_success()
    {
        let message = format!("{} compresses its answer, unasked", redirect::origin(&request.url));
        return Err(Fault::lasting(Error::Protocol { message }));
    }
    let too_long = || {
        let message = format!("{} sends more than {} bytes", redirect::origin(&request.url), request.limit);
        Fault::lasting(Error::Protocol { message })
    };
    let limit = if status.is_success() { request.limit } else { ERROR_BODY };
    let announced = response.content_length().unwrap_or(0);
    if status.is_success() && announced > limit as u64 && request.method != reqwest::Method::HEAD {
        return Err(too_long());
    }
    // What a server announces is no reason to reserve much: the body grows as it comes.
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).min(limit).min(1 << 20));
    loop {
        let chunk = match timeout(SILENCE.min(limit_of_time), response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| fault(&error, true))?,
            Err(_) => {
                return Err(Fault { error: Error::TimedOut, arrived: true, passing: true, unreachable: true });
            }
        };
        let Some(chunk) = chunk else { break };
        if chunk.len() > limit - body.len() {
            if status.is_success() {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk[..limit - body.len()]);
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body, url: request.url.clone(), retries: 0, redactor })
}

fn transport_fault(error: &reqwest::Error, answered: bool, request: &Request<'_>, redactor: &Redactor) -> Fault {
    let what = redactor.clean(&cause(error));
    let unconnected = error.is_connect();
    // A certificate that is not trusted will not be trusted in a moment.
    let untrusted = unconnected && what.contains("certificate");
    let step = match (unconnected, answered) {
        (true, _) => "no connection",
        (false, false) => "no answer",
        (false, true) => "the answer broke off",
    };
    let message = format!("{} {}: {step}: {what}", request.method, redirect::origin(&request.url));
    Fault { error: Error::Unreachable { message }, arrived: !unconnected, passing: !untrusted, unreachable: true }
}

/// The innermost cause: the outer texts repeat the URL and say "error sending request".
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::error::Error::source(error).is_none() {
        return "the request failed".to_owned();
    }
    cause.to_string()
}
