//! Trace context as HTTP carries it (W3C Trace Context, level 1).

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use hyper::HeaderMap;

/// The header, and the usual name of the record header that carries it on.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// What vendors add to it.
pub(crate) const TRACESTATE: &str = "tracestate";

/// A longer `tracestate` is left behind: 512 characters are what has to be carried (section 3.3.1.5).
const TRACESTATE_BYTES: usize = 512;

/// A `traceparent`: a place in a trace. Neither id is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: u128,
    /// The span that was under way where the header was written.
    pub(crate) span_id: u64,
    /// Whoever began the trace has it recorded.
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// The context of a request. `None` where there is none, more than one, or one that is not well-formed: then the trace
    /// begins anew (section 3.2.2.3).
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value.as_bytes()) }
    }

    /// `version-trace-parent-flags` in lower-case hex. What a later version appends is not looked at.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(55)?;
        let version = hex(&known[..2])?;
        let appended = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more.first(), None | Some(b'-')),
        };
        if !appended || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let (trace_id, span_id) = (hex(&known[3..35])?, u64::try_from(hex(&known[36..52])?).ok()?);
        let sampled = hex(&known[53..])? & 1 == 1;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled })
    }

    /// The beginning of a trace.
    pub(crate) fn new(sampled: bool) -> Self {
        let trace_id = u128::from(random()) << 64 | u128::from(random());
        Self { trace_id, span_id: random(), sampled }
    }

    /// The same trace, with a span of our own.
    pub(crate) fn child(self) -> Self {
        Self { span_id: random(), ..self }
    }
}

/// As the header has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// The `tracestate` of a request, its headers joined. Only of use beside a `traceparent`.
pub(crate) fn tracestate(headers: &HeaderMap) -> Option<String> {
    let mut joined = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
        if joined.len() > TRACESTATE_BYTES {
            return None;
        }
    }
    (!joined.is_empty()).then_some(joined)
}

/// Lower-case hex alone (section 3.2.1).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Ids need not be secret, only different from all others.
fn random() -> u64 {
    // A fresh hasher's keys are random.
    RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn of(values: &[&str]) -> Option<String> {
        TraceContext::of(&headers(TRACEPARENT, values)).map(|context| context.to_string())
    }

    #[test]
    fn a_context_is_read_and_written_alike() {
        assert_eq!(of(&[VALID]).as_deref(), Some(VALID));
        let unsampled = VALID.replace("-01", "-00");
        assert_eq!(of(&[&unsampled]), Some(unsampled));
    }

    #[test]
    fn flags_and_fields_of_later_versions_are_not_carried_on() {
        assert_eq!(of(&[&VALID.replace("-01", "-ff")]).as_deref(), Some(VALID));
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(of(&[&later]).as_deref(), Some(VALID));
        assert_eq!(of(&[&format!("{later}-what-the-future-brings")]).as_deref(), Some(VALID));
    }

    #[test]
    fn what_is_not_well_formed_is_no_context() {
        let upper = VALID.to_uppercase();
        for bad in [
            "",
            "00",
            &VALID[1..],
            &format!("{VALID}-"),
            &format!("{VALID}-00"),
            &VALID.replacen("00", "ff", 1),
            &format!("{}.x", VALID.replacen("00", "cc", 1)),
            &upper,
            &VALID.replace('b', "g"),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            &format!("{VALID},{VALID}"),
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[VALID, VALID]), None, "one, and no more");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn ids_are_new_each_time() {
        let root = TraceContext::new(true);
        let child = root.child();
        assert_eq!((child.trace_id, child.sampled), (root.trace_id, true));
        assert_ne!(child.span_id, root.span_id);
        assert_ne!(TraceContext::new(false).trace_id, root.trace_id);
    }

    #[test]
    fn tracestate_is_joined_and_bounded() {
        assert_eq!(tracestate(&headers(TRACESTATE, &["a=1", "b=2,c=3"])).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(tracestate(&headers(TRACESTATE, &[&"x".repeat(513)])), None);
        assert_eq!(tracestate(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
            }
        }
    }
}
