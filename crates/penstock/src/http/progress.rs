//! Progress of an upload, told while it runs.
//!
//! The answer to an upload that asks for it is a stream of lines, each promising that every line of the upload up to
//! `through_line` is resolved. The connection asks for the next line only when the one before is written, and a line is made
//! when it is asked for: a client that does not read holds up nothing, and finds, when it reads again, one line that
//! says what many would have said.
//!
//! ```text
//!   upload task:   chunk ─▶ lines ─▶ pipeline ─▶ … ─▶ end ──────────┐
//!   this stream:   {"through_line":…}  {"through_line":…}  …        └▶ {"done":true,…}
//! ```
//!
//! Pace: no two lines within [`LEAST_INTERVAL`], no silence longer than [`MOST_INTERVAL`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use produce_pipeline::{Delivery, Progress};
use serde::Serialize;
use tokio::time::Instant;

use super::respond::json_line;
use crate::http1::PieceStream;

/// Ten lines a second at most.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// One line in ten seconds at least, so that nobody on the way takes the connection for dead.
const MOST_INTERVAL: Duration = Duration::from_secs(10);

/// Where an upload is; the pipeline's delivery, or a test's own.
pub(crate) trait Source: 'static {
    /// What is settled now.
    fn progress(&self) -> Progress;
    /// Waits until it differs from `seen`. Cancel safe.
    fn progressed(&self, seen: Progress) -> impl Future<Output = Progress>;
}

impl Source for Delivery {
    fn progress(&self) -> Progress {
        Self::progress(self)
    }

    fn progressed(&self, seen: Progress) -> impl Future<Output = Progress> {
        Self::progressed(self, seen)
    }
}

#[derive(Serialize)]
struct ProgressLine {
    through_line: u64,
    written: u64,
    not_written: u64,
    unknown: u64,
}

/// The lines of one upload. `done` resolves to the last line once everything is settled.
pub(crate) struct ProgressStream<S, D> {
    next: Option<NextLine<S, D>>,
}

/// A line that is being waited for, and who makes the one after it.
type NextLine<S, D> = Pin<Box<dyn Future<Output = (Pacer<S, D>, Bytes)>>>;

impl<S: Source, D: Future<Output = Vec<u8>> + 'static> ProgressStream<S, D> {
    pub(crate) fn new(source: S, done: D) -> Self {
        let pacer = Pacer { seen: source.progress(), told: None, source, done: Some(Box::pin(done)) };
        Self { next: Some(Box::pin(pacer.next())) }
    }
}

impl<S: Source, D: Future<Output = Vec<u8>> + 'static> PieceStream for ProgressStream<S, D> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let (pacer, line) = std::task::ready!(next.as_mut().poll(cx));
        self.next = pacer.done.is_some().then(|| Box::pin(pacer.next()) as NextLine<S, D>);
        Poll::Ready(Some(line))
    }
}

/// Decides when there is something to tell.
struct Pacer<S, D> {
    source: S,
    /// What was told last, or what there was at the start.
    seen: Progress,
    /// When that was.
    told: Option<Instant>,
    /// Gone with the last line.
    done: Option<Pin<Box<D>>>,
}

impl<S: Source, D: Future<Output = Vec<u8>> + 'static> Pacer<S, D> {
    async fn next(mut self) -> (Self, Bytes) {
        let start = Instant::now();
        let earliest = self.told.map_or(start, |told| told + LEAST_INTERVAL);
        let latest = self.told.unwrap_or(start) + MOST_INTERVAL;
        let done = self.done.as_mut().expect("a pacer is not asked again after its last line");
        let progressed = async {
            // Whatever happens before it is time for a line is told together with it.
            tokio::time::sleep_until(earliest).await;
            tokio::select! {
                progress = self.source.progressed(self.seen) => progress,
                () = tokio::time::sleep_until(latest) => self.source.progress(),
            }
        };
        let line = tokio::select! {
            biased;
            last = done => {
                self.done = None;
                return (self, last.into());
            }
            progress = progressed => progress,
        };
        self.seen = line;
        self.told = Some(Instant::now());
        let line = ProgressLine {
            through_line: line.through_line,
            written: line.written,
            not_written: line.not_written,
            unknown: line.unknown,
        };
        (self, json_line(&line).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::sync::{oneshot, watch};

    /// Progress that a test sets.
    struct Scripted(watch::Receiver<Progress>);

    impl Source for Scripted {
        fn progress(&self) -> Progress {
            *self.0.borrow()
        }

        async fn progressed(&self, seen: Progress) -> Progress {
            let mut receiver = self.0.clone();
            *receiver.wait_for(|progress| *progress != seen).await.expect("the test holds the sender")
        }
    }

    fn through(line: u64) -> Progress {
        Progress { through_line: line, written: line, ..Progress::default() }
    }

    /// A stream, the sender of its progress and of its last line.
    fn stream() -> (impl PieceStream, watch::Sender<Progress>, oneshot::Sender<Vec<u8>>) {
        let (progress, source) = watch::channel(Progress::default());
        let (done, last) = oneshot::channel();
        let last = async { last.await.expect("the test sends a last line") };
        (ProgressStream::new(Scripted(source), last), progress, done)
    }

    async fn next(stream: &mut impl PieceStream) -> Option<String> {
        let line = poll_fn(|cx| stream.poll_next(cx)).await?;
        Some(String::from_utf8(line.to_vec()).expect("JSON is UTF-8"))
    }

    fn line(through: u64) -> Option<String> {
        Some(format!("{{\"through_line\":{through},\"written\":{through},\"not_written\":0,\"unknown\":0}}\n"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_settled_prefix_is_told_at_once_and_then_ten_times_a_second() {
        let (mut stream, progress, _done) = stream();
        let start = Instant::now();
        progress.send_replace(through(1));
        assert_eq!(next(&mut stream).await, line(1));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for settled in 2..=4 {
            // More than one change in an interval becomes one line.
            progress.send_replace(through(settled * 10 - 1));
            progress.send_replace(through(settled * 10));
            assert_eq!(next(&mut stream).await, line(settled * 10));
        }
        assert_eq!(start.elapsed(), 3 * LEAST_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_finds_one_line_for_all_it_missed() {
        let (mut stream, progress, _done) = stream();
        progress.send_replace(through(1));
        assert_eq!(next(&mut stream).await, line(1));
        for settled in 2..=1000 {
            tokio::time::advance(Duration::from_millis(150)).await;
            progress.send_replace(through(settled));
        }
        let before = Instant::now();
        assert_eq!(next(&mut stream).await, line(1000));
        assert!(before.elapsed() <= LEAST_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn without_news_the_same_is_said_every_ten_seconds() {
        let (mut stream, progress, _done) = stream();
        let start = Instant::now();
        assert_eq!(next(&mut stream).await, line(0));
        assert_eq!(start.elapsed(), MOST_INTERVAL);
        progress.send_replace(through(5));
        assert_eq!(next(&mut stream).await, line(5));
        assert_eq!(next(&mut stream).await, line(5));
        assert_eq!(start.elapsed(), 2 * MOST_INTERVAL + LEAST_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_line_waits_for_nothing_and_ends_the_stream() {
        let (mut stream, progress, done) = stream();
        progress.send_replace(through(1));
        assert_eq!(next(&mut stream).await, line(1));
        progress.send_replace(through(2));
        done.send(b"last\n".to_vec()).expect("the stream waits");
        let start = Instant::now();
        assert_eq!(next(&mut stream).await.as_deref(), Some("last\n"));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(next(&mut stream).await, None);
    }
}
