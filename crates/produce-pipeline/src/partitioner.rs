//! Which partition a record goes to: Java's murmur2 for keyed records, sticky (KIP-794) for the others.

/// The partition that Apache Kafka's Java client picks for `key` among `partitions`: murmur2, sign masked, modulo.
/// An empty key is a key and hashes; a null key is not, and has no place here.
///
/// # Panics
/// If `partitions` is zero.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka's clients agree on (`0x9747b28c`).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java's length is an i32; keys are far below its bound.
    let mut hash = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition that unkeyed records of a topic go to, until a batch's worth of bytes has gone there (KIP-794).
///
/// Filling one batch at a time is what makes batches large; moving on only by bytes, and to the partition with the
/// shortest queue, is what keeps a slow broker from collecting everybody's records (apache/kafka#12049).
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: usize,
    bytes: usize,
}

/// How busy a partition is, as far as choosing among them goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// Has a leader that answers; so many bytes wait for it.
    Available(usize),
    /// Has no leader, or its leader does not answer; so many bytes wait for it.
    Stalled(usize),
}

impl Sticky {
    /// Begins at `start` (workers begin at different partitions).
    pub(crate) fn starting_at(start: usize) -> Self {
        Self { current: start, bytes: 0 }
    }

    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// `bytes` more went to the current partition. True when it is time to [`Sticky::switch`].
    pub(crate) fn record(&mut self, bytes: usize, batch_bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes >= batch_bytes
    }

    /// Moves to the least loaded partition, the first one after the current if several are equal.
    pub(crate) fn switch(&mut self, partitions: usize, load: impl Fn(usize) -> Load) {
        self.bytes = 0;
        let after = self.current + 1;
        if let Some(best) = (after..after + partitions).map(|i| i % partitions).min_by_key(|&i| load(i)) {
            self.current = best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`, as its own unit test lists them.
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        for (key, hash) in [
            (&b"21"[..], -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key), hash as u32, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn keys_spread_over_all_partitions_and_stay_there() {
        let mut seen = [0; 12];
        for i in 0..1_200 {
            let key = format!("order-{i}");
            let partition = partition_for_key(key.as_bytes(), 12);
            assert_eq!(partition, partition_for_key(key.as_bytes(), 12));
            seen[partition as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
        assert!(partition_for_key(b"", 12) < 12, "an empty key is a key");
    }

    #[test]
    fn sticky_stays_for_a_batch_and_moves_to_the_shortest_queue() {
        let mut sticky = Sticky::starting_at(0);
        assert!(!sticky.record(900, 1_000));
        assert!(sticky.record(100, 1_000));
        let queued = [0, 500, 0, 100];
        sticky.switch(4, |i| Load::Available(queued[i]));
        assert_eq!(sticky.current(), 2, "the next of the empty ones");
        sticky.switch(4, |i| Load::Available(queued[i]));
        assert_eq!(sticky.current(), 0);
    }

    #[test]
    fn sticky_avoids_a_stalled_partition_while_another_is_available() {
        let mut sticky = Sticky::starting_at(0);
        sticky.switch(3, |i| if i == 1 { Load::Stalled(0) } else { Load::Available(10_000) });
        assert_eq!(sticky.current(), 2);
        sticky.switch(3, |_| Load::Stalled(0));
        assert_eq!(sticky.current(), 0, "all stalled: goes round");
    }
}
