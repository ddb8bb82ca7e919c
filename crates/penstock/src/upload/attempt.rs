//! One request: the body goes out while the answer comes in, until one of them ends.

use std::{io, time::Duration};

use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Compress, Options, Source,
    answer::{ErrorBody, Progress, Summary},
};
use crate::client::{AbortOnDrop, Endpoint, Lines, RequestBody, escape, is_distrust};

/// Bytes of one line of the answer: a summary with 100 failures is far below it.
const MAX_ANSWER_LINE: usize = 1024 * 1024;

/// How a request came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// The bridge resolved all that it read.
    Summary(Summary),
    /// Asking again would bring the same.
    Refused(String),
    /// Asking again may help, after this long at the least.
    Cut { why: String, wait: Duration },
    /// Our own input cannot be read.
    Input(io::Error),
}

impl Ended {
    fn cut(why: impl ToString) -> Self {
        Self::Cut { why: why.to_string(), wait: Duration::ZERO }
    }
}

/// What the task that holds the connection tells.
enum Event {
    Progress(Progress),
    Ended(Ended),
}

/// Sends the source's lines, which were rewound to `first_line`. `progressed` is told what is settled.
pub(super) async fn attempt(
    options: &Options,
    source: &mut Source,
    first_line: u64,
    mut progressed: impl FnMut(&mut Source, Progress),
) -> Ended {
    let (body, pieces) = mpsc::channel(1);
    let (events, mut told) = mpsc::channel(16);
    let request = match request(options, first_line, pieces) {
        Ok(request) => request,
        Err(error) => return Ended::Refused(error.to_string()),
    };
    let _connection = AbortOnDrop(tokio::spawn(converse(options.endpoint.clone(), request, events)));

    let mut encoder = Encoder::new(options.compress);
    let mut body = Some(body);
    let mut silent_until = Instant::now() + options.silence;
    loop {
        tokio::select! {
            fed = feed(body.clone(), source), if body.is_some() => match fed {
                Ok(Some((room, piece))) => match encoder.encode(&piece) {
                    Ok(encoded) if encoded.is_empty() => {}
                    Ok(encoded) => drop(room.send(encoded)),
                    Err(error) => return Ended::Input(error),
                },
                Ok(None) => {
                    // The channel's one place is free: what is left of an encoder goes there, then the body ends.
                    if let (Some(body), Ok(rest)) = (body.take(), encoder.finish()) && !rest.is_empty() {
                        drop(body.send(rest).await);
                    }
                }
                Err(Stopped::ByPeer) => body = None,
                Err(Stopped::ByInput(error)) => return Ended::Input(error),
            },
            event = told.recv() => {
                silent_until = Instant::now() + options.silence;
                match event {
                    Some(Event::Progress(progress)) if progress.through_line <= source.sent_lines() => {
                        progressed(source, progress);
                    }
                    Some(Event::Progress(progress)) => {
                        let why = format!("the answer settles line {}, which was not sent", progress.through_line);
                        return Ended::Refused(why);
                    }
                    Some(Event::Ended(Ended::Summary(summary)))
                        if first_line - 1 + summary.lines > source.sent_lines() =>
                    {
                        return Ended::Refused(format!("the answer counts {} lines, more than were sent", summary.lines));
                    }
                    Some(Event::Ended(ended)) => return ended,
                    None => return Ended::cut("the connection was lost"),
                }
            }
            () = sleep_until(silent_until) => {
                return Ended::cut(format_args!("no word from the bridge for {} s", options.silence.as_secs()));
            }
        }
    }
}

/// Why no more of the body is sent.
enum Stopped {
    /// The connection takes no more; its answer, if any, says why.
    ByPeer,
    ByInput(io::Error),
}

/// Room in the channel first, then a piece for it. Safe to drop: a piece is taken only when there is room.
async fn feed(
    body: Option<mpsc::Sender<Bytes>>,
    source: &mut Source,
) -> Result<Option<(mpsc::OwnedPermit<Bytes>, Bytes)>, Stopped> {
    let Some(body) = body else { return Ok(None) };
    let room = body.reserve_owned().await.map_err(|_| Stopped::ByPeer)?;
    let piece = source.next().await.map_err(Stopped::ByInput)?;
    Ok(piece.map(|piece| (room, piece)))
}

fn request(
    options: &Options,
    first_line: u64,
    pieces: mpsc::Receiver<Bytes>,
) -> Result<Request<RequestBody>, hyper::http::Error> {
    let mut path = format!("/v1/topics/{}/records", escape(&options.topic));
    let mut separator = '?';
    let parameters =
        [("partition", options.partition.map(|partition| partition.to_string())), ("key", options.key.clone())];
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push_str(&format!("{separator}{name}={}", escape(&value)));
            separator = '&';
        }
    }
    let mut request = options
        .endpoint
        .request(&path)
        .method("POST")
        .header(CONTENT_TYPE, "application/x-ndjson")
        .header(ACCEPT, "application/x-ndjson")
        .header("kafka-first-line", first_line);
    for header in &options.headers {
        request = request.header("kafka-header", header.as_str());
    }
    if let Some(compress) = options.compress {
        request = request.header(CONTENT_ENCODING, compress.name());
    }
    request.body(RequestBody::Stream(pieces))
}

/// Holds the connection and reads the answer; ends with it, or with the attempt.
async fn converse(endpoint: Endpoint, request: Request<RequestBody>, events: mpsc::Sender<Event>) {
    let ended = match exchange(&endpoint, request, &events).await {
        Ok(ended) => ended,
        Err(error) => Ended::cut(error),
    };
    // The attempt has ended already: then it does not care how.
    drop(events.send(Event::Ended(ended)).await);
}

async fn exchange(
    endpoint: &Endpoint,
    request: Request<RequestBody>,
    events: &mpsc::Sender<Event>,
) -> io::Result<Ended> {
    let mut connection = match endpoint.connect().await {
        Ok(connection) => connection,
        Err(error) if is_distrust(&error) => return Ok(Ended::Refused(error.to_string())),
        Err(error) => return Err(error),
    };
    let response = connection.send(request).await?;
    if response.status() != StatusCode::OK {
        return refusal(response).await;
    }
    let mut lines = Lines::new(response.into_body(), MAX_ANSWER_LINE);
    while let Some(line) = lines.next().await? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // A summary has no `through_line`, and a progress line no `lines`.
        if let Ok(progress) = serde_json::from_slice(&line) {
            if events.send(Event::Progress(progress)).await.is_err() {
                return Ok(Ended::cut("the attempt is over"));
            }
        } else {
            return match serde_json::from_slice(&line) {
                Ok(summary) => Ok(Ended::Summary(summary)),
                Err(_) => {
                    Ok(Ended::Refused("what answered is not a bridge: its answer is no progress line".to_owned()))
                }
            };
        }
    }
    Ok(Ended::cut("the answer ended before its summary"))
}

/// An answer that is not 200: a summary, something that passes, or something that does not.
async fn refusal(response: Response<Incoming>) -> io::Result<Ended> {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let wait = Duration::from_secs(seconds.unwrap_or(0));
    let body = Lines::new(response.into_body(), MAX_ANSWER_LINE).rest().await.unwrap_or_default();
    if let Ok(summary) = serde_json::from_slice(&body) {
        return Ok(Ended::Summary(summary));
    }
    let why = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(error) => format!("{status}: {}", error.message),
        Err(_) => status.to_string(),
    };
    let passes = status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT].contains(&status);
    Ok(if passes { Ended::Cut { why, wait } } else { Ended::Refused(why) })
}

/// `Content-Encoding` of the body. Every piece is flushed: lines that were handed on do not wait here for others.
enum Encoder {
    Identity,
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(compress: Option<Compress>) -> Self {
        match compress {
            None => Self::Identity,
            Some(Compress::Gzip) => {
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()))
            }
            Some(Compress::Zstd) => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL);
                Self::Zstd(encoder.expect("the default level exists"))
            }
        }
    }

    fn encode(&mut self, piece: &Bytes) -> io::Result<Bytes> {
        use io::Write;
        let encoded = match self {
            Self::Identity => return Ok(piece.clone()),
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                std::mem::take(encoder.get_mut())
            }
        };
        Ok(encoded.into())
    }

    /// What is left when the body ends. Afterwards nothing is encoded any more.
    fn finish(&mut self) -> io::Result<Bytes> {
        match std::mem::replace(self, Self::Identity) {
            Self::Identity => Ok(Bytes::new()),
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Zstd(encoder) => encoder.finish().map(Bytes::from),
        }
    }
}
