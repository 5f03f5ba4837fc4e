//! Sends a container, once, whatever happens to the answer.
//!
//! | what happened | what is done |
//! |---|---|
//! | no connection, 429, expired token | nothing was stored: again, after a pause |
//! | other 4xx | nothing was stored: the error is the user's |
//! | 5xx, an error in an answer of status 200, no answer | it may be stored: an aggregator is asked, several times |
//! | .. and it is there, permanent | sent again, which costs nothing: the publisher answers `alreadyCertified` |
//! | .. and it is there, deletable | taken as it is; sent again it would be paid for again |
//! | .. and it is not there | sent again |
//! | .. and nobody can tell, deletable | an error; the container stays announced, and the next upload asks again |

use super::Inner;
use super::api::{self, Stored, StoredPatch};
use super::epochs;
use super::known::{EPOCHS, Hold, Known, PROCESS, STARTED, recovered, this_process};
use super::place::Place;
use super::read::{join, pause};
use super::token::{Grant, issue};
use crate::http::{Answer, Body, HeaderName, Method, Part, Repeat, Request, sleep};
use crate::receipts::{Content, Intent, Outcome};
use crate::redact::Secret;
use crate::{Context, Error, Hash, Result};
use ::walrus::quilt::Tags;
use ::walrus::{BlobId, Patch, Shards, blob_id, price, quilt};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Bytes of a request for a quilt besides the data, per patch; generous.
const PART_OVERHEAD: u64 = 512;

/// An object to be sent.
pub(super) struct Piece {
    pub name: String,
    pub hash: Hash,
    pub bytes: Bytes,
}

/// Objects that are sent together, and the id that they must get.
pub(super) struct Container {
    pub id: BlobId,
    pub quilt: bool,
    /// Bytes before encoding; of a quilt with the index and what is unused.
    pub length: u64,
    pub pieces: Vec<Piece>,
}

/// What came of sending a container.
#[derive(Default)]
pub(super) struct Delivered {
    pub end: Option<u64>,
    /// The epoch in which it was stored, if the publisher said so.
    pub epoch: Option<u64>,
    pub coins: u64,
    /// Bytes of objects; 0 if it was there.
    pub sent: u64,
    pub warnings: Vec<String>,
}

fn refused(error: ::walrus::Error) -> Error {
    Error::Refused { status: None, message: error.to_string() }
}

/// The id of a blob, computed by a pool of its own: no thread outlives the work, and all of them block the signals that
/// this one blocks.
fn identify(shards: Shards, bytes: &[u8]) -> Result<BlobId> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    let failed = |error: rayon::ThreadPoolBuildError| Error::Unreachable { message: format!("no threads: {error}") };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(failed)?;
    pool.install(|| blob_id(shards, bytes)).map_err(refused)
}

/// How one request for a store ended.
enum Attempt {
    Answered(Stored, Vec<StoredPatch>),
    /// Nothing was done, and a repeat may do better.
    Undone(Error),
    /// Nothing was done, and a repeat will not do better.
    Refused(Error),
    /// It may have been done. `brief`: the publisher itself said that it failed.
    Doubtful {
        error: Error,
        brief: bool,
    },
}

impl Container {
    /// Computes the id: seconds of work for a long one.
    ///
    /// # Errors
    /// [`Error::Refused`] for what cannot be encoded.
    pub fn seal(shards: Shards, quilted: bool, pieces: Vec<Piece>) -> Result<Self> {
        if let ([piece], false) = (&pieces[..], quilted) {
            let id = identify(shards, &piece.bytes)?;
            return Ok(Self { id, quilt: false, length: piece.bytes.len() as u64, pieces });
        }
        let tags = Tags::new();
        let patches: Vec<Patch> =
            pieces.iter().map(|piece| Patch { identifier: &piece.name, tags: &tags, data: &piece.bytes }).collect();
        let made = quilt::encode(shards, &patches).map_err(refused)?;
        Ok(Self { id: identify(shards, &made.bytes)?, quilt: true, length: made.bytes.len() as u64, pieces })
    }

    pub fn place(&self, name: &str) -> Place {
        Place { container: self.id, patch: self.quilt, name: name.to_owned() }
    }

    pub fn units(&self, shards: Shards) -> u64 {
        price::blob_units(shards, self.length).unwrap_or(0)
    }

    fn data(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    fn intent(&self, inner: &Inner, process: Option<String>) -> Intent {
        let content = |piece: &Piece| Content {
            name: piece.name.clone(),
            hash: piece.hash,
            length: piece.bytes.len() as u64,
            locator: self.place(&piece.name).to_string(),
        };
        let mut details = std::collections::BTreeMap::from([
            (EPOCHS.to_owned(), inner.options.epochs.to_string()),
            (STARTED.to_owned(), inner.now().to_string()),
            ("permanent".to_owned(), inner.options.permanent.to_string()),
        ]);
        details.extend(process.map(|process| (PROCESS.to_owned(), process)));
        Intent { container: self.id.to_string(), contents: self.pieces.iter().map(content).collect(), details }
    }
}

impl Inner {
    /// Stores a container, unless it is there for long enough.
    ///
    /// # Errors
    /// As the publisher; after a failure that leaves doubt the receipts still have the announcement.
    pub(super) fn deliver(&self, container: &Container, context: &Context) -> Result<Delivered> {
        let key = container.id.to_string();
        let receipts = &self.options.receipts;
        let _hold = Hold::take(self, &key, context)?;
        let known = Known::read(self)?;
        let before = receipts.get(&key)?;
        let stored = before.as_ref().and_then(|entry| entry.outcome.as_ref());
        if let Some(outcome) = stored.filter(|outcome| known.lasts(self, outcome.end_epoch))
            && (self.is_fresh(container.id) || self.exists(container.id, context)?)
        {
            return Ok(Delivered { end: outcome.end_epoch, ..Delivered::default() });
        }
        let new = stored.is_none();
        receipts.begin(&container.intent(self, Some(this_process())), context)?;
        let mut sending = Sending { inner: self, container, known, new, doubt: false, seen: false };
        // An earlier session announced it and did not learn what came of it. A permanent one may be sent again for nothing.
        if before.as_ref().is_some_and(|_| new && !self.options.permanent) && self.exists(container.id, context)? {
            return sending.take_as_found();
        }
        let result = sending.run(context);
        if result.is_err() {
            // Nobody sends it any more. If this cannot be written, others wait a little in vain.
            let _ = match before.is_none() && !sending.doubt {
                true => receipts.forget(&key, &Context::default()),
                false => receipts.begin(&container.intent(self, None), &Context::default()),
            };
        }
        result
    }
}

/// A container under way.
struct Sending<'a> {
    inner: &'a Inner,
    container: &'a Container,
    known: Known,
    /// The receipts do not know that it was ever stored.
    new: bool,
    /// It may have been stored.
    doubt: bool,
    /// An aggregator found it after that.
    seen: bool,
}

impl Sending<'_> {
    fn run(&mut self, context: &Context) -> Result<Delivered> {
        let attempts = self.inner.options.network.retries + 1;
        let mut last = Error::Cancelled;
        let mut attempt = 0;
        while attempt < attempts {
            context.check()?;
            if attempt > 0 {
                context.progress.retries.fetch_add(1, Ordering::Relaxed);
            }
            match self.attempt(context)? {
                Attempt::Answered(Stored::Failed { message }, _) => {
                    last = Error::Unreachable { message: self.clean(&message) };
                    self.ask(true, &last, context)?;
                }
                Attempt::Answered(stored, patches) => return self.conclude(stored, &patches),
                Attempt::Refused(error) => return Err(error),
                Attempt::Undone(error) => {
                    last = error;
                    if attempt + 1 < attempts {
                        sleep(pause(attempt), context)?;
                    }
                }
                Attempt::Doubtful { error, brief } => {
                    last = error;
                    self.ask(brief, &last, context)?;
                }
            }
            if self.seen && self.new && !self.inner.options.permanent {
                return self.take_as_found();
            }
            attempt += 1;
        }
        // It is there, and the publisher does not come to say how long it lasts.
        if self.seen && self.new { self.take_as_found() } else { Err(last) }
    }

    /// Asks the aggregators whether the container has appeared.
    ///
    /// # Errors
    /// `last`, if it must not be sent again because nobody can tell.
    fn ask(&mut self, brief: bool, last: &Error, context: &Context) -> Result<()> {
        self.doubt = true;
        let times = if brief { 2 } else { self.inner.options.network.retries + 2 };
        let mut told = false;
        for time in 0..times {
            sleep(pause(time + 1), context)?;
            match self.inner.exists(self.container.id, context) {
                Ok(true) => {
                    self.seen = true;
                    break;
                }
                Ok(false) => told = true,
                Err(_) => context.check()?,
            }
        }
        let blind = !self.seen && !told;
        let ambiguous = self.seen && !self.new;
        if !self.inner.options.permanent && (blind || ambiguous) {
            return Err(last.clone());
        }
        Ok(())
    }

    fn clean(&self, text: &str) -> String {
        self.inner.options.network.redactor.clean(text)
    }

    /// Settles with what is known without an answer.
    fn take_as_found(&self) -> Result<Delivered> {
        let intent = self.container.intent(self.inner, None);
        let outcome = recovered(&intent, &self.known.clock, self.inner.now());
        let warning = format!(
            "the answer for {} was lost; it is stored, but the object that owns it and its exact end are not known",
            self.container.id
        );
        let delivered = Delivered {
            end: outcome.end_epoch,
            coins: self.inner.cost(self.container.units(self.inner.shards)),
            sent: self.container.data(),
            warnings: vec![warning],
            ..Delivered::default()
        };
        self.settle(&outcome, delivered)
    }

    fn settle(&self, outcome: &Outcome, delivered: Delivered) -> Result<Delivered> {
        self.inner.options.receipts.settle(&self.container.id.to_string(), outcome)?;
        self.inner.fresh().insert(self.container.id, Instant::now());
        Ok(delivered)
    }

    /// Compares an answer with what was asked for, and writes it down.
    fn conclude(&mut self, stored: Stored, patches: &[StoredPatch]) -> Result<Delivered> {
        let options = &self.inner.options;
        let id = self.container.id.to_string();
        let now = self.inner.now();
        let wrong = |message: String| Err(Error::Protocol { message });
        let mut delivered = Delivered { sent: self.container.data(), ..Delivered::default() };
        let mut outcome = Outcome::default();
        outcome.details.insert(epochs::STORED.to_owned(), now.to_string());
        match stored {
            Stored::Created { blob, object, size, epoch, end_epoch, deletable, cost } => {
                self.doubt = true;
                if blob != id || size != self.container.length {
                    let blob = self.clean(&blob);
                    return wrong(format!("the publisher stored {blob} ({size} bytes), and {id} was sent"));
                }
                self.known.clock.see(epoch, now);
                let asked = epoch.saturating_add(u64::from(options.epochs));
                if end_epoch < asked {
                    delivered.warnings.push(format!("{id} is stored until epoch {end_epoch}, not {asked} as asked"));
                }
                if deletable && options.permanent {
                    delivered.warnings.push(format!("{id} was stored as deletable, though permanent was asked for"));
                }
                delivered.coins = cost;
                delivered.epoch = Some(epoch);
                delivered.end = Some(end_epoch);
                outcome.object_id = Some(self.clean(&object));
                outcome.coins = Some(cost);
                outcome.details.insert(epochs::EPOCH.to_owned(), epoch.to_string());
                outcome.details.insert("deletable".to_owned(), deletable.to_string());
            }
            Stored::Certified { blob, end_epoch, object } => {
                if blob != id {
                    let blob = self.clean(&blob);
                    return wrong(format!("the publisher speaks of {blob}, and {id} was sent"));
                }
                delivered.end = Some(end_epoch);
                outcome.object_id = object.map(|object| self.clean(&object));
                // It appeared after a store of ours without an answer: that one was paid for.
                if self.seen && self.new {
                    delivered.coins = self.inner.cost(self.container.units(self.inner.shards));
                }
                outcome.coins = Some(delivered.coins);
            }
            Stored::Invalid => {
                let message = format!("the network has marked {id} as invalid");
                return Err(Error::Refused { status: None, message });
            }
            Stored::Failed { message } => return Err(Error::Unreachable { message: self.clean(&message) }),
        }
        delivered.warnings.extend(self.unlisted(patches));
        outcome.end_epoch = delivered.end;
        outcome.end_time = delivered.end.and_then(|end| self.known.clock.expiry(end).at);
        self.settle(&outcome, delivered)
    }

    /// The id binds every patch; a list that does not agree is only odd.
    fn unlisted(&self, patches: &[StoredPatch]) -> Option<String> {
        let listed = |piece: &&Piece| {
            patches.iter().any(|patch| {
                let id: Option<::walrus::PatchId> = patch.quilt_patch_id.parse().ok();
                patch.identifier == piece.name && id.is_some_and(|id| id.quilt == self.container.id)
            })
        };
        let missing = self.container.pieces.iter().filter(|piece| !listed(piece)).count();
        (self.container.quilt && missing > 0)
            .then(|| format!("the publisher's list of quilt {} lacks {missing} patches", self.container.id))
    }

    fn attempt(&self, context: &Context) -> Result<Attempt> {
        let options = &self.inner.options;
        let Some(publisher) = &options.publisher else { return Err(no_publisher()) };
        let mut url = join(publisher, if self.container.quilt { "v1/quilts" } else { "v1/blobs" })?;
        url.query_pairs_mut()
            .append_pair("epochs", &options.epochs.to_string())
            .append_pair("permanent", if options.permanent { "true" } else { "false" });
        if let Some(address) = &options.send_object_to {
            url.query_pairs_mut().append_pair("send_object_to", address);
        }
        let authorize = || self.token();
        let mut request = Request::new(Method::PUT, url);
        request.repeat = Repeat::Undone;
        request.limit = 1 << 20;
        request.authorize = Some(&authorize);
        request.body = self.body();
        if !self.container.quilt {
            let header = (HeaderName::from_static("content-type"), "application/octet-stream".to_owned());
            request.headers.push(header);
        }
        match self.inner.client.send(&request, context) {
            Ok(answer) => Ok(self.judge(&answer)),
            Err(failure) => {
                // The end of the session is not the publisher's fault; whether it is stored, the next upload finds out.
                if failure.may_have_arrived && context.check().is_err() {
                    return Ok(Attempt::Doubtful { error: failure.error, brief: true });
                }
                context.check()?;
                Ok(match failure.may_have_arrived {
                    true => Attempt::Doubtful { error: failure.error, brief: false },
                    false if matches!(failure.error, Error::Unreachable { .. } | Error::TimedOut) => {
                        Attempt::Undone(failure.error)
                    }
                    false => Attempt::Refused(failure.error),
                })
            }
        }
    }

    fn body(&self) -> Body {
        match &self.container.pieces[..] {
            [piece] if !self.container.quilt => Body::Bytes(piece.bytes.clone()),
            pieces => Body::Form(
                pieces
                    .iter()
                    .map(|piece| Part {
                        name: piece.name.clone(),
                        file_name: Some(piece.name.clone()),
                        content_type: Some("application/octet-stream"),
                        bytes: piece.bytes.clone(),
                    })
                    .collect(),
            ),
        }
    }

    /// A publisher compares `max_size` with the body and with the quilt made of it.
    fn token(&self) -> Result<Option<Secret>> {
        let options = &self.inner.options;
        let Some(secret) = &options.jwt_secret else { return Ok(options.token.clone()) };
        let body = self.container.data() + PART_OVERHEAD * self.container.pieces.len() as u64 + PART_OVERHEAD;
        let send_object_to = options.send_object_to.as_deref();
        let grant = Grant { max_size: body.max(self.container.length), epochs: options.epochs, send_object_to };
        issue(secret, &grant, self.inner.now() / 1_000_000).map(Some)
    }

    fn judge(&self, answer: &Answer) -> Attempt {
        let status = answer.status.as_u16();
        let reason = api::reason(answer);
        let error = answer.error(&self.container.id.to_string());
        let refused = |message: String| Attempt::Refused(Error::Refused { status: Some(status), message });
        match (status, reason.as_deref()) {
            (200..=299, _) => match api::stored(&answer.body, self.container.quilt) {
                Some((stored, patches)) => Attempt::Answered(stored, patches),
                None => {
                    let message = format!("the publisher's answer cannot be read: {}", answer.text());
                    Attempt::Doubtful { error: Error::Protocol { message }, brief: false }
                }
            },
            (504, Some("EXPIRED_SIGNATURE")) | (429, _) => Attempt::Undone(error),
            (413, _) => refused(format!(
                "a body of {} bytes is too large for the publisher: lower max_blob_bytes, max_quilt_bytes or quilt_bytes",
                self.container.data()
            )),
            (404 | 405, _) => refused("the publisher has no such path: is it a publisher?".to_owned()),
            (400..=407 | 409..=424 | 426..=499, _) => match error {
                Error::Refused { .. } => Attempt::Refused(error),
                _ => refused(answer.text()),
            },
            (300..=399, _) => Attempt::Refused(error),
            (_, reason) => Attempt::Doubtful { error, brief: reason.is_some() },
        }
    }
}

pub(super) fn no_publisher() -> Error {
    Error::Option {
        option: "publisher".to_owned(),
        message: "is missing, and without one nothing can be stored".to_owned(),
        hint: Some("Add the URL of a publisher to the server.".to_owned()),
    }
}
