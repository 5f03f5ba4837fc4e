//! Whether the store works.

use super::send::{Container, Piece};
use super::{COIN, Inner};
use crate::http::{Method, Repeat, Request, Url};
use crate::names::name_of;
use crate::{Context, Error, Health, Result};
use std::time::Instant;

/// What is stored to try a publisher: always the same, so that a permanent one is paid for once.
const SAMPLE: &[u8] = b"hybridvec: an object to try a publisher with";

/// Containers that end within so many epochs are told of.
const SOON: u64 = 2;

impl Inner {
    /// Asks every server for its status, stores a small blob, and reads it.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn health(&self, context: &Context) -> Result<Health> {
        let mut health = Health { latency_ms: f64::INFINITY, version: None, steps: Vec::new() };
        for aggregator in &self.options.aggregators {
            self.status(aggregator, "aggregator", &mut health, context)?;
        }
        let Some(publisher) = &self.options.publisher else {
            health.steps.push("no publisher: archives can be read only".to_owned());
            return Ok(health);
        };
        self.status(publisher, "publisher", &mut health, context)?;
        let hash = blake3::hash(SAMPLE).into();
        let piece = Piece { name: name_of("check", "bin", &hash), hash, bytes: SAMPLE.into() };
        let container = Container::seal(self.shards, false, vec![piece])?;
        let delivered = self.deliver(&container, context)?;
        let step = match delivered.sent {
            0 => format!("blob {} was stored before", container.id),
            _ => format!("stored blob {} for {} {COIN}", container.id, delivered.coins),
        };
        health.steps.push(step);
        let place = container.place(&container.pieces[0].name);
        self.read(&place, 1 << 16, context, &|bytes| match bytes == SAMPLE {
            true => Ok(()),
            false => Err(Error::Corrupt { object: place.name.clone(), what: "other bytes were stored".to_owned() }),
        })?;
        health.steps.push("read it again".to_owned());
        health.steps.extend(self.endings()?);
        Ok(health)
    }

    fn status(&self, base: &Url, role: &str, health: &mut Health, context: &Context) -> Result<()> {
        let mut request = Request::new(Method::GET, super::read::join(base, "status")?);
        request.repeat = Repeat::Safe;
        let start = Instant::now();
        let answer = self.client.follow(&request, context).map_err(Error::from)?;
        if !answer.status.is_success() {
            return Err(answer.error(&format!("status of the {role}")));
        }
        health.latency_ms = health.latency_ms.min(start.elapsed().as_secs_f64() * 1000.0);
        health.steps.push(format!("the {role} {base} answers"));
        Ok(())
    }

    /// What ends soon, as far as the receipts know.
    fn endings(&self) -> Result<Option<String>> {
        let entries = self.options.receipts.all()?;
        let clock = super::epochs::Clock::new(self.options.epoch_seconds, &entries);
        let Some(now) = clock.at_most(self.now()) else { return Ok(None) };
        let ends = entries.iter().filter_map(|entry| entry.outcome.as_ref()?.end_epoch);
        let soon = ends.filter(|end| *end > now && *end <= now.saturating_add(SOON)).count();
        Ok((soon > 0).then(|| format!("{soon} blobs or quilts end within {SOON} epochs: export again to renew them")))
    }
}
