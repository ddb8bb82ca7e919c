//! The splitter of JSON documents, with a stream cut into chunks anyhow, against a parser that has the whole stream.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/http/confluent/v3/documents.rs"]
#[allow(dead_code, reason = "a target uses what it needs")]
mod splitter;

use serde_json::Deserializer;
use serde_json::value::RawValue;
use splitter::{Broken, DocumentSink, DocumentSplitter};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Document(Vec<u8>),
    Long,
    Broken(String),
}

#[derive(Default)]
struct Sink(Vec<Told>);

impl DocumentSink for Sink {
    fn document(&mut self, document: &[u8]) -> Result<(), Broken> {
        self.0.push(Told::Document(document.to_vec()));
        Ok(())
    }

    fn long_document(&mut self) {
        self.0.push(Told::Long);
    }
}

/// What is told of a stream that comes in chunks of these two lengths, one after the other.
fn split(stream: &[u8], max_document: usize, chunks: [usize; 2]) -> Vec<Told> {
    let mut splitter = DocumentSplitter::new(max_document);
    let mut sink = Sink::default();
    let mut end = Ok(());
    let (mut rest, mut lengths) = (stream, chunks.iter().cycle());
    while !rest.is_empty() && end.is_ok() {
        let length = *lengths.next().expect("a cycle");
        let (chunk, tail) = rest.split_at(length.min(rest.len()));
        end = splitter.push(chunk, &mut sink);
        // A vector that grows doubles, from eight bytes on.
        assert!(splitter.held() <= 2 * max_document.max(4), "{} bytes are held", splitter.held());
        rest = tail;
    }
    if let Err(Broken(problem)) = end.and_then(|()| splitter.finish()) {
        sink.0.push(Told::Broken(problem));
    }
    sink.0
}

/// The first byte is the longest document, the second the length of chunks; the rest is the stream. Every way to cut a stream
/// gives the same documents, of which none is too long, and as far as it is JSON they are what a parser finds.
pub fn run(data: &[u8]) {
    let [max_document, chunk, stream @ ..] = data else { return };
    let (max_document, chunk) = (usize::from(*max_document) + 1, usize::from(*chunk) + 1);
    let told = split(stream, max_document, [stream.len().max(1); 2]);
    assert_eq!(split(stream, max_document, [chunk, chunk % 7 + 1]), told);
    assert_eq!(split(stream, max_document, [1, 1]), told);

    let mut told = told.iter();
    for parsed in Deserializer::from_slice(stream).into_iter::<&RawValue>() {
        let Ok(parsed) = parsed else { return };
        let parsed = parsed.get().as_bytes();
        match told.next().expect("what a parser finds is told of") {
            Told::Document(document) => assert_eq!(document, parsed),
            Told::Long => assert!(parsed.len() > max_document),
            Told::Broken(_) => {
                assert!(!parsed.starts_with(b"{"));
                return;
            }
        }
    }
    assert!(told.next().is_none(), "a document that no parser finds");
}
