//! Kafka record batches, message format v2 ([KIP-98]), as bytes: framed, hashed, compressed, read back. No I/O, no clock.
//!
//! A batch is a fixed header and the records behind it; the CRC covers everything from the attributes to the end, so
//! what a broker rewrites (base offset, leader epoch) lies in front of it:
//!
//! ```text
//!  0        8        12       16  17     21     23       27       35       43       51    53       57     61
//!  ├────────┼────────┼────────┼───┼──────┼──────┼────────┼────────┼────────┼────────┼─────┼────────┼──────┼─────────┄
//!  │ base   │ batch  │ leader │ 2 │ CRC  │ attr │ last   │ base   │ max    │producer│epoch│ base   │record│ records
//!  │ offset │ length │ epoch  │   │ 32C  │      │ offset │ time   │ time   │ id     │     │ seq.   │count │
//!  └────────┴────────┴────────┴───┴──────┴──────┴────────┴────────┴────────┴────────┴─────┴────────┴──────┴─────────┄
//!                                        └────────────────────────── CRC ───────────────────────────────────────────┄
//! ```
//!
//! **Writing.** The life of a batch is three types, each of which can do only what is still allowed:
//! [`BatchBuilder`] takes records and frames each one straight behind the room kept free for the header (the one copy
//! of a payload); [`ClosedBatch`] takes no more, is compressed if that was asked for, and can still be taken apart;
//! [`ClosedBatch::stamp`] writes the header with the producer's identity and returns the final bytes. A batch
//! that has been stamped may be on the wire, so nothing here can stamp it again.
//!
//! **Reading.** [`batches`] walks the records field of a Fetch response, [`Batch::records`] the records of one batch. Keys,
//! values and headers are slices of the input. No length or count that the peer wrote is believed before it is
//! compared with the bytes at hand, and decompression stops at the caller's bound.
//!
//! Only format v2 is handled; brokers have written it since Kafka 0.11 and refuse everything else since 4.0 (KIP-724).
//!
//! [KIP-98]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging

mod compression;
mod error;
mod header;
mod headers;
mod read;
mod records;
mod varint;
mod write;

pub use compression::Compression;
pub use error::{DecodeError, FieldProblem};
pub use header::BATCH_HEADER_BYTES;
pub use headers::{HeaderBlock, Headers};
pub use read::{Batch, Batches, batches};
pub use records::{ReadRecord, Records};
pub use write::{BatchBuilder, ClosedBatch, Record, Stamp};
