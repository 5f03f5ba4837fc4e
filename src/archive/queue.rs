//! What passes between the session's thread and a helper: a bell that wakes the session, and a queue bounded by bytes.
//!
//! The session never blocks here: it asks, and if there is nothing yet, it waits for the bell where interrupts are
//! looked at ([`crate::pg::thread::wait_for_bell`]). Helpers block, and look every [`GLANCE`] whether they should go on.

use blobstore::{Context, Error, Result};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a helper that waits looks whether it should go on.
const GLANCE: Duration = Duration::from_millis(20);

/// Locks; a helper that panicked while it held the lock leaves states that are whole, as each is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rung by helpers, heard by the session. Each ring is heard, also one that comes before the session waits.
pub(super) struct Bell {
    clapper: UnixStream,
    ear: UnixStream,
}

impl Bell {
    pub fn new() -> std::io::Result<Self> {
        let (clapper, ear) = UnixStream::pair()?;
        clapper.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { clapper, ear })
    }

    pub fn ring(&self) {
        // Full: it rings already.
        _ = (&self.clapper).write(&[1]);
    }

    /// What the session waits on.
    pub fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Forgets what rang. Called before the session looks at what the bell tells of.
    pub fn hush(&self) {
        let mut heard = [0; 256];
        loop {
            match (&self.ear).read(&mut heard) {
                Ok(n) if n == heard.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

struct State<T> {
    items: VecDeque<(usize, T)>,
    /// Sum of the sizes of `items`.
    bytes: usize,
    /// No more comes, or nobody takes any more.
    closed: bool,
}

/// Items with sizes, first in first out. Invariant: holds at most `limit` bytes, or one item.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
}

impl<T> State<T> {
    /// Adds an item; gives it back if there is no room, or the queue is closed.
    fn push(&mut self, limit: usize, size: usize, item: T) -> std::result::Result<(), T> {
        if self.closed || self.bytes > 0 && self.bytes.saturating_add(size) > limit {
            return Err(item);
        }
        self.bytes += size;
        self.items.push_back((size, item));
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        let (size, item) = self.items.pop_front()?;
        self.bytes -= size;
        Some(item)
    }
}

impl<T> Queue<T> {
    pub fn new(limit: usize) -> Self {
        let state = Mutex::new(State { items: VecDeque::new(), bytes: 0, closed: false });
        Self { state, changed: Condvar::new(), limit }
    }

    /// Ends the queue: what is in it is still taken, nothing is added.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Adds an item; gives it back if there is no room, or the queue is closed.
    pub fn try_push(&self, size: usize, item: T) -> std::result::Result<(), T> {
        lock(&self.state).push(self.limit, size, item)?;
        self.changed.notify_all();
        Ok(())
    }

    /// The next item; `None` if there is none now.
    pub fn try_pop(&self) -> Option<T> {
        let item = lock(&self.state).pop()?;
        self.changed.notify_all();
        Some(item)
    }

    /// Adds an item, as soon as there is room. For helpers.
    ///
    /// # Errors
    /// As [`Context::check`]; [`Error::Cancelled`] if nobody takes items any more.
    pub fn push(&self, size: usize, item: T, context: &Context) -> Result<()> {
        let (mut state, mut item) = (lock(&self.state), item);
        loop {
            context.check()?;
            match state.push(self.limit, size, item) {
                Ok(()) => {
                    self.changed.notify_all();
                    return Ok(());
                }
                Err(_) if state.closed => return Err(Error::Cancelled),
                Err(back) => item = back,
            }
            state = self.wait(state);
        }
    }

    /// The next item, as soon as there is one; `None` at the end of a closed queue. For helpers.
    ///
    /// # Errors
    /// As [`Context::check`].
    pub fn pop(&self, context: &Context) -> Result<Option<T>> {
        let mut state = lock(&self.state);
        loop {
            context.check()?;
            let item = state.pop();
            if item.is_some() || state.closed {
                self.changed.notify_all();
                return Ok(item);
            }
            state = self.wait(state);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait_timeout(state, GLANCE).map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }
}

#[cfg(test)]
mod queue_tests {
    use super::{Bell, Queue};
    use blobstore::{Context, Error};
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn holds_so_many_bytes_or_one_item() {
        let queue = Queue::new(10);
        assert_eq!(queue.try_push(100, 'a'), Ok(()), "one item of any size");
        assert_eq!(queue.try_push(1, 'b'), Err('b'));
        assert_eq!(queue.try_pop(), Some('a'));
        assert_eq!((queue.try_push(4, 'b'), queue.try_push(6, 'c')), (Ok(()), Ok(())));
        assert_eq!(queue.try_push(1, 'd'), Err('d'));
        assert_eq!((queue.try_pop(), queue.try_pop(), queue.try_pop()), (Some('b'), Some('c'), None));
    }

    #[test]
    fn what_is_in_a_closed_queue_is_still_taken() {
        let (queue, context) = (Queue::new(10), Context::default());
        queue.try_push(1, 'a').expect("room");
        queue.close();
        assert_eq!(queue.try_push(1, 'b'), Err('b'));
        assert_eq!(queue.push(1, 'b', &context), Err(Error::Cancelled));
        assert_eq!((queue.pop(&context), queue.pop(&context)), (Ok(Some('a')), Ok(None)));
    }

    #[test]
    fn all_items_pass_in_order_through_little_room() {
        let (queue, context) = (Arc::new(Queue::new(64)), Context::default());
        let taker = {
            let (queue, context) = (Arc::clone(&queue), context.clone());
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                while let Some(item) = queue.pop(&context).expect("not stopped") {
                    taken.push(item);
                }
                taken
            })
        };
        for item in 0..10_000usize {
            queue.push(item % 50, item, &context).expect("not closed");
        }
        queue.close();
        assert!(taker.join().expect("no panic").into_iter().eq(0..10_000));
    }

    #[test]
    fn a_stop_ends_both_sides() {
        let (queue, context) = (Arc::new(Queue::<u8>::new(1)), Context::default());
        let waiters = [true, false].map(|push| {
            let (queue, context) = (Arc::new(Queue::new(1)), context.clone());
            queue.try_push(1, 1).expect("room");
            std::thread::spawn(move || match push {
                true => queue.push(1, 2, &context).err(),
                false => queue.pop(&context).and_then(|_| queue.pop(&context)).err(),
            })
        });
        context.stop.store(true, Relaxed);
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Some(Error::Cancelled));
        }
        assert_eq!(queue.pop(&context), Err(Error::Cancelled));
    }

    #[test]
    fn a_bell_is_heard_once_however_often_it_rang() {
        let bell = Bell::new().expect("a socket pair");
        let readable = || {
            let mut poll =
                libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&bell.ear()), events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor, which is open.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        };
        assert!(!readable());
        for _ in 0..1_000_000 {
            bell.ring();
        }
        assert!(readable());
        bell.hush();
        assert!(!readable());
        bell.ring();
        assert!(readable());
    }
}
