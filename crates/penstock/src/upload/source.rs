//! What is uploaded: lines of a file or of a pipe, and the way back to any line that is not settled.
//!
//! ```text
//!            reader thread                      this side
//! bytes ─▶ decode ─▶ chunks ═══ channel ═══▶ unsettled: [chunk][chunk][chunk] ◀─ settle(line) drops from the front
//!                                                                     ▲ next() hands out and appends
//! ```
//!
//! A chunk is remembered until every line in it is settled. Of a file only its place is remembered: after a cut the file
//! is opened again there (compressed: decoded again from its beginning). A pipe cannot be read twice, so its
//! chunks keep their bytes, at most `window` of them; then nothing more is read until lines are settled.

use std::{
    collections::VecDeque,
    fs::File,
    future,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes read at a time.
const CHUNK: usize = 128 * 1024;

/// Chunks that are read ahead.
const READ_AHEAD: usize = 4;

/// Lines to upload, from any line on that is not settled.
#[derive(Debug)]
pub struct Source {
    name: String,
    input: Input,
    /// Ends with the reader thread, which ends when this is dropped.
    incoming: mpsc::Receiver<io::Result<Chunk>>,
    /// Chunks with a line that is not settled, in order.
    unsettled: VecDeque<Chunk>,
    /// Of a pipe: the chunk in `unsettled` to hand out next; at its end the next comes from the reader.
    cursor: usize,
    /// Bytes in `unsettled`.
    held: usize,
    /// Where the first unsettled chunk begins.
    start: Place,
    /// The line that the last byte handed out belongs to.
    last_line: u64,
    /// Lines handed out whole.
    sent_lines: u64,
    /// Once the end was seen: how many lines there are.
    total_lines: Option<u64>,
    settled_bytes: u64,
    /// Lines up to this one cannot be asked for again.
    released_line: u64,
}

#[derive(Debug)]
enum Input {
    File { path: PathBuf, size: u64, compressed: bool },
    Pipe { window: usize },
}

/// A place in the decoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: u64,
    /// The line that the byte at `offset` belongs to, from 1.
    line: u64,
}

#[derive(Debug)]
struct Chunk {
    /// Empty where a file can be read again.
    bytes: Bytes,
    /// The line that its first byte belongs to.
    first_line: u64,
    /// The line that its last byte belongs to.
    last_line: u64,
    /// Where the next chunk begins.
    end: Place,
    /// Bytes of the file or pipe read so far, before decoding.
    raw_end: u64,
}

impl Source {
    /// A file, or standard input for `-`. `window`: bytes of a pipe that may be unsettled.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(path: &Path, window: usize) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::pipe("standard input", io::stdin(), window));
        }
        let name = path.display().to_string();
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !about.is_file() {
            return Ok(Self::pipe(name, file, window));
        }
        let (codec, head) = Codec::sniff(&mut &file)?;
        let promised = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Some(Codec::Gzip),
            Some("zst") => Some(Codec::Zstd),
            _ => None,
        };
        if promised.is_some() && promised != codec && !head.is_empty() {
            return Err(io::Error::other("its content is not what its name's ending says"));
        }
        let input = Input::File { path: path.to_owned(), size: about.len(), compressed: codec.is_some() };
        let mut source = Self::new(name, input);
        source.rewind(1)?;
        Ok(source)
    }

    /// Bytes that come once, decoded if they begin as gzip or zstd do.
    pub fn pipe(name: impl Into<String>, reader: impl Read + Send + 'static, window: usize) -> Self {
        let mut source = Self::new(name.into(), Input::Pipe { window });
        source.incoming = Reader { at: Place { offset: 0, line: 1 }, skip: 0, eager: true }.spawn(Ok(reader));
        source
    }

    fn new(name: String, input: Input) -> Self {
        Self {
            name,
            input,
            incoming: mpsc::channel(1).1,
            unsettled: VecDeque::new(),
            cursor: 0,
            held: 0,
            start: Place { offset: 0, line: 1 },
            last_line: 0,
            sent_lines: 0,
            total_lines: None,
            settled_bytes: 0,
            released_line: 0,
        }
    }

    /// What to call it in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file as it is, compressed or not; `None` for a pipe.
    pub fn size(&self) -> Option<u64> {
        match self.input {
            Input::File { size, .. } => Some(size),
            Input::Pipe { .. } => None,
        }
    }

    /// Whether the end was read, and `line` is the last.
    pub fn is_done(&self, line: u64) -> bool {
        self.total_lines == Some(line)
    }

    /// The last line that was handed out whole: no line after it can be settled.
    pub fn sent_lines(&self) -> u64 {
        self.sent_lines
    }

    /// About how many of [`size`](Self::size)'s bytes are settled: whole chunks only.
    pub fn settled_bytes(&self) -> u64 {
        self.settled_bytes
    }

    /// Lines up to this one were let go by [`settle`](Self::settle).
    pub fn released_line(&self) -> u64 {
        self.released_line
    }

    /// A pipe of which nothing more is read until lines are settled.
    pub fn is_full(&self) -> bool {
        matches!(self.input, Input::Pipe { window } if self.held >= window)
    }

    /// A pipe that has nothing to send: whoever writes to it is slow, nobody else.
    pub fn is_idle(&self) -> bool {
        matches!(self.input, Input::Pipe { .. }) && self.unsettled.is_empty() && self.incoming.is_empty()
    }

    /// Goes back: the next piece begins with `line`, the first that is not settled.
    ///
    /// # Errors
    ///
    /// The file cannot be opened again.
    pub fn rewind(&mut self, line: u64) -> io::Result<()> {
        self.last_line = line - 1;
        self.sent_lines = line - 1;
        match &self.input {
            Input::File { path, compressed, .. } => {
                let mut file = File::open(path)?;
                let at = if *compressed { Place { offset: 0, line: 1 } } else { self.start };
                file.seek(SeekFrom::Start(at.offset))?;
                self.incoming = Reader { at, skip: line - at.line, eager: false }.spawn(Ok(file));
                self.unsettled.clear();
                self.total_lines = None;
            }
            Input::Pipe { .. } => {
                self.cursor = 0;
                // A chunk that begins in the middle of a settled line begins anew at the line that is not.
                if let Some(front) = self.unsettled.front_mut() {
                    let settled = usize::try_from(line - front.first_line).expect("fewer lines than bytes");
                    if let Some(last) = settled.checked_sub(1) {
                        let end = memchr::memchr_iter(b'\n', &front.bytes).nth(last).expect("the line ends here") + 1;
                        front.bytes = front.bytes.slice(end..);
                        front.first_line = line;
                        self.held -= end;
                    }
                }
            }
        }
        Ok(())
    }

    /// The next piece, or `None` at the end. Waits for ever while a pipe's window is full: [`settle`](Self::settle) and
    /// ask again.
    ///
    /// # Errors
    ///
    /// It cannot be read or decoded, or one line fills a pipe's whole window.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Input::Pipe { .. } = self.input {
            if let Some(again) = self.unsettled.get(self.cursor) {
                self.cursor += 1;
                self.last_line = again.last_line;
                self.sent_lines = again.end.line - 1;
                return Ok(Some(again.bytes.clone()));
            }
            if self.is_full() {
                let (first, last) = (self.unsettled.front(), self.unsettled.back());
                if first.zip(last).is_some_and(|(first, last)| first.first_line == last.last_line) {
                    return Err(io::Error::other(format!("line {} is longer than the window", self.last_line)));
                }
                return future::pending().await;
            }
        }
        let Some(chunk) = self.incoming.recv().await else {
            self.total_lines = Some(self.last_line);
            self.sent_lines = self.last_line;
            return Ok(None);
        };
        let mut chunk = chunk?;
        let bytes = chunk.bytes.clone();
        self.last_line = chunk.last_line;
        self.sent_lines = chunk.end.line - 1;
        match self.input {
            Input::File { .. } => chunk.bytes = Bytes::new(),
            Input::Pipe { .. } => {
                self.held += bytes.len();
                self.cursor += 1;
            }
        }
        self.unsettled.push_back(chunk);
        Ok(Some(bytes))
    }

    /// Every line up to and including `line` is settled: it will not be asked for again. At most
    /// [`sent_lines`](Self::sent_lines).
    pub fn settle(&mut self, line: u64) {
        self.released_line = self.released_line.max(line);
        while let Some(chunk) = self.unsettled.pop_front_if(|chunk| chunk.last_line <= line) {
            self.start = chunk.end;
            self.settled_bytes = chunk.raw_end;
            self.held -= chunk.bytes.len();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }
}

/// Compression of what is read, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip,
    Zstd,
}

impl Codec {
    /// RFC 1952, section 2.3.1, and RFC 8878, section 3.1.1. No JSON document begins so.
    const MAGIC: [(Self, &'static [u8]); 2] = [(Self::Gzip, &[0x1f, 0x8b]), (Self::Zstd, &[0x28, 0xb5, 0x2f, 0xfd])];

    /// Reads no more than it takes to tell: a pipe's first line may be all that comes for an hour. What was read comes
    /// back, too.
    fn sniff(input: &mut impl Read) -> io::Result<(Option<Self>, Vec<u8>)> {
        let mut head = Vec::new();
        loop {
            if let Some((codec, _)) = Self::MAGIC.iter().find(|(_, magic)| head == *magic) {
                return Ok((Some(*codec), head));
            }
            let mut byte = [0];
            if !Self::MAGIC.iter().any(|(_, magic)| magic.starts_with(&head)) || read(input, &mut byte)? == 0 {
                return Ok((None, head));
            }
            head.push(byte[0]);
        }
    }
}

/// What the reader thread does: it ends at the end of its input, at an error, or when nobody receives any more.
struct Reader {
    /// Where the input begins.
    at: Place,
    /// Lines to leave out first.
    skip: u64,
    /// Hands on what came instead of waiting for a full chunk.
    eager: bool,
}

impl Reader {
    fn spawn(self, input: io::Result<impl Read + Send + 'static>) -> mpsc::Receiver<io::Result<Chunk>> {
        let (chunks, incoming) = mpsc::channel(READ_AHEAD);
        let failed = chunks.clone();
        let run = move || {
            if let Err(error) = input.and_then(|input| self.read(input, &chunks)) {
                // Nobody receives any more: then nobody wants to know.
                drop(chunks.blocking_send(Err(error)));
            }
        };
        if let Err(error) = thread::Builder::new().name("upload-reader".to_owned()).spawn(run) {
            drop(failed.try_send(Err(error)));
        }
        incoming
    }

    fn read(mut self, input: impl Read, chunks: &mpsc::Sender<io::Result<Chunk>>) -> io::Result<()> {
        let raw = Arc::new(AtomicU64::new(self.at.offset));
        let mut counted = Counted { input, raw: raw.clone() };
        let (codec, head) = if self.at.offset == 0 { Codec::sniff(&mut counted)? } else { (None, Vec::new()) };
        let whole = io::Cursor::new(head).chain(counted);
        let mut decoded: Box<dyn Read> = match codec {
            None => Box::new(whole),
            Some(Codec::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Some(Codec::Zstd) => Box::new(zstd::Decoder::new(whole)?),
        };
        loop {
            let mut buffer = vec![0; CHUNK];
            let length = if self.eager { read(&mut decoded, &mut buffer)? } else { fill(&mut decoded, &mut buffer)? };
            if length == 0 {
                let shrunk = || io::Error::new(io::ErrorKind::UnexpectedEof, "it has fewer lines than before");
                return if self.skip == 0 { Ok(()) } else { Err(shrunk()) };
            }
            buffer.truncate(length);
            let mut bytes = Bytes::from(buffer);
            while self.skip > 0 && !bytes.is_empty() {
                let line = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
                let ended = bytes[line - 1] == b'\n';
                self.at = Place { offset: self.at.offset + line as u64, line: self.at.line + u64::from(ended) };
                self.skip -= u64::from(ended);
                bytes = bytes.slice(line..);
            }
            let Some(last_byte) = bytes.last() else { continue };
            let ends = memchr::memchr_iter(b'\n', &bytes).count() as u64;
            let end = Place { offset: self.at.offset + bytes.len() as u64, line: self.at.line + ends };
            let last_line = end.line - u64::from(*last_byte == b'\n');
            let chunk = Chunk { first_line: self.at.line, last_line, end, raw_end: raw.load(Relaxed), bytes };
            self.at = end;
            if chunks.blocking_send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Counts what is read through it.
struct Counted<R> {
    input: R,
    raw: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = read(&mut self.input, buffer)?;
        self.raw.fetch_add(length as u64, Relaxed);
        Ok(length)
    }
}

/// One read, begun again when a signal interrupts it.
fn read(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(input, &mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
