//! Where one JSON document of a stream ends and the next begins, however the stream is cut into chunks.
//!
//! Documents follow one another with nothing or white space in between. An object ends with the brace that closes its first
//! one; only braces, brackets and quotes are looked at, and whoever reads the document finds out whether it is one. A
//! document within a chunk is a slice of it; one that a chunk's end cuts waits in a carry buffer.

use memchr::memchr2;

/// What takes the documents.
pub(super) trait DocumentSink {
    /// One document. An error is the end of the stream.
    fn document(&mut self, document: &[u8]) -> Result<(), Broken>;
    /// One that is longer than documents may be; it was not kept.
    fn long_document(&mut self);
}

/// The stream is no JSON from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// An empty carry buffer that is larger than this is given back.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Finds the documents of one stream.
#[derive(Debug)]
pub(super) struct DocumentSplitter {
    carry: Vec<u8>,
    scan: Scan,
    max_document: usize,
    /// The document under way is too long, and only its end is looked for.
    skipping: bool,
}

#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl DocumentSplitter {
    pub(super) fn new(max_document: usize) -> Self {
        Self { carry: Vec::new(), scan: Scan::default(), max_document, skipping: false }
    }

    /// Bytes of memory that it holds.
    pub(super) fn held(&self) -> usize {
        self.carry.capacity()
    }

    /// Hands out the documents that end in `chunk`.
    pub(super) fn push(&mut self, chunk: &[u8], sink: &mut impl DocumentSink) -> Result<(), Broken> {
        let mut rest = chunk;
        loop {
            if self.scan.depth == 0 {
                rest = rest.trim_ascii_start();
                match rest.first() {
                    None => return Ok(()),
                    Some(b'{') => {}
                    Some(_) => return Err(Broken("a record must be a JSON object".to_owned())),
                }
            }
            let Some(end) = self.scan.end(rest) else {
                self.carry(rest);
                return Ok(());
            };
            let (document, next) = rest.split_at(end);
            rest = next;
            if self.skipping || self.carry.len() + document.len() > self.max_document {
                self.skipping = false;
                self.carry = Vec::new();
                sink.long_document();
            } else if self.carry.is_empty() {
                sink.document(document)?;
            } else {
                self.carry.extend_from_slice(document);
                let read = sink.document(&self.carry);
                self.carry.clear();
                if self.carry.capacity() > KEPT_CAPACITY {
                    self.carry = Vec::new();
                }
                read?;
            }
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&self) -> Result<(), Broken> {
        if self.scan.depth == 0 { Ok(()) } else { Err(Broken("the body ends within a record".to_owned())) }
    }

    fn carry(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.carry.len() + part.len() > self.max_document {
            self.skipping = true;
            self.carry = Vec::new();
        } else {
            self.carry.extend_from_slice(part);
        }
    }
}

impl Scan {
    /// How much of `bytes` belongs to the document, if it ends there.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                match byte {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    // Most bytes are a string's.
                    _ => at += memchr2(b'"', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at),
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => {}
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Seen(Vec<Option<String>>);

    impl DocumentSink for Seen {
        fn document(&mut self, document: &[u8]) -> Result<(), Broken> {
            self.0.push(Some(String::from_utf8_lossy(document).into_owned()));
            Ok(())
        }

        fn long_document(&mut self) {
            self.0.push(None);
        }
    }

    fn split(chunks: &[&[u8]], max: usize) -> (Vec<Option<String>>, Result<(), Broken>) {
        let (mut splitter, mut seen) = (DocumentSplitter::new(max), Seen::default());
        let pushed = chunks.iter().try_for_each(|chunk| splitter.push(chunk, &mut seen));
        (seen.0, pushed.and_then(|()| splitter.finish()))
    }

    #[test]
    fn documents_end_where_their_braces_do() {
        let text = br#"{"a":{"b":[{}]}}{} {"c":"}\"{\\"}
            {"d":"]"}"#;
        let (seen, end) = split(&[text], 100);
        let documents: Vec<_> = seen.iter().map(|one| one.as_deref().expect("none is long")).collect();
        assert_eq!(documents, [r#"{"a":{"b":[{}]}}"#, "{}", r#"{"c":"}\"{\\"}"#, r#"{"d":"]"}"#]);
        assert_eq!(end, Ok(()));
        assert_eq!(split(&[b" \r\n\t"], 9), (Vec::new(), Ok(())));
    }

    #[test]
    fn what_is_no_object_breaks_the_stream() {
        for (text, before) in [("[{}]", 0), ("{} 1", 1), ("{},{}", 1), ("null", 0), ("}", 0)] {
            let (seen, end) = split(&[text.as_bytes()], 9);
            assert_eq!(seen.len(), before, "{text}");
            assert!(end.is_err(), "{text}");
        }
        for text in ["{", "{\"a\":\"}", "{\"a\":1"] {
            assert!(split(&[text.as_bytes()], 9).1.is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_document_is_passed_over_and_not_kept() {
        let mut splitter = DocumentSplitter::new(10);
        let mut seen = Seen::default();
        for chunk in [&b"{}{\"a\":"[..], &[b'1'; 100], &[b'2'; 100], b"}", b"{\"b\":\"123\"}{}"] {
            splitter.push(chunk, &mut seen).expect("objects");
            assert!(splitter.held() <= 20);
        }
        assert_eq!(seen.0, [Some("{}".to_owned()), None, None, Some("{}".to_owned())]);
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_does_not_matter(
            documents in proptest::collection::vec("\\{(\"[a-z\\\\{}\\[]{0,6}\\\\\"?\":1)?\\}", 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = documents.concat().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&chunks, 20), split(&[&text], 20));
        }

        #[test]
        fn no_bytes_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = split(&chunks, 20);
        }
    }
}
