//! The records field of a Fetch response, as it comes and with a first batch whose length and CRC are made right: without
//! that, hardly an input would get past the header.

use bytes::Bytes;
use kafka_records::{BatchBuilder, Compression, DecodeError, ReadRecord, Stamp, batches};

const MAX_INFLATED: usize = 1 << 20;

/// No bytes make the reader panic or allocate beyond its bound; what it reads, it can write and read again.
pub fn run(data: &[u8]) {
    let _ = read(data.to_vec());
    let _ = read(sealed(data.to_vec()));
}

/// Reads every batch, and writes and reads again what each one held.
fn read(field: Vec<u8>) -> Result<(), DecodeError> {
    for batch in batches(Bytes::from(field)) {
        let batch = batch?;
        let records: Vec<ReadRecord> = batch.records(MAX_INFLATED)?.collect::<Result<_, _>>()?;
        assert_eq!(records.len(), batch.count as usize);
        let mut builder = BatchBuilder::new(Vec::new());
        for record in &records {
            assert!((batch.base_offset..batch.next_offset()).contains(&record.offset));
            assert_eq!(record.headers.iter().count(), record.headers.len());
            builder.append(record.as_record());
        }
        let bytes = builder.close(Compression::None).stamp(Stamp::NONE);
        let again = batches(bytes.into()).next().expect("one batch").expect("a valid one");
        let again: Vec<ReadRecord> = again.records(0)?.collect::<Result<_, _>>()?;
        assert_eq!(again.len(), records.len());
        for (again, record) in again.iter().zip(&records) {
            assert_eq!(again.timestamp, record.timestamp);
            assert_eq!((&again.key, &again.value), (&record.key, &record.value));
            assert!(again.headers.iter().eq(record.headers.iter()));
        }
    }
    Ok(())
}

/// One batch of format v2 whose length is the input's and whose CRC is right.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    if batch.len() < 61 {
        return batch;
    }
    let length = i32::try_from(batch.len() - 12).expect("inputs are small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}
