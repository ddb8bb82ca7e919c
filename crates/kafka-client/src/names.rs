//! Names that every part uses.

use std::{fmt, sync::Arc};

/// A topic's id (KIP-516); all zero where the cluster has none (before 2.8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// No id.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this is [`TopicId::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A broker and the address it wants to be reached at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The node id.
    pub id: i32,
    /// The advertised host name or address.
    pub host: Arc<str>,
    /// The advertised port.
    pub port: u16,
    /// The rack, where one is configured.
    pub rack: Option<Arc<str>>,
}

/// A producer's identity (KIP-98): sequences are counted per identity and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerIdentity {
    /// The producer id.
    pub id: i64,
    /// The producer epoch; bumped locally when a sequence is lost (KIP-360).
    pub epoch: i16,
}
