//! Walks the batches that a fetch brought, record by record.
//!
//! A fetch brings whole batches: records below the offset asked for are skipped, control batches are Kafka's own, and a
//! batch that the answer cut off is left for the next fetch. Readers of committed records do not see what belongs to
//! aborted transactions: the answer names them, in any order, by producer id and first offset; a marker of that producer
//! ends each.

use crate::Isolation;
use bytes::Bytes;
use kafka_records::{Batch, Batches, Compression, DecodeError, ReadRecord, Records, batches};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// What may still be taken.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Records.
    pub records: usize,
    /// Bytes of keys and values. The first record comes whatever its size.
    pub bytes: usize,
    /// Nothing was taken yet.
    pub first: bool,
}

impl Room {
    /// Room for so much.
    #[must_use]
    pub fn new(records: usize, bytes: usize) -> Self {
        Self { records, bytes, first: true }
    }

    /// Makes room for a record, if there is any.
    fn takes(&mut self, record: &ReadRecord) -> bool {
        let size = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
        if !self.first && (self.records == 0 || self.bytes < size) {
            return false;
        }
        self.first = false;
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        true
    }
}

/// The records of a fetch from an offset on.
#[derive(Debug)]
pub struct Cursor {
    batches: Batches,
    /// Of the batch that is being read.
    records: Option<Records>,
    /// Where the batch that is being read ends.
    batch_end: i64,
    next_offset: i64,
    /// Read and found too large for the room that was left.
    waiting: Option<ReadRecord>,
    broken: Option<Arc<DecodeError>>,
    aborted: Aborted,
    max_inflated: usize,
}

impl Cursor {
    /// `records`: of a fetch at `offset`. `aborted`: transactions by producer id and first offset, for readers of committed
    /// records. `max_inflated`: what one compressed batch may inflate to, in bytes.
    #[must_use]
    pub fn new(
        records: Bytes,
        offset: i64,
        isolation: Isolation,
        aborted: Vec<(i64, i64)>,
        max_inflated: usize,
    ) -> Self {
        Self {
            batches: batches(records),
            records: None,
            batch_end: offset,
            next_offset: offset,
            waiting: None,
            broken: None,
            aborted: Aborted::new(if isolation == Isolation::ReadCommitted { aborted } else { Vec::new() }),
            max_inflated,
        }
    }

    /// Where reading goes on: behind the last record that was taken and whatever is not one.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Moves records to `out` while there is room. Returns how many bytes compressed batches were inflated to meanwhile,
    /// which their records keep; `false`: nothing is left here.
    ///
    /// # Errors
    ///
    /// A batch that cannot be read, once everything before it has been taken.
    pub fn take(&mut self, out: &mut Vec<ReadRecord>, room: &mut Room) -> Result<(usize, bool), Arc<DecodeError>> {
        let begun = out.len();
        let mut inflated = 0;
        loop {
            if let Some(error) = &self.broken {
                // What lies before it is intact.
                return if out.len() > begun { Ok((inflated, true)) } else { Err(error.clone()) };
            }
            let step = match self.waiting.take() {
                Some(record) => Ok(Some(record)),
                None => self.next_record(&mut inflated),
            };
            match step {
                Ok(Some(record)) if room.takes(&record) => {
                    self.next_offset = record.offset + 1;
                    out.push(record);
                }
                Ok(Some(record)) => {
                    self.waiting = Some(record);
                    return Ok((inflated, true));
                }
                Ok(None) => return Ok((inflated, false)),
                Err(error) => self.broken = Some(Arc::new(error)),
            }
        }
    }

    fn next_record(&mut self, inflated: &mut usize) -> Result<Option<ReadRecord>, DecodeError> {
        loop {
            if let Some(records) = &mut self.records {
                match records.next().transpose()? {
                    Some(record) if record.offset < self.next_offset => {}
                    Some(record) => return Ok(Some(record)),
                    None => {
                        self.records = None;
                        self.next_offset = self.next_offset.max(self.batch_end);
                    }
                }
                continue;
            }
            let Some(batch) = self.batches.next().transpose()? else {
                return Ok(None);
            };
            let is_read = self.aborted.lets_through(&batch);
            if batch.next_offset() <= self.next_offset {
                continue;
            }
            self.batch_end = batch.next_offset();
            if !is_read {
                self.next_offset = self.batch_end;
                continue;
            }
            let records = batch.records(self.max_inflated)?;
            if batch.compression != Compression::None {
                *inflated += records.held_bytes();
            }
            self.records = Some(records);
        }
    }
}

/// Which batches belong to aborted transactions.
#[derive(Debug)]
struct Aborted {
    /// Producer ids by first offset, lowest first.
    to_come: VecDeque<(i64, i64)>,
    /// Producers whose aborted transaction is open where the reading is.
    open: HashSet<i64>,
}

impl Aborted {
    fn new(mut aborted: Vec<(i64, i64)>) -> Self {
        aborted.sort_by_key(|(_, first_offset)| *first_offset);
        Self { to_come: aborted.into(), open: HashSet::new() }
    }

    /// Whether the records of the next batch are anybody's to read.
    fn lets_through(&mut self, batch: &Batch) -> bool {
        while let Some(&(producer, first_offset)) = self.to_come.front()
            && first_offset < batch.next_offset()
        {
            self.open.insert(producer);
            self.to_come.pop_front();
        }
        if batch.is_control {
            // A marker of a producer whose aborted transaction is open is its end.
            self.open.remove(&batch.producer_id);
            return false;
        }
        !(batch.is_transactional && self.open.contains(&batch.producer_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records as theirs;

    /// A batch by another implementation.
    fn batch(base: i64, values: &[&str], producer: i64, control: bool) -> Bytes {
        let records: Vec<_> = (0..)
            .zip(values)
            .map(|(index, value)| theirs::Record {
                transactional: producer >= 0,
                control,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: producer,
                producer_epoch: 0,
                timestamp_type: theirs::TimestampType::Creation,
                offset: base + index,
                sequence: if producer >= 0 { i32::try_from(index).expect("small") } else { -1 },
                timestamp: 1,
                key: control.then(|| Bytes::from_static(&[0, 0, 0, 0])),
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        theirs::RecordBatchEncoder::encode(&mut out, &records, &options).expect("a batch");
        out.freeze()
    }

    fn cursor(batches: &[Bytes], offset: i64, aborted: &[(i64, i64)]) -> Cursor {
        Cursor::new(batches.concat().into(), offset, Isolation::ReadCommitted, aborted.to_vec(), 1 << 20)
    }

    fn taken(cursor: &mut Cursor, mut room: Room) -> Vec<String> {
        let mut out = Vec::new();
        cursor.take(&mut out, &mut room).expect("intact");
        out.iter().map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into()).collect()
    }

    const ALL: Room = Room { records: 100, bytes: 1000, first: true };

    #[test]
    fn what_was_aborted_is_left_out() {
        let log = [
            batch(0, &["a0", "a1"], 7, false),
            batch(2, &["b2"], 8, false),
            batch(3, &["plain"], -1, false),
            batch(4, &["end of 7"], 7, true),
            batch(5, &["a5"], 7, false),
            batch(6, &["end of 8"], 8, true),
            batch(7, &["end of 7"], 7, true),
            batch(8, &["b8"], 8, false),
        ];
        // Not in the order of their offsets.
        let mut cursor_ = cursor(&log, 0, &[(8, 8), (7, 0)]);
        assert_eq!(taken(&mut cursor_, ALL), ["b2", "plain", "a5"]);
        assert_eq!(cursor_.next_offset(), 9);
        // A fetch that begins in the middle of an aborted transaction.
        assert_eq!(taken(&mut cursor(&log[1..], 2, &[(8, 2)]), ALL), ["plain", "a5", "b8"]);
        let all = Cursor::new(log.concat().into(), 0, Isolation::ReadUncommitted, vec![(7, 0)], 1 << 20);
        assert_eq!(taken(&mut { all }, ALL), ["a0", "a1", "b2", "plain", "a5", "b8"]);
    }

    #[test]
    fn what_is_below_the_offset_is_skipped_and_a_cut_batch_waits() {
        let log = [batch(0, &["a", "b", "c"], -1, false), batch(3, &["d", "e"], -1, false)];
        let mut whole = log.concat();
        whole.truncate(whole.len() - 1);
        let mut cursor = Cursor::new(whole.into(), 1, Isolation::ReadUncommitted, vec![], 1 << 20);
        // Without a producer each record is a batch of its own: the last one is cut.
        assert_eq!(taken(&mut cursor, ALL), ["b", "c", "d"]);
        assert_eq!(cursor.next_offset(), 4);
        assert_eq!(taken(&mut cursor, ALL), [""; 0]);
    }

    #[test]
    fn records_come_as_there_is_room_and_one_always_does() {
        let log = [batch(0, &["first", "second"], -1, false), batch(2, &["third"], -1, false)];
        let mut cursor = cursor(&log, 0, &[]);
        assert_eq!(taken(&mut cursor, Room::new(10, 1)), ["first"], "larger than the room, and alone");
        assert_eq!(cursor.next_offset(), 1);
        assert_eq!(taken(&mut cursor, Room { first: false, ..Room::new(10, 1) }), [""; 0]);
        assert_eq!(taken(&mut cursor, Room::new(1, 100)), ["second"]);
        assert_eq!(taken(&mut cursor, Room::new(1, 100)), ["third"]);
        assert_eq!(cursor.next_offset(), 3);
    }

    #[test]
    fn a_broken_batch_is_told_after_what_lies_before_it() {
        let mut log = [batch(0, &["a"], -1, false), batch(1, &["b"], -1, false)].concat();
        let last = log.len() - 1;
        log[last] ^= 1;
        let mut cursor = Cursor::new(log.into(), 0, Isolation::ReadUncommitted, vec![], 1 << 20);
        assert_eq!(taken(&mut cursor, ALL), ["a"]);
        assert_eq!(cursor.next_offset(), 1);
        cursor.take(&mut Vec::new(), &mut { ALL }).expect_err("the second");
        cursor.take(&mut Vec::new(), &mut { ALL }).expect_err("for ever");
    }
}
