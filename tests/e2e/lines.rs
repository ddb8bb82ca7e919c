//! Where lines end, however the network cut them: each case here has broken a bridge somewhere.

use penstock_tests::{
    bridge::{Bridge, Settings},
    https::Connection,
    shared::{bridge, one_broker, three_brokers},
    tools::{curl_ndjson, curl_with_input},
};

use crate::support::{assert_counts, values};

const NDJSON: &[&str] = &["Content-Type: application/x-ndjson"];

/// Every kind of line end, empty lines, characters of two, three and four bytes, no line end at the end.
const BODY: &[u8] = "a\r\nbb\n\n\r\nccc\r\nd\u{e9}\u{20ac}\u{1f600}\ne\rf\rg\r\r\nlast".as_bytes();
/// Its lines, empty ones too.
const LINES: u64 = 8;

fn expected() -> [&'static [u8]; 5] {
    [b"a", b"bb", b"ccc", "d\u{e9}\u{20ac}\u{1f600}".as_bytes(), b"e\rf\rg\r"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_boundary_at_every_position_changes_nothing() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("boundary", 1);
    let request = format!("POST /v1/topics/{topic}/records");
    let mut connection = Connection::open(bridge.port).await;
    for at in 0..=BODY.len() {
        let (left, right) = BODY.split_at(at);
        let answer = connection.chunked(&request, NDJSON, &[left, right]).await.expect(200);
        assert_counts(&answer.json(), LINES, 6, 0, 0);
    }
    // Each byte a chunk of its own.
    let bytes: Vec<_> = BODY.chunks(1).collect();
    assert_counts(&connection.chunked(&request, NDJSON, &bytes).await.expect(200).json(), LINES, 6, 0, 0);

    let read = values(&cluster.bootstrap(), &topic);
    assert_eq!(read.len(), (BODY.len() + 2) * 6);
    for upload in read.chunks(6) {
        assert_eq!(upload[..5], expected());
        assert_eq!(upload[5], b"last");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_record_boundary_at_every_position_changes_nothing() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("boundary", 1);
    let head = format!(
        "POST /v1/topics/{topic}/records HTTP/1.1\r\nHost: localhost\r\n{}\r\nContent-Length: {}\r\n\r\n",
        NDJSON[0],
        BODY.len()
    );
    let mut connection = Connection::open(bridge.port).await;
    for at in 0..=BODY.len() {
        let (left, right) = BODY.split_at(at);
        connection.writer.send(&[head.as_bytes(), left].concat()).await;
        connection.writer.send(right).await;
        assert_counts(&connection.reader.answer().await.expect(200).json(), LINES, 6, 0, 0);
    }
    let read = values(&cluster.bootstrap(), &topic);
    assert_eq!(read.len(), (BODY.len() + 1) * 6);
    assert!(read.chunks(6).all(|upload| upload[..5] == expected() && upload[5] == b"last"));
}

#[test]
fn a_last_line_end_makes_no_line_of_its_own() {
    let (cluster, bridge) = (three_brokers(), bridge());
    for body in ["a\nb", "a\nb\n", "a\r\nb\r\n"] {
        let topic = cluster.create_topic("last", 1);
        let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), body.as_bytes()).expect(200);
        assert_counts(&answer.json(), 2, 2, 0, 0);
        assert_eq!(values(&cluster.bootstrap(), &topic), [b"a", b"b"], "{body:?}");
    }
}

#[test]
fn empty_lines_are_counted_and_not_written() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("empty", 1);
    let path = format!("/v1/topics/{topic}/records");
    let answer = curl_ndjson(bridge, &path, b"\n\r\n\n").expect(200);
    assert_counts(&answer.json(), 3, 0, 0, 0);
    let answer = curl_ndjson(bridge, &path, b"\n\nthird\n\nfifth").expect(200);
    assert_counts(&answer.json(), 5, 2, 0, 0);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"third", b"fifth"]);
}

#[test]
fn a_body_of_no_bytes_is_refused() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("nothing", 1);
    let path = format!("/v1/topics/{topic}/records");
    for kind in ["application/x-ndjson", "application/octet-stream"] {
        let kind = format!("Content-Type: {kind}");
        for way in [["-X", "POST", "-T", "-"], ["-X", "POST", "--data-binary", "@-"]] {
            let answer = curl_with_input(bridge, &path, &[&way[..], &["-H", &kind]].concat(), b"").expect(422);
            assert_eq!(answer.json()["error_code"], 42206, "{kind}");
        }
    }
    assert!(values(&cluster.bootstrap(), &topic).is_empty());
}

#[test]
fn bytes_that_are_no_text_pass_as_they_are() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("bytes", 1);
    // Every byte but the line end; not begun or ended by \r, which would belong to a line end.
    let mut line: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    line.extend_from_slice(b"\x00\xff\xfe");
    let body = [line.as_slice(), b"\n", &line, b"\r\n", &line].concat();
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), &body).expect(200);
    assert_counts(&answer.json(), 3, 3, 0, 0);
    assert_eq!(values(&cluster.bootstrap(), &topic), [&line[..], &line, &line]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_over_the_limit_is_refused_and_the_others_go_on() {
    const LIMIT: usize = 2_000;
    let cluster = one_broker();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("limits.record_bytes", "2000"));
    let exact = [b'x'; LIMIT];
    let over = [b'y'; LIMIT + 1];
    for end in [b"\n".as_slice(), b"\r\n"] {
        let topic = cluster.create_topic("limit", 1);
        let body = [b"first".as_slice(), end, &exact, end, &over, end, b"fourth", end, &over, end, &over, end, &exact]
            .concat();
        let request = format!("POST /v1/topics/{topic}/records");
        let mut connection = Connection::open(bridge.port).await;
        // In one piece, and in pieces that cut the long lines.
        for size in [body.len(), 1_999, 700] {
            let chunks: Vec<_> = body.chunks(size).collect();
            let answer = connection.chunked(&request, NDJSON, &chunks).await.expect(413);
            let summary = answer.json();
            assert_counts(&summary, 7, 4, 3, 0);
            assert_eq!(summary["error_code"], 413);
            let failures = summary["failures"].as_array().expect("a list");
            let ranges: Vec<_> = failures.iter().map(|range| (&range["first_line"], &range["last_line"])).collect();
            assert_eq!(serde_json::json!(ranges), serde_json::json!([[3, 3], [5, 6]]));
            assert!(failures.iter().all(|range| range["error_code"] == 413 && range["outcome"] == "not_written"));
        }
        let read = values(&cluster.bootstrap(), &topic);
        assert_eq!(read.len(), 12);
        let written: [&[u8]; 4] = [b"first", &exact, b"fourth", &exact];
        assert!(read.chunks(4).all(|upload| upload == written));
    }
}

#[test]
fn the_default_limit_is_one_mebibyte_a_line() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic_with("mebibyte", 1, &[("max.message.bytes", "2097152")]);
    let exact = vec![b'x'; 1 << 20];
    let body = [exact.as_slice(), b"\n", &exact, b"x\nshort\n"].concat();
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), &body).expect(413);
    assert_counts(&answer.json(), 3, 2, 1, 0);
    let read = values(&cluster.bootstrap(), &topic);
    assert!(read == [exact.as_slice(), b"short"], "{} values", read.len());
}

#[test]
fn a_line_that_the_topic_does_not_take_is_refused_and_the_others_go_on() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic_with("small", 1, &[("max.message.bytes", "4000")]);
    let long = vec![b'y'; 6_000];
    let body = [b"one\ntwo\n".as_slice(), &long, b"\nfour\n"].concat();
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), &body).expect(413);
    let summary = answer.json();
    assert_counts(&summary, 4, 3, 1, 0);
    assert_eq!(summary["failures"][0]["first_line"], 3);
    assert_eq!(summary["failures"][0]["last_line"], 3);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"one".as_slice(), b"two", b"four"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_line_of_an_upload_that_breaks_off_is_nobodys_record() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("broken", 1);
    let mut connection = Connection::open(bridge.port).await;
    connection.begin_chunked(&format!("POST /v1/topics/{topic}/records"), NDJSON).await;
    connection.writer.chunk(b"whole\nhal").await;
    drop(connection);
    // What was whole is written although its client has gone; what was half is not, then or later.
    penstock_tests::eventually("the whole line is written", std::time::Duration::from_secs(30), || {
        (!values(&cluster.bootstrap(), &topic).is_empty()).then_some(())
    });
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), b"after\n").expect(200);
    assert_counts(&answer.json(), 1, 1, 0, 0);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"whole".as_slice(), b"after"]);
}
