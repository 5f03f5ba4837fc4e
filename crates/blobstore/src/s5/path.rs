//! Path services: `PUT`, `GET`, `DELETE /s5/fs/<path>`.
//!
//! | path below the prefix | what |
//! |---|---|
//! | `objects/<hh>/<name>` | objects; `hh` are the first two digits of the hash |
//! | `manifests/<h>/<name>` | manifests; `h` is the first digit of the hash |
//! | `check/<name>` | what [`Store::check`] writes and removes |
//!
//! The directories are many because Enhanced s5.js loses a directory of 1000 entries. One writer, because it also loses
//! what two write into one directory at the same time: sessions take turns.

use super::cid::BlobId;
use super::upload::{Place, Role, Uploader};
use super::{READS, listing};
use crate::http::{Answer, Body, Client, HeaderName, Method, Repeat, Request, Url, Verdict, usual};
use crate::names::{check_bytes, check_content, check_object, digits, is_name};
use crate::options::S5Options;
use crate::receipts::{Content, Intent, Outcome, Receipts};
use crate::redact::Secret;
use crate::{Abilities, Context, Error, Expected, Health, Listed, Object, Placed, Price, Result, Store, Upload};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bytes of an answer that is not an object.
const REPLY: usize = 1 << 20;
/// Bytes of a listing of a directory.
const LISTING: usize = 8 << 20;
/// How often a 404 is asked again that may be one for any failure.
const DOUBTS: u32 = 2;

pub struct PathStore {
    paths: Arc<Paths>,
}

struct Paths {
    client: Client,
    url: Url,
    prefix: String,
    token: Option<Secret>,
    receipts: Receipts,
    /// It is known to have no listing.
    unlisted: AtomicBool,
}

impl PathStore {
    /// # Errors
    /// [`Error::Option`].
    pub fn new(options: S5Options) -> Result<Self> {
        let prefix = options.prefix.trim_matches('/').to_owned();
        if !prefix.split('/').all(is_segment) {
            let hint = Some("Write a directory such as home/hybridvec.".to_owned());
            return Err(Error::Option { option: "prefix".to_owned(), message: "is not a path".to_owned(), hint });
        }
        let paths = Paths {
            client: Client::new(options.network)?,
            url: options.url,
            prefix,
            token: options.token,
            receipts: options.receipts,
            unlisted: AtomicBool::new(false),
        };
        Ok(Self { paths: Arc::new(paths) })
    }
}

/// Whether this may be a directory of a path: `[a-z0-9][a-z0-9._-]*`. `.` and `..` are none.
fn is_segment(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && name.bytes().all(plain)
}

/// The locator of an object of this name.
fn locator(name: &str, role: Role) -> Result<String> {
    let bad = || Error::Protocol { message: format!("\"{name}\" is not the name of an object") };
    let digits = digits(name).filter(|_| is_name(name)).ok_or_else(bad)?;
    Ok(match role {
        Role::Object => format!("objects/{}/{name}", digits.get(..2).ok_or_else(bad)?),
        Role::Manifest => format!("manifests/{}/{name}", digits.get(..1).ok_or_else(bad)?),
    })
}

/// The locator that was meant: one made by [`locator`], or only the name of a manifest. Nothing else is asked for, as
/// locators come from manifests, which may be hostile, and from people. `None` for everything else.
fn resolve(given: &str) -> Option<String> {
    let name = given.rsplit('/').next().unwrap_or(given);
    let made = |role| locator(name, role).ok();
    let known = [Role::Object, Role::Manifest].into_iter().filter_map(made).find(|known| known == given);
    known.or_else(|| made(Role::Manifest).filter(|_| name == given && given.starts_with("manifest-")))
}

/// For a place that a person wrote. It is not repeated: who knows what was pasted.
fn no_place() -> Error {
    Error::Option {
        option: "manifest".to_owned(),
        message: "is not the place of an object in a path service".to_owned(),
        hint: Some("It looks like manifests/0/manifest-0123456789abcdef0123456789abcdef.cbor.".to_owned()),
    }
}

/// What a path service said when bytes were asked for.
enum Got {
    Bytes(Vec<u8>),
    Nothing,
}

impl Paths {
    fn request(&self, method: Method, path: &str) -> Result<Request<'_>> {
        let url = self.url.join(&format!("s5/fs/{path}"));
        let url = url.map_err(|error| Error::Protocol { message: format!("path of an object: {error}") })?;
        Ok(Request { limit: REPLY, repeat: Repeat::Safe, ..Request::new(method, url) })
    }

    fn send(&self, request: Request<'_>, context: &Context) -> Result<Answer> {
        let authorize = || Ok(self.token.clone());
        Ok(self.client.send(&Request { authorize: Some(&authorize), ..request }, context)?)
    }

    fn full(&self, locator: &str) -> String {
        format!("{}/{locator}", self.prefix)
    }

    /// Bytes of a path, at most `limit`.
    fn get(&self, path: &str, limit: usize, context: &Context) -> Result<Got> {
        let doubts = Cell::new(0);
        let judge = |answer: &Answer| match answer.status.as_u16() {
            404 if !certain(answer) && doubts.get() < DOUBTS => {
                doubts.set(doubts.get() + 1);
                Verdict::Again
            }
            _ => usual(answer),
        };
        let mut request = self.request(Method::GET, path)?;
        // A server that hands out JSON needs up to four bytes for one; it shall be told from an endless one.
        request.limit = limit.saturating_mul(5).saturating_add(REPLY);
        request.judge = Some(&judge);
        let answer = self.send(request, context)?;
        match answer.status.as_u16() {
            200 if is_buffer(&answer.body) => Err(Error::Protocol {
                message: "the path service hands out JSON instead of the bytes that were stored".to_owned(),
            }),
            200 => Ok(Got::Bytes(answer.body)),
            404 | 410 => Ok(Got::Nothing),
            _ => Err(answer.error(path)),
        }
    }

    /// The bytes of a path that pass `check`. Damage may have happened on the way,
    /// so they are fetched again.
    fn fetch(
        &self,
        locator: &str,
        limit: usize,
        context: &Context,
        check: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let path = self.full(locator);
        let mut wrong = Error::NotFound { object: locator.to_owned() };
        for read in 0..READS {
            if read > 0 {
                context.progress.retries.fetch_add(1, Ordering::Relaxed);
            }
            match self.get(&path, limit, context)? {
                Got::Bytes(bytes) => match check(&bytes) {
                    Ok(()) => return Ok(bytes),
                    Err(error) => wrong = error,
                },
                Got::Nothing => {
                    self.forget(&path, context)?;
                    return Err(Error::NotFound { object: locator.to_owned() });
                }
            }
        }
        // The next upload sends it again.
        self.forget(&path, context)?;
        Err(wrong)
    }

    fn forget(&self, path: &str, context: &Context) -> Result<()> {
        match self.receipts.get(path)? {
            Some(_) => self.receipts.forget(path, context),
            None => Ok(()),
        }
    }

    /// Whether something of this length is there, as far as a HEAD can tell.
    fn seems_there(&self, path: &str, length: u64, context: &Context) -> Result<bool> {
        let answer = self.send(self.request(Method::HEAD, path)?, context)?;
        let said = answer.header("content-length").and_then(|value| value.parse::<u64>().ok());
        Ok(answer.status.as_u16() == 200 && said.is_none_or(|said| said == length))
    }

    /// Whether an object is there already. What a receipt says was stored and looked at before is asked for; anything
    /// else is read and compared.
    fn is_there(&self, path: &str, expected: &Expected, context: &Context) -> Result<bool> {
        if !self.seems_there(path, expected.length, context)? {
            return Ok(false);
        }
        if self.receipts.get(path)?.is_some_and(|entry| entry.outcome.is_some() && !entry.pending) {
            return Ok(true);
        }
        self.holds(path, expected, context)
    }

    fn holds(&self, path: &str, expected: &Expected, context: &Context) -> Result<bool> {
        let limit = usize::try_from(expected.length).unwrap_or(usize::MAX);
        match self.get(path, limit, context)? {
            Got::Bytes(bytes) => Ok(check_bytes(path, &bytes, expected).is_ok()),
            Got::Nothing => Ok(false),
        }
    }

    /// Sends an object and makes sure that it arrived: by the identifier in the answer where it is one, by reading it
    /// back where it is not.
    fn store(&self, path: &str, name: &str, bytes: Bytes, expected: &Expected, context: &Context) -> Result<()> {
        let mut said = String::new();
        for _ in 0..2 {
            let mut request = self.request(Method::PUT, path)?;
            request.headers.push((HeaderName::from_static("content-type"), "application/octet-stream".to_owned()));
            request.body = Body::Bytes(bytes.clone());
            request.judge = Some(&judge_put);
            let answer = self.send(request, context)?;
            if !matches!(answer.status.as_u16(), 200 | 201) {
                return Err(refusal(&answer, name));
            }
            let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let id = value.get("cid").and_then(serde_json::Value::as_str).and_then(BlobId::parse);
            match id {
                Some(id) if id.hash == expected.hash && (id.size == expected.length || id.size == 0) => return Ok(()),
                Some(_) => "the path service says that it stored other bytes than were sent".clone_into(&mut said),
                None if self.holds(path, expected, context)? => return Ok(()),
                None => "the path service does not give back what it stored".clone_into(&mut said),
            }
        }
        Err(Error::Protocol { message: format!("object \"{name}\": {said}") })
    }

    /// Removes what is at a path; `false` if nothing was there, as far as the service says so.
    fn remove(&self, path: &str, context: &Context) -> Result<bool> {
        let _turn = self.receipts.turn(context)?;
        let there = self.send(self.request(Method::HEAD, path)?, context)?.status.as_u16() == 200;
        let answer = self.send(self.request(Method::DELETE, path)?, context)?;
        match answer.status.as_u16() {
            200 | 204 | 404 => Ok(there),
            _ => Err(answer.error(path)),
        }
    }
}

impl Place for Paths {
    const WRITERS: usize = 1;

    fn place(&self, object: Object, role: Role, context: &Context) -> Result<Placed> {
        let expected = Expected { hash: check_object(&object)?, length: object.bytes.len() as u64 };
        let name = object.name.clone();
        let locator = locator(&name, role)?;
        let path = self.full(&locator);
        let content = Content {
            name: object.name.clone(),
            hash: expected.hash,
            length: expected.length,
            locator: locator.clone(),
        };
        let _turn = self.receipts.turn(context)?;
        let reused = self.is_there(&path, &expected, context)?;
        let settled = reused && self.receipts.get(&path)?.is_some_and(|entry| !entry.pending);
        if !settled {
            let intent = Intent { container: path.clone(), contents: vec![content], details: Default::default() };
            self.receipts.begin(&intent, context)?;
            if !reused {
                self.store(&path, &object.name, Bytes::from(object.bytes), &expected, context)?;
            }
            self.receipts.settle(&path, &Outcome::default())?;
        }
        Ok(Placed { name, hash: expected.hash, length: expected.length, locator, reused })
    }
}

/// A 404 that is one: of a server that answers 404 only if there is nothing. The bridge answers so whatever went wrong.
fn certain(answer: &Answer) -> bool {
    let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = value.get("error").and_then(serde_json::Value::as_str);
    matches!(said, Some("File not found" | "Path not found" | "Not found")) && value.get("message").is_none()
}

/// Bytes as one dialect writes them: `{"type":"Buffer","data":[..]}`.
fn is_buffer(body: &[u8]) -> bool {
    if !body.starts_with(b"{") {
        return false;
    }
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("type").and_then(serde_json::Value::as_str) == Some("Buffer")
}

fn is_path_error(answer: &Answer) -> bool {
    answer.status.as_u16() == 500 && String::from_utf8_lossy(&answer.body).contains("InvalidPathException")
}

fn judge_put(answer: &Answer) -> Verdict {
    if is_path_error(answer) { Verdict::Take } else { usual(answer) }
}

fn refusal(answer: &Answer, object: &str) -> Error {
    let status = Some(answer.status.as_u16());
    if is_path_error(answer) {
        let message = "the path service takes only paths under home/ or archive/".to_owned();
        return Error::Refused { status, message };
    }
    match answer.status.as_u16() {
        404 | 405 | 410 => {
            let message = "there is no path service at this URL, or none that takes paths of this depth".to_owned();
            Error::Refused { status, message }
        }
        _ => answer.error(object),
    }
}

impl Store for PathStore {
    fn abilities(&self) -> Abilities {
        let can_list = !self.paths.unlisted.load(Ordering::Relaxed);
        Abilities { kind: "s5", public: true, can_delete: true, can_list, has_price: false }
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(Uploader::new(Arc::clone(&self.paths), context)?))
    }

    fn fetch(&self, locator: &str, _: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        let limit = usize::try_from(expected.length).unwrap_or(usize::MAX);
        let known = resolve(locator).ok_or_else(|| Error::Corrupt {
            object: locator.chars().take(100).collect(),
            what: "its place is not one of a path service".to_owned(),
        })?;
        self.paths.fetch(&known, limit, context, |bytes| check_bytes(locator, bytes, expected))
    }

    fn present(&self, objects: &[Placed], context: &Context) -> Result<Vec<bool>> {
        let is_there = |placed: &Placed| match resolve(&placed.locator) {
            Some(known) => {
                let expected = Expected { hash: placed.hash, length: placed.length };
                self.paths.is_there(&self.paths.full(&known), &expected, context)
            }
            None => Ok(false),
        };
        objects.iter().map(is_there).collect()
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        let locator = resolve(locator).ok_or_else(no_place)?;
        self.paths.fetch(&locator, limit, context, |bytes| {
            if bytes.len() > limit {
                let what = format!("it has more than {limit} bytes");
                return Err(Error::Corrupt { object: locator.clone(), what });
            }
            let name = locator.rsplit('/').next().unwrap_or_default();
            check_content(name, blake3::hash(bytes).as_bytes())
        })
    }

    fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
        let path = self.paths.full(&resolve(locator).ok_or_else(no_place)?);
        // Forgotten first: a receipt of what is gone would keep the next upload from sending it.
        self.paths.forget(&path, context)?;
        self.paths.remove(&path, context)
    }

    fn manifests(&self, context: &Context) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut answered = false;
        for digit in "0123456789abcdef".chars() {
            let directory = format!("manifests/{digit}/");
            let Some(entries) = self.paths.list(&directory, context)? else { continue };
            answered = true;
            for entry in entries {
                let Ok(locator) = locator(&entry.name, Role::Manifest) else { continue };
                if locator != format!("{directory}{}", entry.name) {
                    continue;
                }
                let length = match entry.length {
                    Some(length) => length,
                    None => self.paths.length(&locator, context)?,
                };
                listed.push(Listed { name: entry.name, locator, length, stored_at: entry.stored_at });
            }
        }
        if !answered {
            self.paths.unlisted.store(true, Ordering::Relaxed);
            return Err(Error::Unsupported { what: "list what it holds" });
        }
        listed.sort_by(|a, b| b.stored_at.cmp(&a.stored_at).then_with(|| a.name.cmp(&b.name)));
        Ok(listed)
    }

    fn price(&self, _: &[u64], _: u64) -> Option<Price> {
        None
    }

    fn check(&self, context: &Context) -> Result<Health> {
        let started = Instant::now();
        let version = self.paths.version(context)?;
        let asked = started.elapsed();
        let bytes: Vec<u8> = (0..1000).map(|_| rand::random()).collect();
        let expected = Expected { hash: *blake3::hash(&bytes).as_bytes(), length: bytes.len() as u64 };
        let hex = HEXLOWER.encode(&expected.hash);
        let name = format!("check-{}.bin", hex.get(..32).unwrap_or_default());
        let path = self.paths.full(&format!("check/{name}"));
        self.paths.store(&path, &name, Bytes::from(bytes), &expected, context)?;
        let started = Instant::now();
        let held = self.paths.holds(&path, &expected, context)?;
        let read = started.elapsed();
        let removed = self.paths.remove(&path, context);
        if !held {
            let what = "the path service does not give back what it stored".to_owned();
            return Err(Error::Protocol { message: what });
        }
        removed?;
        let steps = vec!["wrote, read and removed an object of 1 kB".to_owned()];
        Ok(Health { latency_ms: asked.min(read).as_secs_f64() * 1000.0, version, steps })
    }
}

impl Paths {
    /// Entries of a directory; `None` if the service has no listing, or no such directory.
    fn list(&self, directory: &str, context: &Context) -> Result<Option<Vec<listing::Entry>>> {
        let path = self.full(directory);
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..listing::PAGES {
            let mut request = self.request(Method::GET, &path)?;
            request.limit = LISTING;
            if let Some(cursor) = &cursor {
                request.url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let answer = self.send(request, context)?;
            match answer.status.as_u16() {
                200 => {}
                404 | 405 => return Ok(None),
                _ => return Err(answer.error(&path)),
            }
            let Some(page) = listing::parse(&answer.body, &path) else { return Ok(None) };
            entries.extend(page.entries);
            match page.cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(Some(entries)),
            }
        }
        // Not only the beginning: who removes objects relies on every manifest that names them.
        Err(Error::Protocol { message: format!("the listing of {directory} does not end") })
    }

    fn length(&self, locator: &str, context: &Context) -> Result<u64> {
        let answer = self.send(self.request(Method::HEAD, &self.full(locator))?, context)?;
        Ok(answer.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    /// What the service says of itself at `/health`, if it has that.
    fn version(&self, context: &Context) -> Result<Option<String>> {
        let url = self.url.join("health");
        let url = url.map_err(|error| Error::Protocol { message: format!("URL: {error}") })?;
        let answer =
            self.send(Request { limit: REPLY, repeat: Repeat::Safe, ..Request::new(Method::GET, url) }, context)?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
        let name = text("server").or_else(|| text("service"));
        let words: Vec<&str> = [name, text("version")].into_iter().flatten().collect();
        Ok((answer.status.as_u16() == 200 && !words.is_empty()).then(|| words.join(" ")))
    }
}
