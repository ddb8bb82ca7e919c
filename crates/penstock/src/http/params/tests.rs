use super::*;
use hyper::header::HeaderName;

const TIMEOUT: Duration = Duration::from_secs(30);

fn parse(query: &str, headers: &[(&'static str, &str)]) -> Result<ProduceParams, ApiError> {
    parse_with(query, headers, Validate::None)
}

fn parse_with(query: &str, headers: &[(&'static str, &str)], validate: Validate) -> Result<ProduceParams, ApiError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        map.append(HeaderName::from_static(name), value);
    }
    ProduceParams::parse(Some(query), &map, validate, TIMEOUT)
}

/// The message of the 400.
fn refused(query: &str, headers: &[(&'static str, &str)]) -> String {
    let error = parse(query, headers).expect_err("refused");
    assert_eq!(error.code, 400);
    error.message.into_owned()
}

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

#[test]
fn nothing_said_means_one_record_to_any_partition_now() {
    let params = parse("", &[]).expect("accepted");
    assert!(!params.ndjson && !params.progress && !params.validate);
    assert!(matches!(params.key, Key::None));
    assert_eq!((params.partition, params.timestamp, params.timeout, params.first_line), (None, None, None, 1));
}

#[test]
fn ndjson_has_three_names_and_parameters_do_not_matter() {
    for name in ["application/x-ndjson", "application/ndjson; charset=utf-8", "Application/JSONL"] {
        assert!(parse("", &[("content-type", name)]).expect("accepted").ndjson, "{name}");
    }
    for name in ["application/json", "text/plain", "", "application/x-ndjsonx"] {
        assert!(!parse("", &[("content-type", name)]).expect("accepted").ndjson, "{name}");
    }
}

#[test]
fn progress_is_for_ndjson_that_accepts_ndjson() {
    for (accept, progress) in [
        ("application/x-ndjson", true),
        ("application/json, application/x-ndjson;q=0.5", true),
        ("*/*", false),
        ("application/json", false),
    ] {
        assert_eq!(parse("", &[NDJSON, ("accept", accept)]).expect("accepted").progress, progress, "{accept}");
    }
    assert!(!parse("", &[("accept", "application/x-ndjson")]).expect("accepted").progress);
}

#[test]
fn parameters_are_decoded_and_checked() {
    let params = parse("partition=7&key=%2Fa%2Fb&validate=json", &[NDJSON]).expect("accepted");
    assert_eq!(params.partition, Some(7));
    assert!(params.validate);
    assert!(
        matches!(params.key, Key::Pointer { pointer, .. } if pointer == JsonPointer::parse("/a/b").expect("a pointer"))
    );

    assert_eq!(refused("partition=-1", &[]), "partition is a whole number from 0 to 2147483647");
    assert_eq!(refused("partition=", &[]), "partition is a whole number from 0 to 2147483647");
    assert_eq!(refused("partition=+1", &[]), "partition is a whole number from 0 to 2147483647");
    assert_eq!(refused("partition=1&partition=2", &[]), "the parameter \"partition\" is given twice");
    assert_eq!(refused("partion=1", &[]), "unknown parameter \"partion\"");
    assert_eq!(refused("key=a", &[NDJSON]), "key \"a\": a JSON pointer begins with \"/\"");
    assert_eq!(refused("validate=xml", &[]), "validate is json or none");
    assert_eq!(refused("a=%zz", &[]), "the query is not percent-encoded UTF-8");
    assert!(refused("key=/a", &[]).contains("for NDJSON"));
    assert!(refused("validate=json", &[]).contains("for NDJSON"));
}

#[test]
fn the_settings_validation_can_be_switched_off_by_the_request() {
    assert!(parse_with("", &[NDJSON], Validate::Json).expect("accepted").validate);
    assert!(!parse_with("validate=none", &[NDJSON], Validate::Json).expect("accepted").validate);
    assert!(!parse_with("", &[], Validate::Json).expect("accepted").validate);
}

#[test]
fn a_key_is_given_once_as_text_or_base64() {
    let key = |headers: &[(&'static str, &str)]| match parse("", headers).expect("accepted").key {
        Key::Fixed(key) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&[("kafka-key", "user 1")]), b"user 1");
    assert_eq!(key(&[("kafka-key", "ü")]), "ü".as_bytes());
    assert_eq!(key(&[("kafka-key", "")]), b"");
    assert_eq!(key(&[("kafka-key-base64", "AP8=")]), [0, 255]);
    assert!(refused("", &[("kafka-key", "a"), ("kafka-key", "b")]).contains("twice"));
    assert!(refused("", &[("kafka-key", "a"), ("kafka-key-base64", "YQ==")]).contains("twice"));
    assert!(refused("key=/a", &[NDJSON, ("kafka-key", "a")]).contains("twice"));
    assert!(refused("", &[("kafka-key-base64", "!")]).starts_with("Kafka-Key-Base64: "));
}

#[test]
fn record_headers_keep_order_and_duplicates() {
    let params = parse(
        "",
        &[
            ("kafka-header", "b=1"),
            ("kafka-header", "a=x=y"),
            ("kafka-header", "b="),
            ("kafka-header-base64", "c=AP8="),
        ],
    )
    .expect("accepted");
    let expected: [(&str, Option<&[u8]>); 4] =
        [("b", Some(b"1")), ("a", Some(b"x=y")), ("b", Some(b"")), ("c", Some(&[0, 255]))];
    assert_eq!(params.headers, HeaderBlock::new(expected));
    assert_eq!(refused("", &[("kafka-header", "novalue")]), "Kafka-Header is name=value");
    assert!(refused("", &[("kafka-header", "=v")]).contains("at least one character"));
    assert!(refused("", &[("kafka-header-base64", "n=%")]).starts_with("Kafka-Header-Base64 n: "));
}

#[test]
fn numbers_in_headers_have_bounds_that_are_told() {
    let params = parse(
        "",
        &[NDJSON, ("kafka-timestamp", "1700000000000"), ("kafka-timeout-ms", "250"), ("kafka-first-line", "41")],
    )
    .expect("accepted");
    assert_eq!(params.timestamp, Some(1_700_000_000_000));
    assert_eq!(params.timeout, Some(Duration::from_millis(250)));
    assert_eq!(params.first_line, 41);
    // Longer than the bridge itself waits: as long as it waits.
    assert_eq!(parse("", &[("kafka-timeout-ms", "99999999")]).expect("accepted").timeout, Some(TIMEOUT));

    let bound = "a whole number from";
    for header in [
        ("kafka-timestamp", "-1"),
        ("kafka-timestamp", "now"),
        ("kafka-timeout-ms", "0"),
        ("kafka-timeout-ms", "1e3"),
        ("kafka-first-line", "0"),
    ] {
        let message = refused("", &[NDJSON, header]);
        assert!(message.contains(header.0) && message.contains(bound), "{message}");
    }
    assert!(refused("", &[("kafka-first-line", "2")]).contains("for NDJSON"));
}
