//! What members of a group tell each other through the coordinator: subscriptions and assignments, as Kafka's own
//! consumers write them (ConsumerProtocolSubscription and ConsumerProtocolAssignment, versions 0 to 3).
//!
//! Both begin with their version. A newer one than is known is read as the newest that is, and what follows is left
//! alone; so Java does it, too.

use crate::wire::{DecodeError, Decoded, Reader, Writer};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// The newest version of both formats.
const VERSION: i16 = 3;

/// Partitions by topic.
pub(crate) type Partitions = Vec<(Arc<str>, Vec<i32>)>;

/// What a member wants to read, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    /// The topics it wants to read.
    pub topics: Vec<Arc<str>>,
    /// The assignor's own; cooperative-sticky writes its generation here before version 2.
    pub user_data: Option<Bytes>,
    /// What it holds and will give up only when it is told to (KIP-429).
    pub owned: Partitions,
    /// The generation in which `owned` was assigned; -1: unknown (KIP-792).
    pub generation: i32,
    /// Where it runs (KIP-881).
    pub rack: Option<Arc<str>>,
}

impl Subscription {
    /// As the coordinator passes it on.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(false);
        out.i16(VERSION);
        out.array(self.topics.len());
        for topic in &self.topics {
            out.string(topic);
        }
        write_user_data(&mut out, self.user_data.as_ref());
        write_partitions(&mut out, &self.owned);
        out.i32(self.generation);
        out.nullable_string(self.rack.as_deref());
        finish(out)
    }

    /// Reads another member's. The bytes are a peer's: nothing in them is believed.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut from = Reader::new(bytes, false);
        let version = version(&mut from)?;
        let topics = from.array(2, Reader::string)?;
        let user_data = from.nullable_bytes()?;
        let owned = if version >= 1 { read_partitions(&mut from)? } else { Vec::new() };
        let generation = if version >= 2 { from.i32()? } else { -1 };
        let rack = if version >= 3 { from.nullable_string()? } else { None };
        Ok(Self { topics, user_data, owned, generation, rack })
    }

    /// The generation of `owned`, from wherever this member writes it.
    pub(crate) fn owned_generation(&self) -> i32 {
        if self.generation >= 0 {
            return self.generation;
        }
        match self.user_data.as_deref() {
            Some(&[a, b, c, d, ..]) => i32::from_be_bytes([a, b, c, d]),
            _ => -1,
        }
    }
}

/// What a member is to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Assignment {
    /// By topic.
    pub partitions: Partitions,
}

impl Assignment {
    /// As the coordinator passes it on.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(false);
        out.i16(VERSION);
        write_partitions(&mut out, &self.partitions);
        write_user_data(&mut out, None);
        finish(out)
    }

    /// Reads what the leader assigned; no bytes are no partitions.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut from = Reader::new(bytes, false);
        version(&mut from)?;
        let partitions = read_partitions(&mut from)?;
        if partitions.iter().flat_map(|(_, partitions)| partitions).any(|partition| *partition < 0) {
            return Err(DecodeError::Inconsistent("a partition below 0"));
        }
        let _user_data = from.nullable_bytes()?;
        Ok(Self { partitions })
    }
}

/// The version whose fields are there.
fn version(from: &mut Reader) -> Decoded<i16> {
    match from.i16()? {
        version @ 0.. => Ok(version.min(VERSION)),
        _ => Err(DecodeError::Inconsistent("a version below 0")),
    }
}

fn read_partitions(from: &mut Reader) -> Decoded<Partitions> {
    from.array(6, |from| Ok((from.string()?, from.array(4, Reader::i32)?)))
}

fn write_partitions(out: &mut Writer, topics: &Partitions) {
    out.array(topics.len());
    for (topic, partitions) in topics {
        out.string(topic);
        out.array(partitions.len());
        for partition in partitions {
            out.i32(*partition);
        }
    }
}

fn write_user_data(out: &mut Writer, user_data: Option<&Bytes>) {
    match user_data {
        Some(bytes) => out.bytes_by_reference(bytes),
        // As long as a null array's count.
        None => out.null_array(),
    }
}

fn finish(out: Writer) -> Bytes {
    let pieces = out.finish().unwrap_or_default();
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::messages::{consumer_protocol_assignment as a, consumer_protocol_subscription as s};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn subscription() -> Subscription {
        Subscription {
            topics: vec!["a".into(), "b".into()],
            user_data: Some(Bytes::from_static(&[0, 0, 0, 7])),
            owned: vec![("a".into(), vec![0, 2])],
            generation: 7,
            rack: Some("az1".into()),
        }
    }

    #[test]
    fn others_read_what_we_write() {
        let mut bytes = subscription().encode();
        assert_eq!(bytes.split_to(2)[..], [0, 3]);
        let read = ConsumerProtocolSubscription::decode(&mut bytes, 3).expect("theirs");
        assert_eq!(read.topics, [text("a"), text("b")]);
        assert_eq!(read.user_data.as_deref(), Some(&[0, 0, 0, 7][..]));
        assert_eq!((&**read.owned_partitions[0].topic, &read.owned_partitions[0].partitions[..]), ("a", &[0, 2][..]));
        assert_eq!((read.generation_id, read.rack_id), (7, Some(text("az1"))));
        assert!(bytes.is_empty());
        let mut bytes = Assignment { partitions: vec![("a".into(), vec![1, 3])] }.encode();
        assert_eq!(bytes.split_to(2)[..], [0, 3]);
        let read = ConsumerProtocolAssignment::decode(&mut bytes, 3).expect("theirs");
        assert_eq!(read.assigned_partitions[0].partitions, [1, 3]);
        assert_eq!((read.user_data, bytes.len()), (None, 0));
    }

    #[test]
    fn we_read_every_version_that_others_write() {
        for version in 0..=3_i16 {
            let mut theirs = ConsumerProtocolSubscription::default()
                .with_topics(vec![text("a"), text("b")])
                .with_user_data(Some(Bytes::from_static(&[0, 0, 0, 7])));
            if version >= 1 {
                let owned = s::TopicPartition::default().with_topic(text("a").into()).with_partitions(vec![0, 2]);
                theirs.owned_partitions = vec![owned];
            }
            if version >= 2 {
                theirs.generation_id = 7;
            }
            theirs.rack_id = (version >= 3).then(|| text("az1"));
            let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
            theirs.encode(&mut bytes, version).expect("theirs");
            let read = Subscription::decode(bytes.freeze()).expect("ours");
            assert_eq!(read.owned_generation(), 7, "version {version}");
            assert_eq!(read.owned, if version >= 1 { subscription().owned } else { vec![] });
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("az1"));

            let topic = a::TopicPartition::default().with_topic(text("a").into()).with_partitions(vec![1, 3]);
            let theirs = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
            let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
            theirs.encode(&mut bytes, version).expect("theirs");
            let read = Assignment::decode(bytes.freeze()).expect("ours");
            assert_eq!(read.partitions, [("a".into(), vec![1, 3])]);
        }
    }

    #[test]
    fn a_version_from_the_future_is_read_as_far_as_it_is_known() {
        let mut bytes = BytesMut::from(&subscription().encode()[..]);
        bytes[1] = 9;
        bytes.extend_from_slice(b"more");
        assert_eq!(Subscription::decode(bytes.freeze()), Ok(subscription()));
        assert_eq!(Assignment::decode(Bytes::new()), Ok(Assignment::default()));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_peer_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Subscription::decode(bytes.clone());
            let _ = Assignment::decode(bytes);
        }
    }
}
