//! Reads from the aggregators, the next one where one fails.

use super::place::Place;
use super::{Inner, api, epochs};
use crate::http::{Answer, HeaderName, Method, Repeat, Request, Url, sleep};
use crate::{Context, Error, Result};
use ::walrus::BlobId;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// For so long after a store, "not found" may only mean that the aggregator, or what stands before it, does not know yet.
const FRESH: Duration = Duration::from_secs(600);

/// Says the default; it changes the address under which a cache keeps an answer.
const OTHER_ADDRESS: &str = "skip_consistency_check=false";

/// How an aggregator failed, the least hopeful last.
fn weight(error: &Error) -> u8 {
    match error {
        Error::NotFound { .. } => 0,
        Error::Refused { .. } | Error::Protocol { .. } => 1,
        Error::Corrupt { .. } => 2,
        _ => 3,
    }
}

impl Inner {
    /// The bytes at a place, after `check`. Every aggregator is asked before anyone is asked again.
    ///
    /// # Errors
    /// [`Error::NotFound`] if all say so; else the failure that says most.
    pub(super) fn read(
        &self,
        place: &Place,
        limit: usize,
        context: &Context,
        check: &dyn Fn(&[u8]) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut worst: Option<Error> = None;
        let rounds = self.options.network.retries + 1;
        for round in 0..rounds {
            let mut hopeless = true;
            for turn in 0..self.options.aggregators.len() {
                match self.read_once(turn, place, limit, round > 0, context) {
                    Ok(bytes) => match check(&bytes) {
                        Ok(()) => return Ok(bytes),
                        // The aggregator may have sent what it holds: one more look, by another address, is enough.
                        Err(error) => {
                            hopeless &= round > 0;
                            keep(&mut worst, error);
                        }
                    },
                    Err(error @ (Error::Cancelled | Error::Option { .. })) => return Err(error),
                    Err(error) => {
                        context.check()?;
                        hopeless &= match error {
                            Error::NotFound { .. } => !self.is_fresh(place.container),
                            Error::Refused { .. } | Error::Protocol { .. } => true,
                            _ => false,
                        };
                        keep(&mut worst, error);
                    }
                }
            }
            if hopeless {
                break;
            }
            if round + 1 < rounds {
                context.progress.retries.fetch_add(1, Ordering::Relaxed);
                sleep(pause(round), context)?;
            }
        }
        Err(worst.unwrap_or_else(|| Error::NotFound { object: place.name.clone() }))
    }

    /// Asks one aggregator once, counting from the one that answered last.
    fn read_once(&self, turn: usize, place: &Place, limit: usize, again: bool, context: &Context) -> Result<Vec<u8>> {
        let index = (self.aggregator.load(Ordering::Relaxed) + turn) % self.options.aggregators.len();
        let mut url = join(&self.options.aggregators[index], &place.path())?;
        if again {
            url.set_query(Some(OTHER_ADDRESS));
        }
        let mut request = Request::new(Method::GET, url);
        request.limit = limit;
        let answer = self.client.follow(&request, context).map_err(Error::from)?;
        if answer.status.is_success() {
            self.aggregator.store(index, Ordering::Relaxed);
            return Ok(answer.body);
        }
        Err(answer.error(&place.name))
    }

    /// Whether it was stored so lately that a "not found" means nothing.
    pub(super) fn is_fresh(&self, container: BlobId) -> bool {
        if self.fresh().get(&container).is_some_and(|stored| stored.elapsed() < FRESH) {
            return true;
        }
        let stored = || -> Option<i64> {
            let entry = self.options.receipts.get(&container.to_string()).ok()??;
            entry.outcome?.details.get(epochs::STORED)?.parse().ok()
        };
        stored().is_some_and(|stored| self.now().saturating_sub(stored) < FRESH.as_micros() as i64)
    }

    /// Whether an aggregator finds a container. One byte is read: that takes one sliver, and certification.
    ///
    /// # Errors
    /// If no aggregator can tell.
    pub(super) fn exists(&self, container: BlobId, context: &Context) -> Result<bool> {
        let mut last = None;
        let mut missing = false;
        for turn in 0..self.options.aggregators.len() {
            let index = (self.aggregator.load(Ordering::Relaxed) + turn) % self.options.aggregators.len();
            let mut url = join(&self.options.aggregators[index], &format!("v1/blobs/{container}"))?;
            url.set_query(Some(OTHER_ADDRESS));
            let mut request = Request::new(Method::GET, url);
            request.headers = vec![(HeaderName::from_static("range"), "bytes=0-0".to_owned())];
            request.repeat = Repeat::Safe;
            match self.client.follow(&request, context) {
                Ok(answer) if answer.status.is_success() => return Ok(true),
                // A blob without bytes has no first one.
                Ok(answer) if answer.status.as_u16() == 416 => return Ok(true),
                Ok(answer) if is_missing(&answer) => missing = true,
                Ok(answer) => last = Some(answer.error(&container.to_string())),
                Err(failure) => {
                    context.check()?;
                    last = Some(failure.error);
                }
            }
        }
        match last {
            // One that can tell is enough: aggregators read the same network.
            _ if missing => Ok(false),
            Some(error) => Err(error),
            None => Ok(false),
        }
    }
}

/// A 404 of the aggregator itself, not of something before it that knows no such path.
fn is_missing(answer: &Answer) -> bool {
    answer.status.as_u16() == 404 && api::reason(answer).is_some_and(|reason| reason == "BLOB_NOT_FOUND")
}

fn keep(worst: &mut Option<Error>, error: Error) {
    if worst.as_ref().is_none_or(|kept| weight(kept) <= weight(&error)) {
        *worst = Some(error);
    }
}

/// Doubles, up to 8 s, less a random part.
pub(super) fn pause(round: u32) -> Duration {
    let bound = Duration::from_millis(200 << round.min(5)).min(Duration::from_secs(8));
    bound.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

/// # Errors
/// [`Error::Protocol`] if the path is none.
pub(super) fn join(base: &Url, path: &str) -> Result<Url> {
    base.join(path).map_err(|error| Error::Protocol { message: format!("{path}: {error}") })
}
