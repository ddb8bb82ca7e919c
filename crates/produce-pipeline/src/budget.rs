//! Memory for records: one number for the process, leased to workers in slabs (promise P6).
//!
//! A worker charges what it holds to its [`Lease`] without touching anything shared; only when the lease runs out, or
//! holds two slabs more than it needs, does it go to the process-wide [`MemoryBudget`]. Charging never fails: whoever
//! is about to read more asks [`Lease::has_room`] first. So the budget is overrun by what was promised and not yet
//! charged: one chunk a worker, and the buffer that grew for it.
//!
//! ```text
//!   0                        40 %                       80 %            100 %
//!   ├── everyone, each up to its share ──────────────────┼── who runs ────┤
//!    single records that wait ┴ are refused              │   nobody reads ┘
//!                              all new ones are refused ─┘
//! ```
//!
//! A record that waits is one that would stand behind a leader that does not answer. Many single ones, which are no part
//! of a stream that a share could hold back, could fill the memory up to the line beyond which nobody is served; so
//! their line comes first. An upload is not refused there: it stops reading when it has its share.
//!
//! # Shares
//!
//! First come, first served would let the uploads to one broker that hangs take all there is, and stop those to all
//! the others. So nobody may hold more than a 32nd of what is left below 80 % (a dynamic threshold, as switches share
//! their packet buffers: Choudhury and Hahne, 1998). Many who hang press each other's shares down and settle where
//! some is left, without anyone counting them: `n` of them take `n / (n + 32)` of it. Everyone may hold a chunk.
//!
//! # The reserve
//!
//! What is held is given back when brokers acknowledge it, but for lines that have begun: they must end first. If
//! those alone fill the memory, nobody could read the rest of his. So when nothing else is left, one delivery at a
//! time may read on, until there is room again: see [`Lease::take_reserve`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What a worker takes from, and gives back to, the process's budget at a time.
const SLAB_BYTES: usize = 1 << 20;

/// The most that is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A share is what is left below the watermark, divided by this.
const SHARES: usize = 32;

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
    /// Somebody reads on beyond the budget.
    reserve_taken: AtomicBool,
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
            reserve_taken: AtomicBool::new(false),
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
        self.used() >= self.watermark()
    }

    /// True above 40 %: single records that could only wait, because their leader does not answer, are refused, so that
    /// the rest is left to those whose leaders do.
    #[must_use]
    pub fn refuses_waiting(&self) -> bool {
        self.used() >= self.watermark() / 2
    }

    /// What one request may hold now, at the most `quota` and at least a chunk (64 KiB): see *Shares* above.
    #[must_use]
    pub fn share(&self, quota: usize) -> usize {
        let left = self.watermark().saturating_sub(self.used());
        quota.min((left / SHARES).max(CHUNK_BYTES))
    }

    /// Charges bytes to the budget itself, for what is not a worker's: two atomic operations each.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> BudgetCharge {
        self.0.leased.fetch_add(bytes, Ordering::Relaxed);
        BudgetCharge { budget: self.clone(), bytes }
    }

    fn watermark(&self) -> usize {
        self.0.total / 5 * 4
    }
}

/// Bytes charged to the budget itself for as long as it lives.
#[derive(Debug)]
pub struct BudgetCharge {
    budget: MemoryBudget,
    bytes: usize,
}

impl Drop for BudgetCharge {
    fn drop(&mut self) {
        // SeqCst, as in `Lease::release`.
        self.budget.0.leased.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.budget.0.waiting.load(Ordering::SeqCst) > 0 {
            self.budget.0.freed.notify_waiters();
        }
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

    /// The budget that this is a part of.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// True if a chunk more may be read: then it fits into what is leased, or another slab may be.
    pub(crate) fn has_room(&self) -> bool {
        let (used, total) = (self.budget.used(), self.budget.0.total);
        // What is free here was taken already. But a byte is not enough: the chunk would take another slab, and leave
        // most of that free, for ever. So would a buffer that doubles, hence not beyond the budget.
        let free_here = self.leased.get().saturating_sub(self.held.get());
        used + SLAB_BYTES <= total || (free_here >= CHUNK_BYTES && used <= total)
    }

    /// What one request may hold now, at the most `quota`.
    pub(crate) fn share(&self, quota: usize) -> usize {
        self.budget.share(quota)
    }

    /// True if a request that holds `held` bytes may read a chunk more and stay within its share.
    pub(crate) fn share_has_room(&self, held: usize, quota: usize) -> bool {
        held == 0 || held + CHUNK_BYTES <= self.share(quota)
    }

    /// Lets the caller read on although there is no room, if nobody else does. Given back when it is dropped.
    pub(crate) fn take_reserve(&self) -> Option<Reserve> {
        let taken = self.budget.0.reserve_taken.swap(true, Ordering::SeqCst);
        (!taken).then(|| Reserve(self.budget.clone()))
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
        // A slab is kept for what comes next, unless others wait for it.
        let keep = if self.budget.used() > self.budget.0.total { 0 } else { SLAB_BYTES };
        if spare >= keep + SLAB_BYTES {
            let back = (spare - keep) / SLAB_BYTES * SLAB_BYTES;
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

/// See [`Lease::take_reserve`].
#[derive(Debug)]
pub(crate) struct Reserve(MemoryBudget);

impl Drop for Reserve {
    fn drop(&mut self) {
        self.0.0.reserve_taken.store(false, Ordering::SeqCst);
        self.0.0.freed.notify_waiters();
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
        assert!(budget.refuses_new() && budget.refuses_waiting());
        a.release(CHUNK_BYTES);
        assert!(a.has_room(), "its own lease has a chunk free");
        a.release(2 * SLAB_BYTES - CHUNK_BYTES);
        assert!(b.has_room());
    }

    #[test]
    fn chunks_that_do_not_fill_slabs_end_at_the_budget_too() {
        let budget = MemoryBudget::new(8 * SLAB_BYTES);
        let leases = [(); 2].map(|()| Lease::new(budget.clone()));
        let mut chunks = 0;
        while let Some(lease) = leases.iter().find(|lease| lease.has_room()) {
            lease.charge(CHUNK_BYTES - 777);
            chunks += 1;
            assert!(chunks < 1_000, "it never ends");
        }
        assert!(budget.used() <= 8 * SLAB_BYTES, "{}", budget.used());
        assert!(chunks * CHUNK_BYTES > 7 * SLAB_BYTES, "{chunks}");
    }

    #[test]
    fn buffers_that_double_end_at_the_budget_too() {
        let budget = MemoryBudget::new(64 * SLAB_BYTES);
        let leases = [(); 2].map(|()| Lease::new(budget.clone()));
        let mut buffers = 0;
        while let Some(lease) = leases.iter().find(|lease| lease.has_room()) {
            lease.charge(SLAB_BYTES / 2 + 1_000);
            buffers += 1;
            assert!(buffers < 1_000, "it never ends");
        }
        assert!(budget.used() <= 65 * SLAB_BYTES, "{}", budget.used());
    }

    #[test]
    fn those_who_hang_leave_room_for_others() {
        const QUOTA: usize = 4 * SLAB_BYTES;
        let budget = MemoryBudget::new(64 * SLAB_BYTES);
        let lease = Lease::new(budget.clone());
        let mut held = [0_usize; 200];
        // All of them read what they may, a chunk at a time, and nothing is ever acknowledged.
        loop {
            let mut reads = false;
            for held in &mut held {
                if lease.has_room() && lease.share_has_room(*held, QUOTA) {
                    lease.charge(CHUNK_BYTES);
                    *held += CHUNK_BYTES;
                    reads = true;
                }
            }
            if !reads {
                break;
            }
        }
        assert!(!budget.refuses_new(), "{} used", budget.used());
        assert!(lease.has_room() && lease.share(QUOTA) >= CHUNK_BYTES);
        assert!(held.iter().all(|held| *held >= CHUNK_BYTES), "nobody was left without");
    }

    #[test]
    fn a_share_is_the_quota_while_there_is_plenty_and_a_chunk_when_there_is_nothing() {
        let budget = MemoryBudget::new(256 * SLAB_BYTES);
        let lease = Lease::new(budget);
        assert_eq!(lease.share(4 * SLAB_BYTES), 4 * SLAB_BYTES);
        lease.charge(256 * SLAB_BYTES);
        assert_eq!(lease.share(4 * SLAB_BYTES), CHUNK_BYTES);
        assert_eq!(lease.share(1_000), 1_000);
    }

    #[test]
    fn what_is_no_worker_s_counts_too() {
        let budget = MemoryBudget::new(10 * SLAB_BYTES);
        let held = budget.charge(8 * SLAB_BYTES);
        assert!(budget.refuses_new());
        assert_eq!((budget.used(), budget.share(SLAB_BYTES)), (8 * SLAB_BYTES, CHUNK_BYTES));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_waits_is_refused_at_half_of_what_refuses_everyone() {
        let budget = MemoryBudget::new(10 * SLAB_BYTES);
        let lease = Lease::new(budget.clone());
        lease.charge(3 * SLAB_BYTES);
        assert!(!budget.refuses_waiting());
        lease.charge(SLAB_BYTES);
        assert!(budget.refuses_waiting() && !budget.refuses_new());
        lease.charge(4 * SLAB_BYTES);
        assert!(budget.refuses_new());
    }

    #[test]
    fn one_at_a_time_has_the_reserve() {
        let lease = Lease::new(MemoryBudget::new(SLAB_BYTES));
        let reserve = lease.take_reserve().expect("nobody has it");
        assert!(lease.take_reserve().is_none());
        drop(reserve);
        assert!(lease.take_reserve().is_some());
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
