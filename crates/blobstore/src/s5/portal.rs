//! Portals: blobs by their identifiers, which are the locators.

use super::account::Account;
use super::cid::{Base, BlobId, Function};
use super::upload::{Place, Role, Uploader};
use super::{READS, timed_out, tus};
use crate::http::{Answer, Body, Client, HeaderName, Method, Repeat, Request, Url, Verdict, usual};
use crate::names::{check_bytes, check_object};
use crate::options::S5Options;
use crate::receipts::{Content, Intent, Outcome, Receipts};
use crate::{Abilities, Context, Error, Expected, Health, Listed, Object, Placed, Price, Result, Store, Upload};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Up to this length a blob goes in one request: what live portals take (the Dart node takes 34 million bytes).
const SIMPLE: usize = 32 << 20;
/// Bytes of an answer that is not a blob.
const REPLY: usize = 1 << 20;

pub struct PortalStore {
    portal: Arc<Portal>,
}

/// What is known of a portal; shared by the writers of an upload.
pub struct Portal {
    client: Client,
    url: Url,
    account: Account,
    receipts: Receipts,
    simple: usize,
}

impl PortalStore {
    /// # Errors
    /// [`Error::Option`].
    pub fn new(options: S5Options) -> Result<Self> {
        Self::with_simple_limit(options, SIMPLE)
    }

    /// As [`PortalStore::new`], with another limit from which on uploads are made that can be resumed.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn with_simple_limit(options: S5Options, simple: usize) -> Result<Self> {
        let account = Account::new(&options.url, options.token, options.seed.as_ref())?;
        let client = Client::new(options.network)?;
        let portal = Portal { client, url: options.url, account, receipts: options.receipts, simple };
        Ok(Self { portal: Arc::new(portal) })
    }
}

/// The locator of a blob.
fn locator(id: &BlobId) -> String {
    id.text(Base::Base32)
}

/// Both forms of an identifier, in the order in which they are tried: the Dart node misreads the new one.
fn forms(id: &BlobId) -> [String; 2] {
    [id.legacy_text(Base::Base58), id.text(Base::Base32)]
}

/// The blob that a locator names. `None`: it is no identifier of a blob with a BLAKE3 hash.
fn resolve(locator: &str) -> Option<BlobId> {
    BlobId::parse(locator).filter(|id| id.function == Function::Blake3)
}

/// For a manifest that a person named. The text is not repeated: who knows what was pasted.
fn no_identifier() -> Error {
    Error::Option {
        option: "manifest".to_owned(),
        message: "is not the identifier of a blob".to_owned(),
        hint: Some("Identifiers look like blobb.. or z..".to_owned()),
    }
}

fn missing(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 404 | 410) || timed_out(answer)
}

fn judge(answer: &Answer) -> Verdict {
    if timed_out(answer) { Verdict::Take } else { usual(answer) }
}

impl Portal {
    pub fn route(&self, path: &str) -> Result<Url> {
        self.url.join(path).map_err(|error| Error::Protocol { message: format!("URL: {error}") })
    }

    pub fn retries(&self) -> u32 {
        self.client.network().retries
    }

    /// Sends with the account's token; once more with another if it is refused and there is a way to get one.
    pub fn send(&self, request: &Request<'_>, context: &Context) -> Result<Answer> {
        self.authorized(request, context, |request| Ok(self.client.send(request, context)?))
    }

    fn follow(&self, request: &Request<'_>, context: &Context) -> Result<Answer> {
        self.authorized(request, context, |request| Ok(self.client.follow(request, context)?))
    }

    fn authorized(
        &self,
        request: &Request<'_>,
        context: &Context,
        send: impl Fn(&Request<'_>) -> Result<Answer>,
    ) -> Result<Answer> {
        let used = self.account.token();
        let authorize = || Ok(used.clone());
        let answer = send(&Request { authorize: Some(&authorize), ..request.clone() });
        let answer = self.account.scrubbed(answer?);
        if answer.status.as_u16() != 401 || !self.account.renew(used.as_ref(), &self.client, context)? {
            return Ok(answer);
        }
        let authorize = || Ok(self.account.token());
        Ok(self.account.scrubbed(send(&Request { authorize: Some(&authorize), ..request.clone() })?))
    }

    /// Asks one route with each form of the identifier until an answer is not "missing".
    fn each_form(&self, method: &Method, route: &str, id: &BlobId, context: &Context) -> Result<Option<Answer>> {
        for form in forms(id) {
            let url = self.route(&format!("{route}/{form}"))?;
            let request = Request {
                limit: REPLY,
                repeat: Repeat::Safe,
                judge: Some(&judge),
                ..Request::new(method.clone(), url)
            };
            let answer = self.send(&request, context)?;
            if !missing(&answer) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Whether the portal knows where a blob is.
    fn knows(&self, id: &BlobId, context: &Context) -> Result<bool> {
        match self.each_form(&Method::GET, "s5/blob", id, context)? {
            Some(answer) if matches!(answer.status.as_u16(), 200 | 300..=399) => Ok(true),
            Some(answer) => Err(answer.error(&locator(id))),
            None => Ok(false),
        }
    }

    fn pin(&self, id: &BlobId, context: &Context) -> Result<()> {
        match self.each_form(&Method::POST, "s5/pin", id, context)? {
            Some(answer) if answer.status.is_success() => Ok(()),
            Some(answer) => Err(answer.error(&locator(id))),
            None => Err(Error::Unreachable { message: "the portal has a blob and cannot pin it".to_owned() }),
        }
    }

    /// Stores a blob and makes sure that the portal has these bytes.
    fn store(&self, id: &BlobId, bytes: &Bytes, context: &Context) -> Result<()> {
        if bytes.len() <= self.simple && self.store_simply(id, bytes, context)? {
            return Ok(());
        }
        match tus::upload(self, id, bytes, context)? {
            tus::End::Stored => Ok(()),
            tus::End::WasThere => self.pin(id, context),
        }
    }

    /// In one request; `false` if the portal finds it too large for that.
    fn store_simply(&self, id: &BlobId, bytes: &Bytes, context: &Context) -> Result<bool> {
        let too_large = |answer: &Answer| {
            let text = String::from_utf8_lossy(&answer.body);
            answer.status.as_u16() == 413 || answer.status.as_u16() == 500 && text.contains("maximum size")
        };
        let judge = |answer: &Answer| if too_large(answer) { Verdict::Take } else { usual(answer) };
        let request = Request {
            headers: vec![(HeaderName::from_static("content-type"), "application/octet-stream".to_owned())],
            body: Body::Bytes(bytes.clone()),
            limit: REPLY,
            repeat: Repeat::Safe,
            judge: Some(&judge),
            ..Request::new(Method::POST, self.route("s5/upload")?)
        };
        let answer = self.send(&request, context)?;
        if too_large(&answer) {
            return Ok(false);
        }
        if !matches!(answer.status.as_u16(), 200 | 201) {
            return Err(answer.error(&locator(id)));
        }
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = value.get("cid").and_then(serde_json::Value::as_str).and_then(BlobId::parse);
        match said {
            Some(said) if said.hash == id.hash && (said.size == id.size || said.size == 0) => Ok(true),
            Some(_) => {
                Err(Error::Protocol { message: "the portal says that it stored other bytes than were sent".to_owned() })
            }
            // No identifier that we know: the bytes themselves tell.
            None => self.fetch(id, context).map(|_| true),
        }
    }

    /// The bytes of a blob, checked. Damage may have happened on the way, so they are fetched again.
    fn fetch(&self, id: &BlobId, context: &Context) -> Result<Vec<u8>> {
        let expected = Expected { hash: id.hash, length: id.size };
        let mut wrong = Error::NotFound { object: locator(id) };
        for read in 0..READS {
            if read > 0 {
                context.progress.retries.fetch_add(1, Ordering::Relaxed);
            }
            let Some(bytes) = self.read(id, context)? else {
                self.forget(id, context)?;
                return Err(Error::NotFound { object: locator(id) });
            };
            match check_bytes(&locator(id), &bytes, &expected) {
                Ok(()) => return Ok(bytes),
                Err(error) => wrong = error,
            }
        }
        self.forget(id, context)?;
        Err(wrong)
    }

    /// One look at all places where a blob may be: where the portal redirects to, then through the portal itself.
    fn read(&self, id: &BlobId, context: &Context) -> Result<Option<Vec<u8>>> {
        let limit = usize::try_from(id.size).unwrap_or(usize::MAX);
        let [legacy, new] = forms(id);
        for route in [format!("s5/blob/{legacy}"), format!("s5/blob/{new}"), format!("s5/download/{legacy}")] {
            let request = Request {
                limit: limit.saturating_add(REPLY),
                repeat: Repeat::Safe,
                judge: Some(&judge),
                ..Request::new(Method::GET, self.route(&route)?)
            };
            let answer = self.follow(&request, context)?;
            match answer.status.as_u16() {
                200 => return Ok(Some(answer.body)),
                _ if missing(&answer) => {}
                _ => return Err(answer.error(&locator(id))),
            }
        }
        Ok(None)
    }

    /// Strikes out the receipt of a blob that is gone or damaged: the next upload sends it again.
    fn forget(&self, id: &BlobId, context: &Context) -> Result<()> {
        match self.receipts.get(&locator(id))? {
            Some(_) => self.receipts.forget(&locator(id), context),
            None => Ok(()),
        }
    }

    /// `false` if it was not there.
    fn remove(&self, id: &BlobId, context: &Context) -> Result<bool> {
        self.forget(id, context)?;
        let mut last = None;
        for form in forms(id) {
            let request = Request {
                limit: REPLY,
                repeat: Repeat::Undone,
                ..Request::new(Method::DELETE, self.route(&format!("s5/delete/{form}"))?)
            };
            let answer = self.send(&request, context)?;
            match answer.status.as_u16() {
                200 | 204 => return Ok(true),
                401 if String::from_utf8_lossy(&answer.body).contains("disabled") => {
                    return Err(Error::Unsupported { what: "remove objects: the portal does not allow it" });
                }
                404 | 410 | 500 => last = Some(answer),
                _ => return Err(answer.error(&locator(id))),
            }
        }
        // The Dart node answers 500 for what is not there, and for everything else that goes wrong.
        match last {
            Some(answer) if self.knows(id, context)? => Err(answer.error(&locator(id))),
            _ => Ok(false),
        }
    }
}

impl Place for Portal {
    const WRITERS: usize = 3;

    fn place(&self, object: Object, _: Role, context: &Context) -> Result<Placed> {
        let hash = check_object(&object)?;
        let id = BlobId::new(hash, object.bytes.len() as u64);
        let place = locator(&id);
        let placed =
            |reused| Placed { name: object.name.clone(), hash, length: id.size, locator: place.clone(), reused };
        let entry = self.receipts.get(&place)?;
        if entry.is_some_and(|entry| entry.outcome.is_some() && !entry.pending) && self.knows(&id, context)? {
            return Ok(placed(true));
        }
        let content = Content { name: object.name.clone(), hash, length: id.size, locator: place.clone() };
        let intent = Intent { container: place.clone(), contents: vec![content], details: Default::default() };
        self.receipts.begin(&intent, context)?;
        self.store(&id, &Bytes::from(object.bytes), context)?;
        self.receipts.settle(&place, &Outcome::default())?;
        Ok(placed(false))
    }
}

impl Store for PortalStore {
    fn abilities(&self) -> Abilities {
        Abilities { kind: "s5", public: true, can_delete: true, can_list: false, has_price: false }
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        self.portal.account.ensure(&self.portal.client, context)?;
        Ok(Box::new(Uploader::new(Arc::clone(&self.portal), context)?))
    }

    fn fetch(&self, locator: &str, _: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        let corrupt =
            |what: &str| Error::Corrupt { object: locator.chars().take(100).collect(), what: what.to_owned() };
        let id = resolve(locator).ok_or_else(|| corrupt("its place is not the identifier of a blob"))?;
        if id.hash != expected.hash {
            return Err(corrupt("its place is that of other bytes"));
        }
        let id = BlobId::new(id.hash, expected.length);
        self.portal.fetch(&id, context)
    }

    fn present(&self, objects: &[Placed], context: &Context) -> Result<Vec<bool>> {
        self.portal.account.ensure(&self.portal.client, context)?;
        let is_there = |placed: &Placed| match resolve(&placed.locator).filter(|id| id.hash == placed.hash) {
            Some(id) => self.portal.knows(&BlobId::new(id.hash, placed.length), context),
            None => Ok(false),
        };
        objects.iter().map(is_there).collect()
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        let id = resolve(locator).ok_or_else(no_identifier)?;
        if id.size > limit as u64 {
            let what = format!("it has more than {limit} bytes");
            return Err(Error::Corrupt { object: locator.to_owned(), what });
        }
        self.portal.fetch(&id, context)
    }

    fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
        let id = resolve(locator).ok_or_else(no_identifier)?;
        self.portal.remove(&id, context)
    }

    fn manifests(&self, _: &Context) -> Result<Vec<Listed>> {
        Err(Error::Unsupported { what: "list what it holds" })
    }

    fn price(&self, _: &[u64], _: u64) -> Option<Price> {
        None
    }

    fn check(&self, context: &Context) -> Result<Health> {
        let portal = &*self.portal;
        portal.account.ensure(&portal.client, context)?;
        let started = Instant::now();
        let version = portal.version(context)?;
        let asked = started.elapsed();
        let bytes: Bytes = (0..1000).map(|_| rand::random::<u8>()).collect();
        let id = BlobId::of(&bytes);
        portal.store(&id, &bytes, context)?;
        let started = Instant::now();
        portal.fetch(&id, context)?;
        let read = started.elapsed();
        let step = match portal.remove(&id, context) {
            Ok(_) => "wrote, read and removed an object of 1 kB",
            Err(Error::Unsupported { .. }) => {
                "wrote and read an object of 1 kB, which stays: the portal removes nothing"
            }
            Err(error) => return Err(error),
        };
        let latency_ms = asked.min(read).as_secs_f64() * 1000.0;
        Ok(Health { latency_ms, version, steps: vec![step.to_owned()] })
    }
}

impl Portal {
    fn version(&self, context: &Context) -> Result<Option<String>> {
        let request =
            Request { limit: REPLY, repeat: Repeat::Safe, ..Request::new(Method::GET, self.route("s5/version")?) };
        let answer = self.send(&request, context)?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let node = value.get("node").and_then(serde_json::Value::as_str);
        Ok(node.filter(|_| answer.status.as_u16() == 200).map(|node| format!("node {node}")))
    }
}
