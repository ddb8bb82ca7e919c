use super::*;

fn v2(command: u8, length: u16) -> Vec<u8> {
    let mut header = SIGNATURE_V2.to_vec();
    header.extend_from_slice(&[command, 0x11]);
    header.extend_from_slice(&length.to_be_bytes());
    header.resize(HEADER_V2 + usize::from(length), 7);
    header
}

/// What is left of `bytes` when they come in pieces of `piece` bytes.
async fn skip(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let (mut near, mut far) = tokio::io::duplex(piece);
    let bytes = bytes.to_vec();
    let writer = async move {
        // The reader may stop before it has read everything.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await;
    };
    let reader = async move {
        let mut rest = skip_header(&mut near).await?;
        near.read_to_end(&mut rest).await?;
        Ok(rest)
    };
    tokio::join!(writer, reader).1
}

#[tokio::test]
async fn a_header_is_skipped_however_it_is_cut() {
    let request = b"GET /livez HTTP/1.1\r\n\r\n";
    let v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 8081\r\n".to_vec();
    for header in [v2(0x21, 12), v2(0x20, 0), v2(0x21, 1024), v1, b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
        for piece in [1, 5, 16, 4096] {
            let bytes = [&header[..], request].concat();
            assert_eq!(skip(&bytes, piece).await.expect("well-formed"), request);
        }
    }
}

#[tokio::test]
async fn what_begins_as_a_header_and_is_none_is_refused() {
    let long_v1 = [&b"PROXY "[..], &[b'x'; 200]].concat();
    for bytes in [
        v2(0x11, 0),
        v2(0x22, 0),
        v2(0x21, 1025),
        long_v1,
        b"PROXY TCP4\n".to_vec(),
        v2(0x21, 12)[..20].to_vec(),
        b"PRO".to_vec(),
        Vec::new(),
    ] {
        skip(&bytes, 64).await.expect_err("refused");
    }
}

#[test]
fn no_request_looks_like_a_header() {
    for bytes in [&b"GET / HTTP/1.1"[..], b"P", b"POST / ", b"PUT /"] {
        assert!(matches!(front(bytes), Front::None | Front::Incomplete), "{bytes:?}");
    }
    assert_eq!(front(b"POST"), Front::None);
}

/// As an AWS Network Load Balancer sends it for a client behind a VPC endpoint: 172.31.7.113:51442 to
/// 172.31.10.31:80 through vpce-08d2bf15fac5001c9.
fn private_link() -> Vec<u8> {
    let mut header = unhex("0d0a0d0a000d0a515549540a 2111 0054 ac1f0771 ac1f0a1f c8f2 0050 030004 e8d6892d ea001701");
    header.extend_from_slice(b"vpce-08d2bf15fac5001c9");
    header.extend_from_slice(&[4, 0, 0x24]);
    header.resize(100, 0);
    header
}

/// As it sends it with a health check.
fn health_check() -> Vec<u8> {
    let mut header = unhex("0d0a0d0a000d0a515549540a 2011 0054 030004 bce5951f 04004a");
    header.resize(100, 0);
    header
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

/// A header of this command and family around `block`.
fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE_V2.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(block.len()).expect("short").to_be_bytes());
    header.extend_from_slice(block);
    header
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
}

/// 192.0.2.7:4000 to 192.0.2.1:8443.
const TCP4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0x20, 0xfb];

async fn origin(mut bytes: &[u8]) -> Result<Origin, HeaderError> {
    read_header(&mut bytes).await
}

#[tokio::test]
async fn what_balancers_send_is_understood() {
    let client = |source: &str, endpoint: Option<&str>| Origin::Client {
        source: Some(source.parse().expect("an address")),
        endpoint: endpoint.map(Into::into),
    };
    let mut tcp6 = [0; 36];
    tcp6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets());
    tcp6[32..34].copy_from_slice(&443_u16.to_be_bytes());
    let with_tlv = [&TCP4[..], &tlv(4, &[0; 900]), &tlv(0xea, b"\x02elsewhere")].concat();
    for (bytes, expected) in [
        (private_link(), client("172.31.7.113:51442", Some("vpce-08d2bf15fac5001c9"))),
        (health_check(), Origin::Balancer),
        (header(0x20, 0, b""), Origin::Balancer),
        (header(0x20, 0x11, &TCP4), Origin::Balancer),
        (header(0x21, 0x11, &TCP4), client("192.0.2.7:4000", None)),
        (header(0x21, 0x11, &with_tlv), client("192.0.2.7:4000", None)),
        (header(0x21, 0x21, &tcp6), client("[2001:db8::7]:443", None)),
        (header(0x21, 0, b""), Origin::Client { source: None, endpoint: None }),
    ] {
        let read = origin(&bytes).await.unwrap_or_else(|error| panic!("{error:?}: {bytes:x?}"));
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn nothing_behind_the_header_is_read() {
    let bytes = [&private_link()[..], b"\x16\x03\x01 hello"].concat();
    for piece in [1, 7, 100, 4096] {
        let (mut near, mut far) = tokio::io::duplex(piece);
        let bytes = bytes.clone();
        let writer = async move {
            let written = tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await;
            drop(far);
            written.expect("it is read to its end");
        };
        let reader = async move {
            read_header(&mut near).await.expect("a header");
            let mut rest = Vec::new();
            near.read_to_end(&mut rest).await.expect("the rest");
            rest
        };
        assert_eq!(tokio::join!(writer, reader).1, b"\x16\x03\x01 hello");
    }
}

#[tokio::test]
async fn a_header_that_is_not_well_formed_says_nothing() {
    let with = |tlvs: &[u8]| header(0x21, 0x11, &[&TCP4[..], tlvs].concat());
    let endpoint = |id: &[u8]| with(&tlv(0xea, &[b"\x01", id].concat()));
    let mut flipped = private_link();
    flipped[40] ^= 1;
    let mut flipped_check = health_check();
    flipped_check[99] ^= 1;
    let twice = tlv(0xea, b"\x01vpce-1").repeat(2);
    for bytes in [
        header(0x11, 0x11, &TCP4),
        header(0x22, 0x11, &TCP4),
        header(0x21, 0x12, &TCP4),
        header(0x21, 0x31, &[0; 216]),
        header(0x21, 0x11, &TCP4[..11]),
        header(0x21, 0x21, &TCP4),
        header(0x21, 0x11, &[0; 1025]),
        with(&[4]),
        with(&[4, 0]),
        with(&[4, 0, 2, 9]),
        with(&tlv(3, &[0; 3])),
        with(&tlv(3, &[0; 4])),
        with(&tlv(0xea, b"")),
        with(&twice),
        endpoint(b""),
        endpoint(b"vpce-1\n"),
        endpoint(b"vpce-\xff"),
        endpoint(&[b'a'; 129]),
        header(0x20, 0, &[1]),
        flipped,
        flipped_check,
    ] {
        assert!(matches!(origin(&bytes).await, Err(HeaderError::Malformed(_))), "{bytes:x?}");
    }
}

#[tokio::test]
async fn a_connection_without_a_whole_header_has_none() {
    let cut = private_link();
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 8443\r\n",
        &cut[..15],
        &cut[..99],
    ] {
        assert!(matches!(origin(bytes).await, Err(HeaderError::Absent)), "{bytes:x?}");
    }
}
