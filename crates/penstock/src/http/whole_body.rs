//! A request's body as one piece in memory: decoded, bounded, and charged to the budget before it is held (P6).

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;
use produce_pipeline::{Charge, Delivery, Outcome};
use serde::Deserialize;

use super::Context;
use super::body::BodyReader;
use super::content_encoding::{BrokenEncoding, ContentEncoding, Decoder};
use super::error::{ApiError, code};

/// A whole body. Its memory is charged for as long as it lives.
pub(crate) struct WholeBody {
    /// It came in one piece, which lies in the connection's read buffer.
    piece: Option<Bytes>,
    /// It came in several, or was encoded.
    held: Vec<u8>,
    charge: Charge,
}

/// How long a body may be, and what it is called if it is longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) bytes: usize,
    pub(crate) what: &'static str,
}

impl Limit {
    fn exceeded(self) -> ApiError {
        ApiError { close: true, ..ApiError::too_large(format!("{} is at most {} bytes", self.what, self.bytes)) }
    }

    /// Refuses a body that says itself that it is longer, before it is asked for. One that is encoded may be a little
    /// larger than what it decodes to: its decoder judges.
    pub(crate) fn check_length(self, headers: &HeaderMap, encoding: ContentEncoding) -> Result<(), ApiError> {
        match content_length(headers) {
            Some(length) if encoding == ContentEncoding::Identity && length > self.bytes as u64 => Err(
                ApiError::too_large(format!("a body of {length} bytes; {} is at most {} bytes", self.what, self.bytes)),
            ),
            _ => Ok(()),
        }
    }
}

impl WholeBody {
    /// Reads a body to its end. Waits for memory for as long as `delivery` may.
    ///
    /// # Errors
    ///
    /// 42206 for an empty body, 413 for one over the limit, 400 for a broken one, 408 for a slow one, 503 without
    /// memory or near the end of a drain.
    pub(crate) async fn read(
        context: &Context,
        reader: &mut BodyReader,
        encoding: ContentEncoding,
        delivery: &Delivery,
        limit: Limit,
    ) -> Result<Self, ApiError> {
        let room = async || delivery.room().await.map_err(|cause| ApiError::of_cause(Outcome::NotWritten, &cause));
        let mut decoder = Decoder::new(encoding);
        let mut body = Self { piece: None, held: Vec::new(), charge: delivery.charge(0) };
        let mut first = true;
        loop {
            room().await?;
            let Some(chunk) = reader.chunk().await? else {
                break;
            };
            context.metrics.body_bytes(chunk.len());
            room().await?;
            match &mut decoder {
                None if first && reader.is_over() && !chunk.is_empty() && chunk.len() <= limit.bytes => {
                    return Ok(Self { piece: Some(chunk), ..body });
                }
                None => body.append(&chunk, limit)?,
                Some(decoder) => {
                    let mut input = &chunk[..];
                    while let Some(step) = decoder.step(&mut input).map_err(broken_encoding)? {
                        body.append(step, limit)?;
                    }
                }
            }
            first = false;
        }
        if let Some(decoder) = &mut decoder {
            body.append(decoder.finish().map_err(broken_encoding)?, limit)?;
        }
        if body.held.is_empty() {
            return Err(ApiError::new(code::EMPTY_BODY, "the body is empty"));
        }
        Ok(body)
    }

    /// The same for a body that need not be there: `None` if it is not, or blank.
    pub(crate) async fn read_optional(
        context: &Context,
        reader: &mut BodyReader,
        encoding: ContentEncoding,
        delivery: &Delivery,
        limit: Limit,
    ) -> Result<Option<Self>, ApiError> {
        match Self::read(context, reader, encoding, delivery, limit).await {
            Ok(body) => Ok(Some(body).filter(|body| !body.bytes().trim_ascii().is_empty())),
            Err(error) if error.code == code::EMPTY_BODY => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.piece.as_deref().unwrap_or(&self.held)
    }

    /// What it says, if it is a JSON object.
    ///
    /// # Errors
    ///
    /// 400 for what is none, `code` for an object that says something else.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self, code: u32) -> Result<T, ApiError> {
        parse_object(self.bytes(), code)
    }

    fn append(&mut self, part: &[u8], limit: Limit) -> Result<(), ApiError> {
        let len = self.held.len() + part.len();
        if len > limit.bytes {
            return Err(limit.exceeded());
        }
        if len > self.held.capacity() {
            let capacity = len.max(self.held.capacity() * 2).min(limit.bytes);
            self.charge.set(capacity);
            self.held.reserve_exact(capacity - self.held.len());
        }
        self.held.extend_from_slice(part);
        Ok(())
    }
}

/// What a JSON object says: see [`WholeBody::parse`].
pub(crate) fn parse_object<'a, T: Deserialize<'a>>(body: &'a [u8], code: u32) -> Result<T, ApiError> {
    // serde takes an array for a structure, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { code } else { code::BAD_REQUEST };
        ApiError::new(code, format!("the body is not as it must be: {error}"))
    })
}

/// The length that the head of a request tells of its body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// 400: the body cannot be decoded.
pub(crate) fn broken_encoding(_: BrokenEncoding) -> ApiError {
    ApiError { close: true, ..ApiError::bad_request("the body is not what its Content-Encoding says, or ends early") }
}
