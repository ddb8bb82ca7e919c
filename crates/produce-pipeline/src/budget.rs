//! Memory for records: one number for the process, leased to workers in slabs (promise P6).
//!
//! A worker charges what it holds to its [`Lease`] without touching anything shared; only when the lease runs out, or
//! holds two slabs more than it needs, does it go to the process-wide [`MemoryBudget`]. Charging never fails: whoever
//! is about to read more asks [`Lease::has_room`] first, so that the budget is overrun by at most the one chunk that
//! each connection has in its read buffer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What a worker takes from, and gives back to, the process's budget at a time.
const SLAB_BYTES: usize = 1 << 20;

/// The process's memory for records, in bytes. Cheap to clone; shared by all workers.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    leased: AtomicUsize,
    /// How many tasks wait for room: nobody is woken, and nothing shared is touched, while it is zero.
    waiting: AtomicUsize,
    freed: Notify,
}

impl MemoryBudget {
    /// A budget of `total_bytes`. Below a few slabs (1 MiB each) per worker it still works, with little concurrency.
    #[must_use]
    pub fn new(total_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            total: total_bytes,
            leased: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }))
    }

    /// Bytes leased to workers: what they hold, rounded up to slabs.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.leased.load(Ordering::SeqCst)
    }

    /// The size it was made with.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// True above 80 %: requests that have not begun are refused, so that the last fifth is left to those that run.
    /// Without it, half-read uploads could hold all of the memory and none could finish.
    #[must_use]
    pub fn refuses_new(&self) -> bool {
        self.used() >= self.0.total / 5 * 4
    }
}

/// One worker's share of the budget. Gives everything back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: MemoryBudget,
    leased: Cell<usize>,
    held: Cell<usize>,
}

impl Lease {
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self { budget, leased: Cell::new(0), held: Cell::new(0) }
    }

    /// True if a chunk more may be read.
    pub(crate) fn has_room(&self) -> bool {
        let free_here = self.leased.get() > self.held.get();
        free_here || self.budget.used() + SLAB_BYTES <= self.budget.0.total
    }

    /// Adds `bytes` to what is held.
    pub(crate) fn charge(&self, bytes: usize) {
        let held = self.held.get() + bytes;
        self.held.set(held);
        if held > self.leased.get() {
            let more = (held - self.leased.get()).next_multiple_of(SLAB_BYTES);
            self.budget.0.leased.fetch_add(more, Ordering::Relaxed);
            self.leased.set(self.leased.get() + more);
        }
    }

    /// Takes `bytes` off what is held, and wakes those who wait for room.
    pub(crate) fn release(&self, bytes: usize) {
        debug_assert!(bytes <= self.held.get(), "released more than was charged");
        let held = self.held.get().saturating_sub(bytes);
        self.held.set(held);
        let spare = self.leased.get() - held;
        if spare >= 2 * SLAB_BYTES {
            let back = (spare - SLAB_BYTES) / SLAB_BYTES * SLAB_BYTES;
            self.budget.0.leased.fetch_sub(back, Ordering::SeqCst);
            self.leased.set(self.leased.get() - back);
        }
        // SeqCst, here and in `wait`: either this sees the waiter, or the waiter sees the bytes that became free.
        if self.budget.0.waiting.load(Ordering::SeqCst) > 0 {
            self.budget.0.freed.notify_waiters();
        }
    }

    /// Changes a charge from `old` to `new` bytes.
    pub(crate) fn recharge(&self, old: usize, new: usize) {
        if new >= old {
            self.charge(new - old);
        } else {
            self.release(old - new);
        }
    }

    /// Counts the caller among those who are woken when memory becomes free, until the guard is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.budget.0.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(&self.budget)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.0.leased.fetch_sub(self.leased.get(), Ordering::Relaxed);
        self.budget.0.freed.notify_waiters();
    }
}

/// See [`Lease::wait`].
pub(crate) struct Waiting<'a>(&'a MemoryBudget);

impl Waiting<'_> {
    /// Resolves at the next release after this call, by any worker.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.0.0.freed.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_leased_when_needed_and_given_back_with_slack() {
        let budget = MemoryBudget::new(8 * SLAB_BYTES);
        let lease = Lease::new(budget.clone());
        lease.charge(1);
        assert_eq!(budget.used(), SLAB_BYTES);
        lease.charge(3 * SLAB_BYTES);
        assert_eq!(budget.used(), 4 * SLAB_BYTES);
        lease.release(3 * SLAB_BYTES);
        assert_eq!(budget.used(), 2 * SLAB_BYTES, "one slab in use, one kept");
        drop(lease);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn room_ends_with_the_last_slab_for_every_worker() {
        let budget = MemoryBudget::new(2 * SLAB_BYTES);
        let (a, b) = (Lease::new(budget.clone()), Lease::new(budget.clone()));
        assert!(a.has_room() && b.has_room());
        a.charge(2 * SLAB_BYTES);
        assert!(!a.has_room() && !b.has_room());
        assert!(budget.refuses_new());
        a.release(1);
        assert!(a.has_room(), "its own lease has a byte free");
        a.release(2 * SLAB_BYTES - 1);
        assert!(b.has_room());
    }

    #[tokio::test]
    async fn a_release_on_one_worker_wakes_a_waiter_on_another() {
        let budget = MemoryBudget::new(SLAB_BYTES);
        let (a, b) = (Lease::new(budget.clone()), Lease::new(budget));
        a.charge(SLAB_BYTES);
        let waiting = b.wait();
        let freed = waiting.freed();
        a.release(1);
        freed.await;
    }
}
