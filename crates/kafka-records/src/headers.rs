//! Record headers as their bytes in a record.

use bytes::Bytes;

use crate::varint;

/// The headers of a record as they lie in it: their count, then key and value of each.
///
/// Encoded once per request and appended to each of its records as bytes. Order and duplicates are kept: Kafka's headers
/// are a list, not a map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderBlock {
    /// Empty when there are no headers: then a record carries a single zero byte, which is written without a copy.
    pub(crate) encoded: Bytes,
}

impl HeaderBlock {
    /// No headers. Costs nothing per record.
    pub const fn none() -> &'static Self {
        static NONE: HeaderBlock = HeaderBlock { encoded: Bytes::new() };
        &NONE
    }

    /// Encodes `headers` in their order. A key is any UTF-8, a value any bytes or null.
    ///
    /// # Panics
    /// If a key, a value or the number of headers passes `i32::MAX`, Kafka's limit for each.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut body = Vec::new();
        let mut count = 0;
        for (key, value) in headers {
            varint::push(&mut body, wire_len(key.len()));
            body.extend_from_slice(key.as_bytes());
            match value {
                Some(value) => {
                    varint::push(&mut body, wire_len(value.len()));
                    body.extend_from_slice(value);
                }
                None => varint::push(&mut body, varint::zigzag(-1)),
            }
            count += 1;
        }
        if count == 0 {
            return Self::default();
        }
        let mut encoded = Vec::with_capacity(varint::MAX_VARINT_BYTES + body.len());
        varint::push(&mut encoded, wire_len(count));
        encoded.extend_from_slice(&body);
        Self { encoded: encoded.into() }
    }

    /// These headers and one more behind them.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn and(&self, key: &str, value: Option<&[u8]>) -> Self {
        let one = Self::new([(key, value)]);
        if self.is_empty() {
            return one;
        }
        let (_, begin) = checked_varint(&self.encoded, 0);
        let mut encoded = Vec::with_capacity(self.encoded.len() + one.encoded.len() + 1);
        varint::push(&mut encoded, wire_len(self.len() + 1));
        encoded.extend_from_slice(&self.encoded[begin..]);
        // A count of one is one byte.
        encoded.extend_from_slice(&one.encoded[1..]);
        Self { encoded: encoded.into() }
    }

    /// Headers as a record has them, which the caller has walked through.
    pub(crate) fn from_checked(encoded: Bytes) -> Self {
        Self { encoded }
    }

    /// The headers in order, keys and values. Keys are bytes here, for nothing makes a peer write UTF-8.
    pub fn iter(&self) -> Headers<'_> {
        let (count, at) = if self.is_empty() { (0, 0) } else { checked_varint(&self.encoded, 0) };
        Headers { encoded: &self.encoded, at, left: count.cast_unsigned() as usize }
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.iter().len()
    }

    /// Bytes that these headers take in a record.
    pub fn encoded_len(&self) -> usize {
        self.encoded.len().max(1)
    }

    /// Whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

impl<'a> IntoIterator for &'a HeaderBlock {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = Headers<'a>;

    fn into_iter(self) -> Headers<'a> {
        self.iter()
    }
}

/// Iterator over the headers of a [`HeaderBlock`]: key and nullable value.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    encoded: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Headers<'a> {
    fn nullable_bytes(&mut self) -> Option<&'a [u8]> {
        let (len, start) = checked_varint(self.encoded, self.at);
        let end = start + usize::try_from(len).unwrap_or(0);
        self.at = end;
        (len >= 0).then(|| &self.encoded[start..end])
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key = self.nullable_bytes().expect("a checked header has a key");
        Some((key, self.nullable_bytes()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A varint of a block that was encoded here or walked through when it was read.
fn checked_varint(encoded: &[u8], at: usize) -> (i64, usize) {
    let (value, end) = varint::get(encoded, at).expect("a checked block holds whole varints");
    (varint::unzigzag(value), end)
}

fn wire_len(len: usize) -> u64 {
    assert!(i32::try_from(len).is_ok(), "Kafka counts headers and their bytes in 32 bits, {len} is too many");
    varint::zigzag_len(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_header_goes_behind_the_others() {
        let mut headers = HeaderBlock::default();
        // Past the count that one byte holds.
        for count in 1..=70 {
            headers = headers.and("k", Some(b"value"));
            assert_eq!(headers, HeaderBlock::new(std::iter::repeat_n(("k", Some(&b"value"[..])), count)));
        }
        let last = headers.and("null", None);
        assert_eq!(last.iter().last(), Some((&b"null"[..], None)));
    }
}
