//! One circuit breaker for each server, shared by the whole process: whoever finds a server dead tells the others.
//!
//! Closed, every request goes through. After [`FAILURES`] failures in a row it opens: requests fail at once for
//! [`OPEN`]. Then it is half open: one request goes through, and its outcome closes or opens it again.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a server is left alone.
pub const FAILURES: u32 = 5;

/// How long it is left alone.
pub const OPEN: Duration = Duration::from_secs(10);

static BREAKERS: LazyLock<Mutex<HashMap<String, Arc<Breaker>>>> = LazyLock::new(Mutex::default);

/// The breaker of the server with this origin (`scheme://host:port`).
pub fn of(origin: &str) -> Arc<Breaker> {
    let mut breakers = BREAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(breakers.entry(origin.to_owned()).or_default())
}

#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while open or half open.
    opened: Option<Instant>,
    /// The request that may find out whether the server is back is under way.
    probing: bool,
}

/// Leave to make one request. Dropped without an outcome (a cancelled request) it changes nothing, but that the next
/// request may probe.
#[derive(Debug)]
pub struct Pass {
    breaker: Arc<Breaker>,
    probe: bool,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave for a request that begins `now`.
    ///
    /// # Errors
    /// How long the server will still be left alone.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state();
        let probe = match state.opened {
            None => false,
            Some(opened) => {
                let left = (opened + OPEN).saturating_duration_since(now);
                if !left.is_zero() || state.probing {
                    return Err(left);
                }
                state.probing = true;
                true
            }
        };
        Ok(Pass { breaker: Arc::clone(self), probe })
    }
}

impl Pass {
    /// The server answered, whatever it said.
    pub fn reached(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        state.opened = None;
    }

    /// There was no connection, or no whole answer in time.
    pub fn failed(self, now: Instant) {
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        if self.probe || state.failures >= FAILURES {
            state.opened = Some(now);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let breaker = Arc::new(Breaker::default());
        let start = Instant::now();
        for _ in 0..FAILURES - 1 {
            breaker.enter(start).unwrap().failed(start);
        }
        breaker.enter(start).unwrap().reached();
        for _ in 0..FAILURES {
            breaker.enter(start).unwrap().failed(start);
        }
        assert_eq!(breaker.enter(start).unwrap_err(), OPEN);
        assert_eq!(breaker.enter(start + OPEN / 2).unwrap_err(), OPEN / 2);

        let probe = breaker.enter(start + OPEN).unwrap();
        assert!(breaker.enter(start + OPEN).is_err(), "one probe at a time");
        probe.failed(start + OPEN);
        assert_eq!(breaker.enter(start + OPEN).unwrap_err(), OPEN, "a failed probe opens it again");

        drop(breaker.enter(start + 2 * OPEN).unwrap());
        breaker.enter(start + 2 * OPEN).expect("a cancelled probe makes room for the next").reached();
        let (one, two) = (breaker.enter(start).unwrap(), breaker.enter(start).unwrap());
        one.reached();
        two.reached();
    }
}
