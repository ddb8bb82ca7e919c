//! One partition's replicated log, with the rules by which a leader recognises what an idempotent producer sends again.
//!
//! | the batch | the leader |
//! |---|---|
//! | no producer id | appends |
//! | unknown producer | appends at any sequence; before Kafka 2.5 only at 0, else UNKNOWN_PRODUCER_ID |
//! | older epoch | INVALID_PRODUCER_EPOCH |
//! | newer epoch | appends at sequence 0, else OUT_OF_ORDER_SEQUENCE_NUMBER |
//! | one of the last five again | success, with the offset it got then |
//! | the next sequence | appends |
//! | an older sequence | OUT_OF_ORDER_SEQUENCE_NUMBER, or DUPLICATE_SEQUENCE_NUMBER from some versions |
//! | anything else | OUT_OF_ORDER_SEQUENCE_NUMBER |

use kafka_client::ErrorCode;
use kafka_records::Batch;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// How many batches of a producer a leader remembers (KIP-98).
const WINDOW: usize = 5;

/// What the broker's version makes of sequences.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// An unknown producer must begin at 0.
    pub(crate) begins_at_zero: bool,
    /// A sequence before the window is a duplicate, not out of order.
    pub(crate) old_is_duplicate: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Stored>,
    end: i64,
    producers: BTreeMap<i64, Producer>,
}

/// A record in the log.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    pub(crate) value: String,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// First and last sequence, and base offset.
    batches: VecDeque<(i32, i32, i64)>,
    last_append: Instant,
}

/// A batch as it came.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) values: Vec<String>,
}

impl Incoming {
    pub(crate) fn new(batch: &Batch, values: Vec<String>) -> Self {
        Self { producer_id: batch.producer_id, epoch: batch.producer_epoch, sequence: batch.base_sequence, values }
    }

    fn last_sequence(&self) -> i32 {
        plus(self.sequence, self.values.len() - 1)
    }
}

/// Sequence numbers go from `i32::MAX` on to 0.
fn plus(sequence: i32, count: usize) -> i32 {
    ((i64::from(sequence) + count as i64) & i64::from(i32::MAX)) as i32
}

impl Log {
    /// Appends `batch` or says why not. The offset of its first record.
    pub(crate) fn append(&mut self, batch: &Incoming, rules: Rules, now: Instant) -> Result<i64, ErrorCode> {
        if batch.producer_id >= 0
            && let Some(known) = self.check(batch, rules)?
        {
            return Ok(known);
        }
        let base = self.end;
        let offsets = base..;
        self.records.extend(offsets.zip(&batch.values).map(|(offset, value)| Stored { offset, value: value.clone() }));
        self.end += batch.values.len() as i64;
        if batch.producer_id >= 0 {
            let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer {
                epoch: batch.epoch,
                batches: VecDeque::new(),
                last_append: now,
            });
            if producer.epoch != batch.epoch {
                producer.epoch = batch.epoch;
                producer.batches.clear();
            }
            producer.last_append = now;
            producer.batches.push_back((batch.sequence, batch.last_sequence(), base));
            if producer.batches.len() > WINDOW {
                producer.batches.pop_front();
            }
        }
        Ok(base)
    }

    /// The offset of a batch that is there already; `None` if it is to be appended.
    fn check(&self, batch: &Incoming, rules: Rules) -> Result<Option<i64>, ErrorCode> {
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return if rules.begins_at_zero && batch.sequence != 0 {
                Err(ErrorCode::UNKNOWN_PRODUCER_ID)
            } else {
                Ok(None)
            };
        };
        if batch.epoch < producer.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if batch.epoch > producer.epoch {
            return if batch.sequence == 0 { Ok(None) } else { Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) };
        }
        let same = |(first, last, _): &&(i32, i32, i64)| (*first, *last) == (batch.sequence, batch.last_sequence());
        if let Some((_, _, base)) = producer.batches.iter().find(same) {
            return Ok(Some(*base));
        }
        let (first, last) = (producer.batches.front(), producer.batches.back());
        match (first, last) {
            (_, Some((_, last, _))) if plus(*last, 1) == batch.sequence => Ok(None),
            (Some((first, _, _)), _) if rules.old_is_duplicate && batch.last_sequence() < *first => {
                Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)
            }
            _ => Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        }
    }

    /// Leaves offsets out, as the marker of somebody's transaction does.
    pub(crate) fn skip_offset(&mut self) {
        self.end += 1;
    }

    /// Forgets producers that have been silent since `since`, as `producer.id.expiration.ms` makes brokers do.
    pub(crate) fn expire_producers(&mut self, since: Instant) {
        self.producers.retain(|_, producer| producer.last_append > since);
    }
}

#[test]
fn a_leader_recognises_what_is_sent_again() {
    let now = Instant::now();
    let batch =
        |epoch, sequence, count| Incoming { producer_id: 7, epoch, sequence, values: vec![String::new(); count] };
    let rules = Rules::default();
    let mut log = Log::default();
    assert_eq!(log.append(&batch(0, 10, 2), rules, now), Ok(0), "an unknown producer begins anywhere");
    assert_eq!(log.append(&batch(0, 10, 2), rules, now), Ok(0));
    assert_eq!(log.append(&batch(0, 10, 1), rules, now), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(log.append(&batch(0, 13, 1), rules, now), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    for i in 0..5 {
        assert_eq!(log.append(&batch(0, 12 + i, 1), rules, now), Ok(2 + i64::from(i)));
    }
    assert_eq!(log.append(&batch(0, 10, 2), rules, now), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "too old");
    let old_is_duplicate = Rules { old_is_duplicate: true, ..rules };
    assert_eq!(log.append(&batch(0, 10, 2), old_is_duplicate, now), Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    assert_eq!(log.append(&batch(1, 3, 1), rules, now), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(log.append(&batch(1, 0, 1), rules, now), Ok(7));
    assert_eq!(log.append(&batch(0, 17, 1), rules, now), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    log.expire_producers(now);
    let begins_at_zero = Rules { begins_at_zero: true, ..rules };
    assert_eq!(log.append(&batch(1, 1, 1), begins_at_zero, now), Err(ErrorCode::UNKNOWN_PRODUCER_ID));
    assert_eq!(log.records.len(), 8);
}
