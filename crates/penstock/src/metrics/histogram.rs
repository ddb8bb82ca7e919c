//! A histogram of atomics: fixed bounds, no lock, no growth.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bounds of times, from a fast broker on the same host to a delivery timeout, in microseconds.
pub(super) const MICROSECONDS: [u64; 17] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Bounds of records in a batch.
pub(super) const RECORDS: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// Bounds of bytes in a batch, header included.
pub(super) const BYTES: [u64; 8] = [256, 1_024, 4_096, 16_384, 65_536, 262_144, 524_288, 1_048_576];

/// What one counted unit is in the unit that is exposed (Prometheus wants seconds and bytes).
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale(f64);

impl Scale {
    pub(super) const ONE: Self = Self(1.0);
    pub(super) const MICRO: Self = Self(1e-6);
}

/// Counts of observations by upper bound. A scrape between two additions of one observation may see it half counted;
/// the next scrape sees it whole.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u64],
    scale: Scale,
    /// One more than there are bounds: the last is what lies above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64], scale: Scale) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, scale, buckets, sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// For a histogram in [`MICROSECONDS`].
    pub(super) fn observe_duration(&self, value: Duration) {
        self.observe(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    /// Sum, count, and the count of each bucket (not cumulative) with its upper bound, in the exposed unit.
    pub(super) fn snapshot(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 * self.scale.0).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum.load(Relaxed) as f64 * self.scale.0, count, buckets)
    }
}
