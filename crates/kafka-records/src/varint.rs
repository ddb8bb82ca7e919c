//! Zigzag varints as in Protocol Buffers: seven bits a byte, least significant first; the sign is bit 0. Kafka's
//! `varint` is the 32-bit kind (at most five bytes), its `varlong` the 64-bit kind (at most ten).

use crate::FieldProblem;

/// The most bytes that a `varint` takes.
pub(crate) const MAX_VARINT_BYTES: usize = 5;
/// The most bytes that a `varlong` takes.
pub(crate) const MAX_VARLONG_BYTES: usize = 10;

/// Maps small magnitudes of either sign to small unsigned numbers.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A non-negative length or count as its zigzag: what `zigzag` gives, without the sign's work.
#[inline]
pub(crate) const fn zigzag_len(len: usize) -> u64 {
    (len as u64) << 1
}

/// Bytes that `zigzagged` takes on the wire.
#[inline]
pub(crate) const fn encoded_len(zigzagged: u64) -> usize {
    if zigzagged < 1 << 7 {
        1
    } else if zigzagged < 1 << 14 {
        2
    } else {
        // ⌈significant bits / 7⌉ for up to 64 bits, as a multiplication.
        ((70 - zigzagged.leading_zeros() as usize) * 37) >> 8
    }
}

/// Writes `zigzagged` at `out[at..]`, returns where the next byte goes.
///
/// # Panics
/// If `out` ends before the varint does.
#[inline]
pub(crate) fn put(out: &mut [u8], at: usize, zigzagged: u64) -> usize {
    // Most lengths and deltas take one byte or two: straight code for those.
    if zigzagged < 1 << 7 {
        out[at] = zigzagged as u8;
        at + 1
    } else if zigzagged < 1 << 14 {
        let bytes = [zigzagged as u8 | 0x80, (zigzagged >> 7) as u8];
        out[at..at + 2].copy_from_slice(&bytes);
        at + 2
    } else {
        put_long(out, at, zigzagged)
    }
}

/// What takes more than three bytes is from here on.
pub(crate) const SHORT_END: u64 = 1 << 21;

/// A varint of up to three bytes, below [`SHORT_END`], in the low bytes of a word, and how many they are: for writing
/// several of them at once.
#[inline]
pub(crate) const fn short(zigzagged: u64) -> (u64, usize) {
    let (low, middle, high) = (zigzagged & 0x7f, (zigzagged & 0x3f80) << 1, (zigzagged & 0x1f_c000) << 2);
    if zigzagged < 1 << 7 {
        (low, 1)
    } else if zigzagged < 1 << 14 {
        (low | 0x80 | middle, 2)
    } else {
        (low | 0x80 | middle | 0x8000 | high, 3)
    }
}

#[inline(never)]
fn put_long(out: &mut [u8], mut at: usize, mut zigzagged: u64) -> usize {
    while zigzagged >= 1 << 7 {
        out[at] = zigzagged as u8 | 0x80;
        zigzagged >>= 7;
        at += 1;
    }
    out[at] = zigzagged as u8;
    at + 1
}

/// Appends `zigzagged` to `out`.
pub(crate) fn push(out: &mut Vec<u8>, zigzagged: u64) {
    let mut bytes = [0; MAX_VARLONG_BYTES];
    let len = put(&mut bytes, 0, zigzagged);
    out.extend_from_slice(&bytes[..len]);
}

/// Reads the varint at `bytes[at..]`: its value, still zigzagged, and where the next byte is. Longer encodings than needed
/// are taken, as Kafka's own readers do, up to ten bytes.
#[inline]
pub(crate) fn get(bytes: &[u8], at: usize) -> Result<(u64, usize), FieldProblem> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().skip(at).take(MAX_VARLONG_BYTES).enumerate() {
        // The tenth byte has room for the one bit that is left.
        if i == MAX_VARLONG_BYTES - 1 && byte > 1 {
            return Err(FieldProblem::Overlong);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((value, at + i + 1));
        }
    }
    Err(FieldProblem::CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_bytes_written_at_every_power_of_two() {
        let mut out = [0; MAX_VARLONG_BYTES];
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1, u64::MAX] {
                let len = put(&mut out, 0, value);
                assert_eq!(len, encoded_len(value), "{value:#x}");
                assert_eq!(get(&out[..len], 0), Ok((value, len)));
                assert_eq!(get(&out[..len - 1], 0), Err(FieldProblem::CutOff));
            }
        }
    }

    #[test]
    fn zigzag_keeps_small_magnitudes_small_and_is_reversible() {
        for (value, expected) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (i64::MAX, u64::MAX - 1), (i64::MIN, u64::MAX)] {
            assert_eq!(zigzag(value), expected);
            assert_eq!(unzigzag(expected), value);
        }
        assert_eq!(zigzag_len(300), zigzag(300));
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], 0), Err(FieldProblem::Overlong));
        assert_eq!(get(&[0x80; 11], 0), Err(FieldProblem::Overlong));
    }
}
