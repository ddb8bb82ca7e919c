//! Times of records, as documents have them: RFC 3339.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// Milliseconds since the epoch.
pub(super) fn parse(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// `None` for what no calendar has.
pub(super) fn format(milliseconds: i64) -> Option<String> {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_offset_and_written_in_utc() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
            ("2023-11-14T23:13:20.1239+01:00", 1_700_000_000_123),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(parse(text), Some(milliseconds), "{text}");
        }
        assert_eq!(format(1_700_000_000_123).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!(format(1_700_000_000_000).as_deref(), Some("2023-11-14T22:13:20Z"));
        for text in ["", "yesterday", "2023-11-14", "1700000000", "2023-13-14T22:13:20Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(format(i64::MAX), None);
    }
}
