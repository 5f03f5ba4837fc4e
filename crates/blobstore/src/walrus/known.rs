//! What the receipts know of objects, and whether it still holds.

use super::epochs::{self, Clock};
use super::place::Place;
use super::{Inner, UNDER_WAY};
use crate::http::sleep;
use crate::receipts::{Entry, Intent, Outcome};
use crate::{Context, Hash, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Keys of [`Intent::details`]: for how many epochs was asked, when it was announced (microseconds since 1970), and the
/// process that sends it, by number and start.
pub(super) const EPOCHS: &str = "epochs";
pub(super) const STARTED: &str = "started";
pub(super) const PROCESS: &str = "process";

/// An announced container that no aggregator finds is struck out after so many microseconds.
const LOST_AFTER: i64 = 86_400_000_000;

/// An object that need not be sent.
pub(super) struct Reusable {
    pub place: Place,
    pub end: Option<u64>,
}

/// The receipts as one upload sees them.
pub(super) struct Known {
    pub clock: Clock,
    /// Containers that were announced and whose fate is not known, by the objects in them.
    pending: HashMap<Hash, Vec<String>>,
    /// What aggregators said of containers.
    asked: HashMap<String, bool>,
}

impl Known {
    pub fn read(inner: &Inner) -> Result<Self> {
        let entries = inner.options.receipts.all()?;
        let clock = Clock::new(inner.options.epoch_seconds, &entries);
        let mut pending: HashMap<Hash, Vec<String>> = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.pending && entry.outcome.is_none()) {
            for content in &entry.intent.contents {
                pending.entry(content.hash).or_default().push(entry.intent.container.clone());
            }
        }
        Ok(Self { clock, pending, asked: HashMap::new() })
    }

    /// Whether what ends with `end` lasts for as long as the options ask from now on. An end that is not known is taken
    /// for late enough: that it is there, the aggregator says.
    pub fn lasts(&self, inner: &Inner, end: Option<u64>) -> bool {
        match (end, self.clock.at_least(inner.now())) {
            (Some(end), Some(now)) => end >= now.saturating_add(u64::from(inner.options.epochs)),
            _ => true,
        }
    }

    /// Where an object is that is stored for long enough.
    ///
    /// # Errors
    /// As the receipts; if no aggregator can tell whether it is still there.
    pub fn find(&mut self, inner: &Inner, hash: &Hash, context: &Context) -> Result<Option<Reusable>> {
        for container in self.pending.remove(hash).unwrap_or_default() {
            self.resolve(inner, &container, context)?;
        }
        for found in inner.options.receipts.find(hash)? {
            let Ok(place) = Place::parse(&found.content.locator, None) else { continue };
            let end = found.outcome.end_epoch;
            if !self.lasts(inner, end) {
                continue;
            }
            if self.is_there(inner, &place, context)? {
                return Ok(Some(Reusable { place, end }));
            }
            inner.options.receipts.forget(&found.container, context)?;
        }
        Ok(None)
    }

    fn is_there(&mut self, inner: &Inner, place: &Place, context: &Context) -> Result<bool> {
        let key = place.container.to_string();
        if let Some(known) = self.asked.get(&key) {
            return Ok(*known);
        }
        // What was stored a moment ago is there, whatever a cache before the aggregator says.
        let there = inner.is_fresh(place.container) || inner.exists(place.container, context)?;
        self.asked.insert(key, there);
        Ok(there)
    }

    /// Finds out what became of a container that was announced by an upload that did not end well.
    fn resolve(&mut self, inner: &Inner, container: &str, context: &Context) -> Result<()> {
        let receipts = &inner.options.receipts;
        let Some(entry) = receipts.get(container)?.filter(|entry| entry.pending && entry.outcome.is_none()) else {
            return Ok(());
        };
        let Ok(blob) = container.parse() else { return Ok(()) };
        let _hold = Hold::take(inner, container, context)?;
        if inner.exists(blob, context)? {
            self.asked.insert(container.to_owned(), true);
            return receipts.settle(container, &recovered(&entry.intent, &self.clock, inner.now()));
        }
        let started: Option<i64> = number(&entry.intent, STARTED);
        if started.is_none_or(|started| inner.now().saturating_sub(started) > LOST_AFTER) {
            receipts.forget(container, context)?;
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(intent: &Intent, key: &str) -> Option<T> {
    intent.details.get(key)?.parse().ok()
}

/// What is known of a container whose answer was lost and that an aggregator finds. Its end is the earliest that it can have.
pub(super) fn recovered(intent: &Intent, clock: &Clock, now: i64) -> Outcome {
    let started = number(intent, STARTED).unwrap_or(now);
    let end =
        clock.at_least(started).zip(number::<u64>(intent, EPOCHS)).map(|(epoch, epochs)| epoch.saturating_add(epochs));
    Outcome {
        end_epoch: end,
        end_time: end.and_then(|end| clock.expiry(end).at),
        details: [("recovered".to_owned(), "true".to_owned()), (epochs::STORED.to_owned(), started.to_string())].into(),
        ..Outcome::default()
    }
}

/// While it lives, nobody else sends the container.
pub(super) struct Hold {
    container: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = &mut *under_way {
            set.remove(&self.container);
        }
    }
}

impl Hold {
    /// Waits until nobody sends the container. For another process that says it does, no longer than one request may last.
    ///
    /// # Errors
    /// As the receipts and the context.
    pub fn take(inner: &Inner, container: &str, context: &Context) -> Result<Self> {
        loop {
            let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.get_or_insert_with(HashSet::new).insert(container.to_owned()) {
                break;
            }
            drop(under_way);
            sleep(Duration::from_millis(20), context)?;
        }
        let hold = Self { container: container.to_owned() };
        let patience = Instant::now() + inner.options.network.timeout;
        while Instant::now() < patience && inner.options.receipts.get(container)?.is_some_and(|entry| is_sent(&entry)) {
            sleep(Duration::from_millis(100), context)?;
        }
        Ok(hold)
    }
}

/// Whether another process says that it sends this container, and lives.
fn is_sent(entry: &Entry) -> bool {
    let process = entry.intent.details.get(PROCESS);
    let lives = |process: &String| {
        let id = process.split('-').next().and_then(|id| id.parse().ok());
        *process != this_process() && id.and_then(process_name).as_ref() == Some(process)
    };
    entry.pending && process.is_some_and(lives)
}

/// What tells this process from all others, also from one that had its number before a crash.
pub(super) fn this_process() -> String {
    let id = std::process::id();
    process_name(id).unwrap_or_else(|| id.to_string())
}

/// Number and start of a process that lives.
fn process_name(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The name of its program, in parentheses, may have spaces. What follows is its state, and 19 words later its start.
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let dead = words.next()?.starts_with(['Z', 'X']);
    let start = words.nth(18)?;
    (!dead).then(|| format!("{id}-{start}"))
}

#[cfg(test)]
mod known_tests {
    use super::{PROCESS, is_sent, process_name, this_process};
    use crate::receipts::{Entry, Intent};

    #[test]
    fn a_process_is_told_from_one_that_had_its_number_before() {
        let announced = |process: String| Entry {
            intent: Intent {
                container: "c".into(),
                contents: Vec::new(),
                details: [(PROCESS.to_owned(), process)].into(),
            },
            outcome: None,
            pending: true,
        };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let id = child.id();
        let name = process_name(id).expect("it lives");
        assert!(is_sent(&announced(name.clone())), "another process");
        assert!(!is_sent(&announced(format!("{id}-1"))), "one that had its number");
        assert!(!is_sent(&announced(this_process())), "this one");
        child.kill().expect("killed");
        while process_name(id).is_some() {
            std::thread::yield_now();
        }
        assert!(!is_sent(&announced(name.clone())), "dead, if not reaped");
        child.wait().expect("reaped");
        assert!(!is_sent(&announced(name)), "gone");
    }
}
