use super::*;

const LIMIT: usize = 16 * 1024;

fn read(head: &str) -> Result<Head, BadHead> {
    let range = HeadEnd::default().find(head.as_bytes(), LIMIT)?.expect("it has an end");
    assert_eq!(range.end, head.len(), "{head:?}");
    parse(Bytes::copy_from_slice(&head.as_bytes()[range]))
}

fn with(fields: &str) -> Result<Head, BadHead> {
    read(&format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

fn status(read: Result<Head, BadHead>) -> u16 {
    read.map_or_else(|bad| bad.status.as_u16(), |_| 200)
}

#[test]
fn a_head_is_what_it_says() {
    let head = read("PUT /v1/topics/t?a=b HTTP/1.1\r\nHost: h:8443\r\nKafka-Header: a=1\r\nkafka-header: b=2 \r\n\r\n")
        .expect("good");
    assert_eq!((head.parts.method, head.parts.version), (Method::PUT, Version::HTTP_11));
    assert_eq!((head.parts.uri.path(), head.parts.uri.query()), ("/v1/topics/t", Some("a=b")));
    let values: Vec<_> = head.parts.headers.get_all("Kafka-Header").into_iter().collect();
    assert_eq!(values, ["a=1", "b=2"]);
    assert_eq!((head.framing, head.keep_alive, head.expects_continue), (Framing::Length(0), true, false));
}

#[test]
fn the_end_is_found_however_the_bytes_come() {
    let bytes = b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nGET ";
    for step in 1..bytes.len() {
        let mut end = HeadEnd::default();
        let mut found = None;
        for upto in (step..bytes.len()).step_by(step).chain([bytes.len()]) {
            found = found.or(end.find(&bytes[..upto], LIMIT).expect("good"));
        }
        assert_eq!(found, Some(2..bytes.len() - 4), "in steps of {step}");
    }
}

#[test]
fn lines_end_with_cr_and_lf() {
    for head in ["GET / HTTP/1.1\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\n\n", "\nGET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(HeadEnd::default().find(head.as_bytes(), LIMIT).expect_err(head).status, 400);
    }
    assert_eq!(status(with("A: x\ry\r\n")), 400);
    assert_eq!(status(with("A: x\r\n folded\r\n")), 400);
}

/// Found by fuzzing: what was refused in pieces passed as a whole.
#[test]
fn what_is_refused_does_not_depend_on_how_it_is_cut() {
    for head in ["+ET / HTTP/1.1\r\nHost: h\r\n\r\n", &format!("GET /{}\nx\r\n\r\n", "x".repeat(100))] {
        let whole = HeadEnd::default().find(head.as_bytes(), 100).expect_err("refused");
        let mut end = HeadEnd::default();
        let cut = (1..=head.len()).find_map(|upto| end.find(&head.as_bytes()[..upto], 100).err());
        assert_eq!(cut, Some(whole), "{head:?}");
    }
}

#[test]
fn what_is_no_request_is_told_at_once() {
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"\0", b" GET", b"\r\n\r\n"] {
        assert!(HeadEnd::default().find(bytes, LIMIT).is_err(), "{bytes:?}");
    }
    assert_eq!(status(read("PRI * HTTP/2.0\r\n\r\n")), 505);
    assert_eq!(status(read("GET / HTTP/1.2\r\nHost: h\r\n\r\n")), 505);
    assert_eq!(status(read("GET /\r\nHost: h\r\n\r\n")), 400);
}

#[test]
fn a_head_is_bounded_in_bytes_and_fields() {
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(200));
    for limit in [100, long.len() - 1] {
        assert_eq!(HeadEnd::default().find(long.as_bytes(), limit).expect_err("too long").status, 431);
        assert_eq!(HeadEnd::default().find(&long.as_bytes()[..limit + 1], limit).expect_err("too long").status, 431);
    }
    assert_eq!(HeadEnd::default().find(long.as_bytes(), long.len()), Ok(Some(0..long.len())));
    assert_eq!(status(with(&"A: x\r\n".repeat(99))), 200);
    assert_eq!(status(with(&"A: x\r\n".repeat(100))), 431);
}

#[test]
fn a_body_is_framed_in_one_way() {
    for (fields, framing) in [
        ("", Framing::Length(0)),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        assert_eq!(with(fields).expect(fields).framing, framing);
    }
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length:\r\n",
        "Content-Length : 1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
    ] {
        assert_eq!(status(with(fields)), 400, "{fields:?}");
    }
    assert_eq!(status(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")), 400);
}

#[test]
fn there_is_one_host_and_it_is_one() {
    let host = |value: &str| read(&format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n"));
    for value in ["h", "h:1", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:8443", "a.b-c_d", "h:"] {
        assert_eq!(status(host(value)), 200, "{value}");
    }
    for value in ["", ":1", "u@h", "h:x", "h:123456", "h/p", "h, g", "h g", "[::1", "[]", "[::1]x", "h?q", "h#f", "ä"]
    {
        assert_eq!(status(host(value)), 400, "{value}");
    }
    assert_eq!(status(read("GET / HTTP/1.1\r\n\r\n")), 400);
    assert_eq!(status(read("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n")), 400);
    assert_eq!(status(read("GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n")), 400);
    assert_eq!(status(read("GET / HTTP/1.0\r\n\r\n")), 200);
}

#[test]
fn a_target_is_a_path() {
    let target = |target: &str| read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    for good in ["/", "/a?b=%20c", "//a", "/a%23b", "http://h/a?b", "https://h:1"] {
        assert_eq!(status(target(good)), 200, "{good}");
    }
    assert_eq!(target("http://h/a?b").expect("good").parts.uri.path(), "/a");
    for bad in ["/a#b", "#", "a", "*", "h:443", "http:///a", "/ä", "/\u{7f}", "http://"] {
        assert_eq!(status(target(bad)), 400, "{bad}");
    }
    assert_eq!(status(read("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")), 200);
    assert_eq!(status(read("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n")), 400);
}

#[test]
fn keep_alive_is_the_rule_and_the_exception() {
    for (head, keep) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: TE , Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
    ] {
        assert_eq!(read(head).expect(head).keep_alive, keep, "{head:?}");
    }
}

#[test]
fn only_100_continue_is_expected() {
    assert!(with("Expect: 100-Continue\r\nContent-Length: 1\r\n").expect("good").expects_continue);
    assert!(!with("Expect: 100-continue\r\nContent-Length: 0\r\n").expect("good").expects_continue);
    assert_eq!(status(with("Expect: 101\r\n")), 417);
    let old = read("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expect("good");
    assert!(!old.expects_continue);
}
