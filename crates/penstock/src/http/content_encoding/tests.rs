use super::*;
use flate2::write::GzEncoder;
use hyper::header::HeaderValue;

/// Decodes `body` fed in chunks of `chunk` bytes; also the largest step.
fn decode(encoding: ContentEncoding, body: &[u8], chunk: usize) -> Result<(Vec<u8>, usize), BrokenEncoding> {
    let mut decoder = Decoder::new(encoding).expect("an encoded body");
    let mut out = Vec::new();
    let mut largest = 0;
    for mut chunk in body.chunks(chunk) {
        while let Some(step) = decoder.step(&mut chunk)? {
            largest = largest.max(step.len());
            out.extend_from_slice(step);
        }
        assert!(chunk.is_empty(), "a chunk is used up");
    }
    let rest = decoder.finish()?;
    largest = largest.max(rest.len());
    out.extend_from_slice(rest);
    Ok((out, largest))
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 3).expect("memory")
}

fn text() -> Vec<u8> {
    (0..5000).flat_map(|n| format!("{{\"line\":{n}}}\n").into_bytes()).collect()
}

type Encode = fn(&[u8]) -> Vec<u8>;

const BOTH: [(ContentEncoding, Encode); 2] = [(ContentEncoding::Gzip, gzip), (ContentEncoding::Zstd, zstd)];

#[test]
fn a_body_in_any_chunks_decodes_to_the_original() {
    let text = text();
    for (encoding, encode) in BOTH {
        let body = encode(&text);
        for chunk in [1, 2, 7, 100, 4096, body.len()] {
            let (out, _) = decode(encoding, &body, chunk).expect("intact");
            assert!(out == text, "{encoding:?} in chunks of {chunk}");
        }
    }
}

#[test]
fn members_and_frames_may_follow_each_other() {
    let text = text();
    for (encoding, encode) in BOTH {
        let mut body = encode(&text);
        body.extend(encode(b""));
        body.extend(encode(b"tail"));
        for chunk in [1, 3, 4096, body.len()] {
            let (out, _) = decode(encoding, &body, chunk).expect("intact");
            assert!(out == [&text[..], b"tail"].concat(), "{encoding:?} in chunks of {chunk}");
        }
    }
}

#[test]
fn a_bomb_comes_out_in_small_steps() {
    let zeros = vec![0; 32 << 20];
    for (encoding, encode) in BOTH {
        let body = encode(&zeros);
        assert!(body.len() < zeros.len() / 500);
        let (out, largest) = decode(encoding, &body, 64 * 1024).expect("intact");
        assert_eq!(out.len(), zeros.len());
        assert!(largest <= STEP_BYTES, "{encoding:?}: a step of {largest} bytes");
    }
}

#[test]
fn a_chunk_gives_all_it_holds_at_once() {
    // A line that arrived is not kept back until the next chunk comes.
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"{\"a\":1}\n").expect("memory");
    encoder.flush().expect("memory");
    let first = std::mem::take(encoder.get_mut());
    let mut decoder = Decoder::new(ContentEncoding::Gzip).expect("encoded");
    let (mut input, mut out) = (&first[..], Vec::new());
    while let Some(step) = decoder.step(&mut input).expect("intact") {
        out.extend_from_slice(step);
    }
    assert_eq!(out, b"{\"a\":1}\n");
}

#[test]
fn cut_broken_and_foreign_streams_are_errors() {
    let text = text();
    for (encoding, encode) in BOTH {
        let body = encode(&text);
        for cut in [1, 5, 12, body.len() / 2, body.len() - 1] {
            assert_eq!(decode(encoding, &body[..cut], 64).err(), Some(BrokenEncoding), "{encoding:?} cut at {cut}");
        }
        assert_eq!(decode(encoding, b"{\"a\":1}\n{\"a\":2}\n", 64).err(), Some(BrokenEncoding));
        let mut trailing = body.clone();
        trailing.extend_from_slice(b"{\"plain\":true}\n{\"plain\":true}\n");
        assert_eq!(decode(encoding, &trailing, 64).err(), Some(BrokenEncoding), "{encoding:?} with a plain tail");
    }
    let mut body = gzip(&text);
    let checksum = body.len() - 6;
    body[checksum] ^= 1;
    assert_eq!(decode(ContentEncoding::Gzip, &body, 64).err(), Some(BrokenEncoding));
}

#[test]
fn an_empty_body_decodes_to_nothing() {
    for (encoding, _) in BOTH {
        assert_eq!(decode(encoding, b"", 1), Ok((Vec::new(), 0)));
    }
}

#[test]
fn a_frame_with_a_huge_window_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.window_log(27).expect("a parameter");
    encoder.write_all(&text()).expect("memory");
    let body = encoder.finish().expect("memory");
    assert_eq!(decode(ContentEncoding::Zstd, &body, 4096).err(), Some(BrokenEncoding));
}

#[test]
fn the_header_names_one_known_encoding() {
    let of = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        ContentEncoding::of(&headers).map_err(|error| error.status().as_u16())
    };
    assert_eq!(of(&[]), Ok(ContentEncoding::Identity));
    assert_eq!(of(&["identity"]), Ok(ContentEncoding::Identity));
    assert_eq!(of(&["GZip"]), Ok(ContentEncoding::Gzip));
    assert_eq!(of(&[" zstd "]), Ok(ContentEncoding::Zstd));
    assert_eq!(of(&["br"]), Err(415));
    assert_eq!(of(&["gzip, gzip"]), Err(415));
    assert_eq!(of(&["gzip", "gzip"]), Err(415));
    assert_eq!(of(&[""]), Err(415));
}
