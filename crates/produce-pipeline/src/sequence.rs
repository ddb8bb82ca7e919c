//! Sequence numbers of one partition (KIP-98), with an epoch of its own.
//!
//! A broker checks producer id, epoch and sequence per partition, and for a producer without a transactional id nobody
//! else looks at the epoch. So each partition keeps its own: what happens to one partition's head never makes the
//! batches of another be stamped anew, which is how other clients came to write records twice (librdkafka#4953).
//!
//! A number is taken when a batch is stamped. If the batch turns out never to have been appended, the number is
//! [given back](Sequence::rewind). If nobody can say, the epoch is [raised](Sequence::bump): the broker then refuses a
//! late arrival of the old batch, and the next batch starts at 0 without a gap (KIP-360).

use kafka_client::ProducerIdentity;
use kafka_records::Stamp;

/// The last epoch that a producer id can carry: the broker keeps `i16::MAX` to itself.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// What the next batch of a partition is stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    identity: ProducerIdentity,
    next: i32,
}

impl Sequence {
    pub(crate) fn new(identity: ProducerIdentity) -> Self {
        Self { identity, next: 0 }
    }

    /// Takes `count` numbers for one batch.
    pub(crate) fn take(&mut self, count: u32) -> Stamp {
        let stamp =
            Stamp { producer_id: self.identity.id, producer_epoch: self.identity.epoch, base_sequence: self.next };
        // Sequence numbers go from i32::MAX on to 0; a batch never holds more than i32::MAX records.
        self.next = self.next.wrapping_add(count as i32) & i32::MAX;
        stamp
    }

    /// Gives back the numbers of the batch stamped last, which was certainly not appended.
    pub(crate) fn rewind(&mut self, stamp: Stamp) {
        debug_assert_eq!((stamp.producer_id, stamp.producer_epoch), (self.identity.id, self.identity.epoch));
        self.next = stamp.base_sequence;
    }

    /// The identity with which another sequence may begin at the same partition and be told from this one. `None` if the
    /// producer id has no epoch left.
    pub(crate) fn successor(&self) -> Option<ProducerIdentity> {
        let epoch = self.identity.epoch;
        (epoch < LAST_EPOCH).then_some(ProducerIdentity { epoch: epoch + 1, ..self.identity })
    }

    /// Whether it counts for this producer id.
    pub(crate) fn is_of(&self, identity: ProducerIdentity) -> bool {
        self.identity.id == identity.id
    }

    /// Fences everything stamped so far and starts again at 0. False if the producer id has no epoch left: then
    /// only another producer id helps.
    #[must_use]
    pub(crate) fn bump(&mut self) -> bool {
        let Some(identity) = self.successor() else { return false };
        *self = Self::new(identity);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(epoch: i16) -> Sequence {
        Sequence::new(ProducerIdentity { id: 7, epoch })
    }

    #[test]
    fn numbers_follow_each_other_and_wrap_to_zero() {
        let mut s = sequence(0);
        assert_eq!(s.take(10).base_sequence, 0);
        assert_eq!(s.take(1).base_sequence, 10);
        s.next = i32::MAX;
        assert_eq!(s.take(3).base_sequence, i32::MAX, "its records are MAX, 0 and 1");
        assert_eq!(s.take(1).base_sequence, 2);
    }

    #[test]
    fn a_batch_that_was_not_appended_gives_its_numbers_back() {
        let mut s = sequence(0);
        let _ = s.take(5);
        let refused = s.take(7);
        s.rewind(refused);
        assert_eq!(s.take(1), Stamp { producer_id: 7, producer_epoch: 0, base_sequence: 5 });
    }

    #[test]
    fn a_bump_starts_at_zero_until_the_epochs_run_out() {
        let mut s = sequence(LAST_EPOCH - 1);
        let _ = s.take(5);
        assert!(s.bump());
        assert_eq!(s.take(1), Stamp { producer_id: 7, producer_epoch: LAST_EPOCH, base_sequence: 0 });
        assert!(!s.bump());
    }
}
