//! The PROXY protocol header, version 2, as AWS's network load balancers write it.
//!
//! ```text
//! signature 12 │ version, command │ family │ length │ addresses │ CRC32C │ VPC endpoint │ padding
//! ```
//!
//! What is behind the addresses is a list of TLVs: type, two bytes of length, value. A header for a client has a length of
//! at least 84, which padding (type 0x04) fills up. A health check's says that the balancer speaks for itself (command
//! LOCAL), names the family of IPv4, and brings no address of it: its TLVs begin where addresses would.

use std::net::{IpAddr, SocketAddr};

use crc_fast::{CrcAlgorithm, Digest};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TLV_CRC32C: u8 = 0x03;
const TLV_NOOP: u8 = 0x04;
const TLV_AWS: u8 = 0xea;
const AWS_VPC_ENDPOINT: u8 = 0x01;
/// What is behind the length is filled up to this, in the headers that were seen.
const USUAL_LENGTH: usize = 84;

/// In front of a client's bytes: where it comes from and where it went to, and the endpoint that it came through.
pub fn of_client(source: SocketAddr, destination: SocketAddr, endpoint: Option<&str>, checksum: bool) -> Vec<u8> {
    let (family, mut block) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
        (from, to) => (0x21, [from, to].map(|ip| as_v6(ip).octets()).concat()),
    };
    block.extend(source.port().to_be_bytes());
    block.extend(destination.port().to_be_bytes());
    header(0x21, family, block, endpoint, checksum)
}

/// In front of a health check.
pub fn of_health_check(checksum: bool) -> Vec<u8> {
    header(0x20, 0x11, Vec::new(), None, checksum)
}

fn as_v6(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn header(command: u8, family: u8, mut block: Vec<u8>, endpoint: Option<&str>, checksum: bool) -> Vec<u8> {
    const START: usize = SIGNATURE.len() + 4;
    let mut checksum_at = None;
    if checksum {
        checksum_at = Some(START + block.len() + 3);
        tlv(&mut block, TLV_CRC32C, &[0; 4]);
    }
    if let Some(endpoint) = endpoint {
        tlv(&mut block, TLV_AWS, &[&[AWS_VPC_ENDPOINT], endpoint.as_bytes()].concat());
    }
    if let Some(padding) = USUAL_LENGTH.checked_sub(block.len() + 3) {
        tlv(&mut block, TLV_NOOP, &vec![0; padding]);
    }
    let length = u16::try_from(block.len()).expect("addresses and an id are short").to_be_bytes();
    let mut header = [&SIGNATURE[..], &[command, family], &length, &block].concat();
    if let Some(at) = checksum_at {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&header);
        let checksum = u32::try_from(digest.finalize()).expect("32 bits");
        header[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
    header
}

fn tlv(block: &mut Vec<u8>, kind: u8, value: &[u8]) {
    block.push(kind);
    block.extend(u16::try_from(value.len()).expect("an id or padding").to_be_bytes());
    block.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    // Both were captured behind load balancers of AWS: elastic-load-balancing-tools on GitHub, and Kubernetes' issue
    // 57250 there.

    #[test]
    fn a_client_behind_an_endpoint_has_the_header_that_was_captured() {
        let captured = hex(&format!(
            "0d0a0d0a000d0a515549540a 21 11 0054 ac1f0771 ac1f0a1f c8f2 0050 03 0004 e8d6892d
             ea 0017 01 767063652d30386432626631356661633530303163 39 04 0024 {}",
            "00".repeat(36)
        ));
        let from = "172.31.7.113:51442".parse().expect("an address");
        let to = "172.31.10.31:80".parse().expect("an address");
        assert_eq!(of_client(from, to, Some("vpce-08d2bf15fac5001c9"), true), captured);
    }

    #[test]
    fn a_health_check_has_the_header_that_was_captured() {
        let captured =
            hex(&format!("0d0a0d0a000d0a515549540a 20 11 0054 03 0004 bce5951f 04 004a {}", "00".repeat(74)));
        assert_eq!(of_health_check(true), captured);
    }

    #[test]
    fn checksum_and_endpoint_can_be_left_out() {
        let address = "127.0.0.1:80".parse().expect("an address");
        let header = of_client(address, address, None, false);
        assert_eq!((header.len(), &header[28..31]), (100, &[TLV_NOOP, 0, 69][..]));
        let v6 = of_client("[::1]:80".parse().expect("an address"), address, Some("vpce-1"), true);
        assert_eq!((v6[13], v6.len()), (0x21, 100));
    }
}
