//! The PROXY protocol header that a load balancer puts in front of a connection.
//!
//! ```text
//!  0            12       13      14      16
//!  ├─ signature ─┼ version┼ family┼ length┼─ addresses ─┬─ TLV ─┬─ TLV ─┐ first byte of the client
//!  │ \r\n\r\n…\n  │ command│       │       │ 0, 12 or 36 │ type, length, │ (a TLS hello, mostly)
//!  └─────────────┴────────┴───────┴───────┴─────────────┴─ value ───────┘
//!                                          ╰──────── length bytes ──────╯
//! ```
//!
//! The data listener reads one header of version 2 and believes it: [`read_header`]. It reads exactly the header's
//! bytes, for what is behind them may be in the same segment and belongs to the TLS session. It is strict: what is not
//! understood to its last byte says nothing, and the connection is closed.
//!
//! The management listener is asked by health checks, which some balancers send with a header, and by people and
//! scrapers, who send none. The first bytes tell, since no HTTP request begins as a header does, and what the header
//! says is of no interest there: [`skip_header`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc_fast::{CrcAlgorithm, Digest};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Version 2: the signature, then version and command, family, and length.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature and the four bytes behind it.
const HEADER_V2: usize = 16;
/// Addresses and what else a version 2 header brings.
const MAX_V2: usize = 1024;
/// The TLV that has the CRC32C of the whole header, computed with zeros in its place.
const TLV_CRC32C: u8 = 0x03;
/// The TLV of Amazon's own facts: a subtype, then its value.
const TLV_AWS: u8 = 0xea;
/// Amazon's fact that the connection came through a VPC endpoint: its id in ASCII.
const AWS_VPC_ENDPOINT: u8 = 0x01;
/// An endpoint's id is 22 characters today.
const MAX_ENDPOINT: usize = 128;
const WRONG_CHECKSUM: &str = "its checksum is wrong";
/// Version 1: a line that begins so.
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, its `\r\n` included.
const MAX_V1: usize = 107;

/// What the bytes at the front of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// No header.
    None,
    /// A header of so many bytes.
    Header(usize),
    /// Not enough to tell.
    Incomplete,
    /// Begins as a header and is none.
    Malformed,
}

/// Looks at the bytes at the front of a connection.
fn front(bytes: &[u8]) -> Front {
    let begins_as = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    if begins_as(SIGNATURE_V2) {
        let Some(header) = bytes.first_chunk::<HEADER_V2>() else {
            return Front::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if header[12] >> 4 != 2 || header[12] & 0x0f > 1 || length > MAX_V2 {
            return Front::Malformed;
        }
        if bytes.len() < HEADER_V2 + length {
            return Front::Incomplete;
        }
        return Front::Header(HEADER_V2 + length);
    }
    if begins_as(SIGNATURE_V1) {
        return match memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_V1)]) {
            Some(end) if bytes[end - 1] == b'\r' => Front::Header(end + 1),
            None if bytes.len() < MAX_V1 => Front::Incomplete,
            _ => Front::Malformed,
        };
    }
    Front::None
}

/// Reads past a header, if there is one, and returns the bytes that were read and do not belong to it. They come before
/// whatever `stream` gives next.
///
/// # Errors
///
/// When the connection ends before it says anything whole, or begins as a header and is none.
pub(crate) async fn skip_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match front(&bytes) {
            Front::None => return Ok(bytes),
            Front::Header(length) => return Ok(bytes.split_off(length)),
            Front::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Front::Incomplete => {}
        }
    }
}

/// What a header says of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The balancer speaks for itself: a health check.
    Balancer,
    /// It speaks for a client.
    Client {
        /// The client's address, unless the balancer does not know it either.
        source: Option<SocketAddr>,
        /// The VPC endpoint that the client came through.
        endpoint: Option<Box<str>>,
    },
}

/// Why a connection has no origin.
#[derive(Debug)]
pub(crate) enum HeaderError {
    /// It does not begin with a header of version 2, or ends before it is whole.
    Absent,
    /// The header breaks a rule, which the text names.
    Malformed(&'static str),
}

impl From<io::Error> for HeaderError {
    fn from(_: io::Error) -> Self {
        Self::Absent
    }
}

/// Reads a header of version 2, and no byte of what is behind it.
///
/// # Errors
///
/// When there is none or it is not well-formed. The connection is good for nothing then.
///
/// # Cancel safety
///
/// Not cancel safe: bytes that were read are lost, and with them the connection.
pub(crate) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Origin, HeaderError> {
    let mut bytes = vec![0; HEADER_V2];
    // First the signature alone, so that whoever sends less than a header is not waited for.
    stream.read_exact(&mut bytes[..SIGNATURE_V2.len()]).await?;
    if !bytes.starts_with(SIGNATURE_V2) {
        return Err(HeaderError::Absent);
    }
    stream.read_exact(&mut bytes[SIGNATURE_V2.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MAX_V2 {
        return Err(HeaderError::Malformed("it is longer than 1 KiB"));
    }
    bytes.resize(HEADER_V2 + length, 0);
    stream.read_exact(&mut bytes[HEADER_V2..]).await?;
    parse(&bytes).map_err(HeaderError::Malformed)
}

/// `header` is the whole header and begins with the signature.
fn parse(header: &[u8]) -> Result<Origin, &'static str> {
    let (command, family, block) = (header[12], header[13], &header[HEADER_V2..]);
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        _ => return Err("its family is neither TCP nor unspecified"),
    };
    match command {
        // Whatever a health check says of addresses is to be ignored, and some balancers name a family and bring no
        // address of it.
        0x20 => {
            match read_tlvs(header, block) {
                Err(error) if error != WRONG_CHECKSUM => {
                    read_tlvs(header, block.get(addresses..).ok_or(error)?)?;
                }
                read => drop(read?),
            }
            Ok(Origin::Balancer)
        }
        0x21 => {
            let (address, tlvs) = block.split_at_checked(addresses).ok_or("it is too short for its addresses")?;
            Ok(Origin::Client { source: source(address), endpoint: read_tlvs(header, tlvs)? })
        }
        _ => Err("its version or command is unknown"),
    }
}

/// The source in a block of addresses: both addresses, then both ports.
fn source(block: &[u8]) -> Option<SocketAddr> {
    let (address, port) = if let Some(address) = block.first_chunk::<36>() {
        let ip = Ipv6Addr::from(*address.first_chunk::<16>()?);
        (IpAddr::from(ip).to_canonical(), [address[32], address[33]])
    } else {
        let address = block.first_chunk::<12>()?;
        (Ipv4Addr::from(*address.first_chunk::<4>()?).into(), [address[8], address[9]])
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(port)))
}

/// Goes through the TLVs, which end exactly where the header does; checks the checksum, and returns the endpoint.
fn read_tlvs(header: &[u8], tlvs: &[u8]) -> Result<Option<Box<str>>, &'static str> {
    let (mut endpoint, mut checksum) = (None, None);
    let mut rest = tlvs;
    while !rest.is_empty() {
        let (&[kind, high, low], behind) = rest.split_first_chunk().ok_or("a TLV is cut")?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = behind.split_at_checked(length).ok_or("a TLV is longer than the header")?;
        match (kind, value) {
            (TLV_CRC32C, &[a, b, c, d]) if checksum.is_none() => {
                checksum = Some((header.len() - behind.len() - 4, u32::from_be_bytes([a, b, c, d])));
            }
            (TLV_CRC32C, _) => return Err("its checksum has not four bytes, or comes twice"),
            (TLV_AWS, []) => return Err("a TLV of AWS has no subtype"),
            (TLV_AWS, [AWS_VPC_ENDPOINT, id @ ..]) if endpoint.is_none() => endpoint = Some(endpoint_id(id)?),
            (TLV_AWS, [AWS_VPC_ENDPOINT, ..]) => return Err("it names two endpoints"),
            _ => {}
        }
        rest = behind;
    }
    if let Some((at, told)) = checksum {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&header[..at]);
        digest.update(&[0; 4]);
        digest.update(&header[at + 4..]);
        if digest.finalize() != u64::from(told) {
            return Err(WRONG_CHECKSUM);
        }
    }
    Ok(endpoint)
}

/// An id is compared with the rules' and written to logs: nothing but letters, digits and hyphens is let in.
fn endpoint_id(bytes: &[u8]) -> Result<Box<str>, &'static str> {
    let is_id = |id: &&str| {
        let letters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        letters && (1..=MAX_ENDPOINT).contains(&id.len())
    };
    std::str::from_utf8(bytes).ok().filter(is_id).map(Into::into).ok_or("an endpoint's id is no id")
}

#[cfg(test)]
mod tests;
