//! Kafka's primitive types on the wire: a bounds-checked [`Reader`] and a [`Writer`] that leaves foreign bytes in
//! place.
//!
//! Messages come in two encodings (KIP-482). Before a message's first *flexible* version, strings and arrays carry an
//! `i16` or `i32` length with -1 for null. From it on they carry an unsigned varint of length + 1 with 0 for null, and
//! every structure ends in tagged fields. Reader and writer know which encoding they are in, so a message is described
//! once.
//!
//! What a peer says about sizes is never trusted. A length is checked against the bytes that are left before anything
//! is sliced, and a count is checked against the bytes left divided by the least size of one element before anything is
//! allocated. What is decoded can still be ten times as large as the frame, for a topic or broker without a name takes
//! ten bytes of it; so everything that is kept is counted, and may exceed the frame by `MAX_EXCESS` (promise P7).
//!
//! Copies: strings are copied out (they outlive the frame), byte fields ([`Reader::nullable_bytes`]) are slices of the
//! frame.

use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;

/// What a decoded message may take beyond the length of its frame, in bytes. A cluster's true metadata takes about three
/// times its frame, of 16 MiB at the most.
const MAX_EXCESS: usize = 32 << 20;

/// What an allocation takes beside its bytes: an allocator's rounding, the counts of an [`Arc`].
const ALLOCATION: usize = 32;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field, or a length or count says more than there is.
    #[error("the bytes end before the field does")]
    Truncated,
    /// A length below the one that means null.
    #[error("a negative length")]
    NegativeLength,
    /// Null where the schema has no null.
    #[error("null in a field that cannot be null")]
    UnexpectedNull,
    /// A varint longer than its type.
    #[error("a variable-length integer that does not end")]
    VarintOverflow,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// Bytes after the end of the message: the two sides disagree on its version.
    #[error("{0} bytes after the end of the message")]
    TrailingBytes(usize),
    /// Decoded, it would take too much memory for its length.
    #[error("a message that is far larger in memory than on the wire")]
    Excessive,
    /// A field whose value contradicts the request.
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// What decoders return.
pub type Decoded<T> = Result<T, DecodeError>;

/// Reads one message off a frame.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
    flexible: bool,
    /// Bytes that may still be allocated.
    allowance: usize,
}

impl Reader {
    /// A reader in the encoding before (`false`) or from (`true`) the message's first flexible version on.
    pub fn new(bytes: Bytes, flexible: bool) -> Self {
        Self { allowance: bytes.len() + MAX_EXCESS, rest: bytes, flexible }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Changes the encoding; the response header and some first fields differ from the body.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Fails if anything is left.
    pub fn finish(&self) -> Decoded<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    /// Counts an allocation that is about to be made.
    fn allocate(&mut self, bytes: usize) -> Decoded<()> {
        let taken = bytes.saturating_add(ALLOCATION);
        self.allowance = self.allowance.checked_sub(taken).ok_or(DecodeError::Excessive)?;
        Ok(())
    }

    fn need(&self, count: usize) -> Decoded<()> {
        if self.rest.len() < count {
            return Err(DecodeError::Truncated);
        }
        Ok(())
    }

    /// One byte; anything but 0 is true, as Java reads it.
    pub fn bool(&mut self) -> Decoded<bool> {
        Ok(self.i8()? != 0)
    }

    /// A signed byte.
    pub fn i8(&mut self) -> Decoded<i8> {
        self.need(1)?;
        Ok(self.rest.get_i8())
    }

    /// A big-endian 16-bit integer.
    pub fn i16(&mut self) -> Decoded<i16> {
        self.need(2)?;
        Ok(self.rest.get_i16())
    }

    /// A big-endian 32-bit integer.
    pub fn i32(&mut self) -> Decoded<i32> {
        self.need(4)?;
        Ok(self.rest.get_i32())
    }

    /// A big-endian 64-bit integer.
    pub fn i64(&mut self) -> Decoded<i64> {
        self.need(8)?;
        Ok(self.rest.get_i64())
    }

    /// 16 bytes: a topic id (KIP-516).
    pub fn uuid(&mut self) -> Decoded<[u8; 16]> {
        self.need(16)?;
        let mut id = [0; 16];
        self.rest.copy_to_slice(&mut id);
        Ok(id)
    }

    /// An unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Decoded<u32> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = self.rest.get_u8();
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::VarintOverflow);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintOverflow)
    }

    /// A length or count in the current encoding, `None` for null. `wide`: four bytes in the old encoding, else two.
    fn length(&mut self, wide: bool) -> Decoded<Option<usize>> {
        let length = if self.flexible {
            i64::from(self.uvarint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        match length {
            -1 => Ok(None),
            0.. => usize::try_from(length).map(Some).map_err(|_| DecodeError::Truncated),
            _ => Err(DecodeError::NegativeLength),
        }
    }

    fn text(&mut self) -> Decoded<Option<Bytes>> {
        let Some(length) = self.length(false)? else {
            return Ok(None);
        };
        self.need(length)?;
        let bytes = self.rest.split_to(length);
        std::str::from_utf8(&bytes).map_err(|_| DecodeError::NotUtf8)?;
        Ok(Some(bytes))
    }

    /// A nullable string, copied out of the frame.
    pub fn nullable_string<T: for<'a> From<&'a str>>(&mut self) -> Decoded<Option<T>> {
        match self.text()? {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => {
                    self.allocate(text.len())?;
                    Ok(Some(T::from(text)))
                }
                Err(_) => Err(DecodeError::NotUtf8),
            },
        }
    }

    /// A string, copied out of the frame.
    pub fn string<T: for<'a> From<&'a str>>(&mut self) -> Decoded<T> {
        self.nullable_string()?.ok_or(DecodeError::UnexpectedNull)
    }

    /// A string nobody reads.
    pub fn skip_string(&mut self) -> Decoded<()> {
        self.text().map(drop)
    }

    /// Bytes, a slice of the frame.
    pub fn nullable_bytes(&mut self) -> Decoded<Option<Bytes>> {
        let Some(length) = self.length(true)? else {
            return Ok(None);
        };
        self.need(length)?;
        Ok(Some(self.rest.split_to(length)))
    }

    /// A nullable array. `min_size`: the fewest bytes one element can take, at least 1.
    pub fn nullable_array<T>(
        &mut self,
        min_size: usize,
        mut element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<Vec<T>>> {
        let Some(count) = self.length(true)? else {
            return Ok(None);
        };
        if count > self.rest.len() / min_size.max(1) {
            return Err(DecodeError::Truncated);
        }
        if count > 0 && size_of::<T>() > 0 {
            self.allocate(count.saturating_mul(size_of::<T>()))?;
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// An array that is not null. `min_size`: the fewest bytes one element can take, at least 1.
    pub fn array<T>(&mut self, min_size: usize, element: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        self.nullable_array(min_size, element)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Goes over an array without keeping it.
    pub fn skip_array(&mut self, min_size: usize, element: impl FnMut(&mut Self) -> Decoded<()>) -> Decoded<()> {
        // A Vec of () never allocates.
        self.nullable_array(min_size, element).map(drop)
    }

    /// The tagged fields that end a structure; nothing in the old encoding. `field` reads the tags it knows off a
    /// reader that holds that field alone and ignores the others: a newer broker may send tags that this version does
    /// not know.
    pub fn tagged(&mut self, mut field: impl FnMut(u32, &mut Self) -> Decoded<()>) -> Decoded<()> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = usize::try_from(self.uvarint()?).map_err(|_| DecodeError::Truncated)?;
            self.need(size)?;
            let mut content = Self::new(self.rest.split_to(size), true);
            content.allowance = self.allowance;
            field(tag, &mut content)?;
            self.allowance = content.allowance;
        }
        Ok(())
    }

    /// Tagged fields of which none is known.
    pub fn skip_tagged(&mut self) -> Decoded<()> {
        self.tagged(|_, _| Ok(()))
    }
}

/// A request did not fit its schema's length fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field of the request is longer than the protocol allows")]
pub struct TooLong;

/// Writes one request frame: own bytes in one buffer, foreign bytes by reference in between.
#[derive(Debug)]
pub struct Writer {
    own: BytesMut,
    /// Foreign slices and the position in `own` before which each belongs, in order.
    foreign: Vec<(usize, Bytes)>,
    foreign_bytes: usize,
    flexible: bool,
    too_long: bool,
}

impl Writer {
    /// A writer in the encoding before (`false`) or from (`true`) the message's first flexible version on.
    pub fn new(flexible: bool) -> Self {
        Self { own: BytesMut::with_capacity(256), foreign: Vec::new(), foreign_bytes: 0, flexible, too_long: false }
    }

    /// Changes the encoding; the request header's client id is never compact.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// The pieces in the order they go onto the wire.
    pub fn finish(self) -> Result<Vec<Bytes>, TooLong> {
        if self.too_long {
            return Err(TooLong);
        }
        let mut own = self.own.freeze();
        let mut pieces = Vec::with_capacity(2 * self.foreign.len() + 1);
        let mut written = 0;
        for (position, slice) in self.foreign {
            let before = own.split_to(position - written);
            written = position;
            pieces.extend([before, slice].into_iter().filter(|piece| !piece.is_empty()));
        }
        if !own.is_empty() {
            pieces.push(own);
        }
        Ok(pieces)
    }

    /// The same with the frame's four length bytes, which must have been left free by [`Writer::frame_length_here`].
    pub fn finish_frame(mut self) -> Result<Vec<Bytes>, TooLong> {
        let length = (self.own.len() + self.foreign_bytes).saturating_sub(4);
        let length = i32::try_from(length).map_err(|_| TooLong)?;
        let Some(place) = self.own.get_mut(..4) else {
            return Err(TooLong);
        };
        place.copy_from_slice(&length.to_be_bytes());
        self.finish()
    }

    /// Leaves the place of the frame's length; the first thing written.
    pub fn frame_length_here(&mut self) {
        self.own.extend_from_slice(&[0; 4]);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// A signed byte.
    pub fn i8(&mut self, value: i8) {
        self.own.extend_from_slice(&value.to_be_bytes());
    }

    /// A big-endian 16-bit integer.
    pub fn i16(&mut self, value: i16) {
        self.own.extend_from_slice(&value.to_be_bytes());
    }

    /// A big-endian 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.own.extend_from_slice(&value.to_be_bytes());
    }

    /// A big-endian 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.own.extend_from_slice(&value.to_be_bytes());
    }

    /// 16 bytes: a topic id.
    pub fn uuid(&mut self, id: &[u8; 16]) {
        self.own.extend_from_slice(id);
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.own.extend_from_slice(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.own.extend_from_slice(&[value as u8]);
    }

    fn length(&mut self, length: Option<usize>, wide: bool) {
        let limit = if wide || self.flexible {
            // One below, so that length + 1 is an i32 for every peer.
            i32::MAX as usize - 1
        } else {
            i16::MAX as usize
        };
        let length = match length {
            None => -1,
            Some(length) if length <= limit => length as i32,
            Some(_) => {
                self.too_long = true;
                0
            }
        };
        match (self.flexible, wide) {
            (true, _) => self.uvarint((length + 1) as u32),
            (false, true) => self.i32(length),
            (false, false) => self.i16(length as i16),
        }
    }

    /// A nullable string.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        self.length(text.map(str::len), false);
        self.own.extend_from_slice(text.unwrap_or("").as_bytes());
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// Bytes, by reference: they are not copied, the frame holds them.
    pub fn bytes_by_reference(&mut self, bytes: &Bytes) {
        self.length(Some(bytes.len()), true);
        if !bytes.is_empty() {
            self.foreign_bytes += bytes.len();
            self.foreign.push((self.own.len(), bytes.clone()));
        }
    }

    /// An array's count; its elements follow.
    pub fn array(&mut self, count: usize) {
        self.length(Some(count), true);
    }

    /// A null array.
    pub fn null_array(&mut self) {
        self.length(None, true);
    }

    /// No tagged fields; nothing in the old encoding.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.uvarint(0);
        }
    }
}

/// A shared string out of the frame, the type of names that live long.
pub(crate) type SharedStr = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8], flexible: bool) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes), flexible)
    }

    #[test]
    fn what_is_far_larger_in_memory_than_on_the_wire_is_refused_before_it_is_allocated() {
        let elements = |count: usize| {
            let mut bytes = i32::try_from(count).expect("it fits").to_be_bytes().to_vec();
            bytes.resize(4 + count, 7);
            reader(&bytes, false).array(1, |from| from.i8().map(|byte| [byte; 64])).map(|elements| elements.len())
        };
        assert_eq!(elements(MAX_EXCESS / 64), Ok(MAX_EXCESS / 64));
        assert_eq!(elements(MAX_EXCESS / 32), Err(DecodeError::Excessive));
        // Many small allocations are as good as a large one: two million empty strings, in a tagged field.
        let mut strings = vec![0x81, 0x89, 0x7a];
        strings.resize(2_000_003, 1);
        let mut tagged = vec![1, 0, 0x83, 0x89, 0x7a];
        tagged.extend_from_slice(&strings);
        let read = reader(&tagged, true).tagged(|_, field| field.array(1, Reader::string::<Arc<str>>).map(drop));
        assert_eq!(read, Err(DecodeError::Excessive));
    }

    #[test]
    fn a_count_beyond_the_bytes_left_allocates_nothing() {
        for (flexible, bytes) in
            [(false, &[0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4][..]), (true, &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3][..])]
        {
            let mut calls = 0;
            let result = reader(bytes, flexible).array(4, |r| {
                calls += 1;
                r.i32()
            });
            assert_eq!((result, calls), (Err(DecodeError::Truncated), 0));
        }
    }

    #[test]
    fn a_negative_length_other_than_null_is_an_error() {
        assert_eq!(reader(&[0xff, 0xfe], false).nullable_string::<String>(), Err(DecodeError::NegativeLength));
        assert_eq!(reader(&[0xff, 0xff], false).nullable_string::<String>(), Ok(None));
        assert_eq!(reader(&[0xff, 0xff], false).string::<String>(), Err(DecodeError::UnexpectedNull));
    }

    #[test]
    fn varints_end_within_32_bits() {
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).uvarint(), Ok(u32::MAX));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x1f], true).uvarint(), Err(DecodeError::VarintOverflow));
        assert_eq!(reader(&[0x80; 6], true).uvarint(), Err(DecodeError::VarintOverflow));
        assert_eq!(reader(&[0x80], true).uvarint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_tagged_field_cannot_read_past_its_size() {
        // One tag (0) of one byte, then four bytes that belong to the next structure.
        let mut r = reader(&[1, 0, 1, 9, 0, 0, 0, 7], true);
        let result = r.tagged(|_, field| field.i32().map(drop));
        assert_eq!(result, Err(DecodeError::Truncated));
    }

    #[test]
    fn foreign_bytes_keep_their_place_and_are_not_copied() {
        let payload = Bytes::from(vec![7_u8; 1000]);
        let mut w = Writer::new(false);
        w.frame_length_here();
        w.i16(1);
        w.bytes_by_reference(&payload);
        w.i16(2);
        w.bytes_by_reference(&payload.slice(..0));
        w.i16(3);
        let pieces = w.finish_frame().expect("short enough");
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), payload.as_ptr());
        let whole = pieces.concat();
        let mut expected = vec![0, 0, 3, 246, 0, 1, 0, 0, 3, 232];
        expected.extend([7; 1000]);
        expected.extend([0, 2, 0, 0, 0, 0, 0, 3]);
        assert_eq!(whole, expected);
    }

    #[test]
    fn a_string_longer_than_its_length_field_is_refused() {
        let text = "a".repeat(40_000);
        let mut old = Writer::new(false);
        old.string(&text);
        assert_eq!(old.finish(), Err(TooLong));
        let mut flexible = Writer::new(true);
        flexible.string(&text);
        assert!(flexible.finish().is_ok());
    }
}
