//! What an HTTP answer says of each line.
//!
//! | answer | lines become |
//! |---|---|
//! | 200 to one record | written, with its offset |
//! | a summary | as its counts and failures say, with its partitions |
//! | an error without a summary | not written: the body was refused. But 504: unknown |
//! | a progress stream that was cut | written up to the last `through_line` without a failure, the rest unknown |
//! | nothing, or a cut answer | unknown |

use penstock_tests::client::Exchange;
use serde_json::Value;

use crate::history::{Outcome, Range, Told};

/// What the request was, as far as its answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One record, the body's bytes.
    Record,
    /// NDJSON, answered by a summary.
    Lines,
    /// NDJSON, answered by a progress stream.
    Progress,
}

/// Reads an answer to `lines` lines.
///
/// # Errors
///
/// Where it contradicts itself or the interface; in words.
pub(crate) fn told(form: Form, lines: usize, exchange: &Exchange) -> Result<Told, String> {
    let Some(status) = exchange.status.filter(|_| exchange.whole) else {
        return Ok(match form {
            Form::Progress => settled_prefix(lines, &exchange.body),
            _ => Told::all(Outcome::Unknown, lines),
        });
    };
    let text = String::from_utf8_lossy(&exchange.body);
    let complain = |what: &str| format!("{what}: {status} {}", text.chars().take(600).collect::<String>());
    let last = text.lines().last().unwrap_or_default();
    let document: Value = serde_json::from_str(last).map_err(|error| complain(&error.to_string()))?;
    if document.get("lines").is_some() {
        if form == Form::Progress && status == 200 && document["done"] != true {
            return Err(complain("the last line is not done"));
        }
        let told = summary(lines, &document).ok_or_else(|| complain("the summary contradicts itself"))?;
        let all_written = told.outcomes.iter().all(|outcome| *outcome == Outcome::Written);
        if form != Form::Progress && all_written != (status == 200) {
            return Err(complain("status and summary differ"));
        }
        return Ok(told);
    }
    match (form, status) {
        (Form::Record, 200) => {
            let partition = document["partition"].as_i64().and_then(|partition| partition.try_into().ok());
            let partition = partition.ok_or_else(|| complain("no partition"))?;
            let offset = offset(&document["offset"]);
            let range = Range { partition, count: 1, first: offset, last: offset };
            Ok(Told { outcomes: vec![Outcome::Written], ranges: Some(vec![range]) })
        }
        // Refused before the body was read.
        (_, 404 | 503) => Ok(Told::all(Outcome::NotWritten, lines)),
        (_, 504) => Ok(Told::all(Outcome::Unknown, lines)),
        _ => Err(complain("no answer to this request")),
    }
}

/// Offsets that a broker did not tell are null.
fn offset(value: &Value) -> Option<i64> {
    value.as_i64().filter(|offset| *offset >= 0)
}

fn summary(lines: usize, document: &Value) -> Option<Told> {
    let count = |name: &str| document[name].as_u64().and_then(|count| usize::try_from(count).ok());
    let read = count("lines")?;
    let (written, not_written, unknown) = (count("written")?, count("not_written")?, count("unknown")?);
    if read > lines || written + not_written + unknown != read {
        return None;
    }
    let mut outcomes = vec![Outcome::Written; read];
    for failure in document["failures"].as_array()? {
        let line = |name: &str| failure[name].as_u64().and_then(|line| usize::try_from(line).ok());
        let outcome = match failure["outcome"].as_str()? {
            "not_written" => Outcome::NotWritten,
            "unknown" => Outcome::Unknown,
            _ => return None,
        };
        for told in outcomes.get_mut(line("first_line")?.checked_sub(1)?..line("last_line")?)? {
            // Each line has one outcome.
            if std::mem::replace(told, outcome) != Outcome::Written {
                return None;
            }
        }
    }
    let ranges = document["partitions"].as_array()?.iter().map(|partition| {
        Some(Range {
            partition: partition["partition"].as_i64()?.try_into().ok()?,
            count: partition["count"].as_u64()?,
            first: offset(&partition["first_offset"]),
            last: offset(&partition["last_offset"]),
        })
    });
    let ranges: Vec<Range> = ranges.collect::<Option<_>>()?;
    if ranges.iter().map(|range| range.count).sum::<u64>() != written as u64 {
        return None;
    }
    if document["failures_truncated"] == true {
        // Which other lines failed is not told.
        for told in outcomes.iter_mut().filter(|told| **told == Outcome::Written) {
            *told = Outcome::Unknown;
        }
        outcomes.resize(lines, Outcome::Unknown);
        return Some(Told { outcomes, ranges: None });
    }
    let are = |outcome: Outcome| outcomes.iter().filter(|told| **told == outcome).count();
    if are(Outcome::NotWritten) != not_written || are(Outcome::Unknown) != unknown {
        return None;
    }
    // The body was not read on from there.
    outcomes.resize(lines, Outcome::NotWritten);
    Some(Told { outcomes, ranges: Some(ranges) })
}

fn settled_prefix(lines: usize, body: &[u8]) -> Told {
    let mut told = Told::all(Outcome::Unknown, lines);
    let text = String::from_utf8_lossy(body);
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    for document in whole.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let through = document["through_line"].as_u64().and_then(|through| usize::try_from(through).ok());
        if let Some(settled) = through.and_then(|through| told.outcomes.get_mut(..through))
            && document["not_written"] == 0
            && document["unknown"] == 0
        {
            settled.fill(Outcome::Written);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(status: u16, body: &str) -> Exchange {
        Exchange { status: Some(status), body: body.into(), whole: true, keeps: true }
    }

    #[test]
    fn a_record_has_its_offset() {
        let answer = exchange(200, r#"{"topic":"t","partition":2,"offset":7,"timestamp":1}"#);
        let range = Range { partition: 2, count: 1, first: Some(7), last: Some(7) };
        let expected = Told { outcomes: vec![Outcome::Written], ranges: Some(vec![range]) };
        assert_eq!(told(Form::Record, 1, &answer), Ok(expected));
    }

    #[test]
    fn failures_of_a_summary_belong_to_their_lines() {
        let body = r#"{"lines":4,"written":1,"not_written":1,"unknown":2,
            "partitions":[{"partition":0,"count":1,"first_offset":3,"last_offset":3}],
            "failures":[{"first_line":1,"last_line":1,"outcome":"not_written"},
                        {"first_line":3,"last_line":4,"outcome":"unknown"}]}"#
            .replace('\n', "");
        let told = told(Form::Lines, 4, &exchange(503, &body)).expect("it is consistent");
        let expected = [Outcome::NotWritten, Outcome::Written, Outcome::Unknown, Outcome::Unknown];
        assert_eq!(told.outcomes, expected);
        assert_eq!(told.ranges.map(|ranges| ranges.len()), Some(1));
    }

    #[test]
    fn contradictions_are_errors() {
        for body in [
            r#"{"lines":2,"written":1,"not_written":0,"unknown":0,"partitions":[],"failures":[]}"#,
            r#"{"lines":3,"written":3,"not_written":0,"unknown":0,"partitions":[{"partition":0,"count":3}],"failures":[]}"#,
            r#"{"lines":2,"written":2,"not_written":0,"unknown":0,"partitions":[{"partition":0,"count":1}],"failures":[]}"#,
            r#"{"lines":2,"written":1,"not_written":1,"unknown":0,"partitions":[{"partition":0,"count":1}],"failures":[]}"#,
            r#"{"lines":1"#,
            r#"{"error_code":500,"message":""}"#,
        ] {
            assert!(told(Form::Lines, 2, &exchange(200, body)).is_err(), "{body}");
        }
        let written = r#"{"lines":1,"written":1,"not_written":0,"unknown":0,"partitions":[{"partition":0,"count":1}],"failures":[]}"#;
        assert!(told(Form::Lines, 1, &exchange(200, written)).is_ok());
        assert!(told(Form::Lines, 1, &exchange(503, written)).is_err());
    }

    #[test]
    fn a_refusal_wrote_nothing_and_a_timeout_is_unknown() {
        let body = r#"{"error_code":50301,"message":"draining"}"#;
        assert_eq!(told(Form::Lines, 2, &exchange(503, body)), Ok(Told::all(Outcome::NotWritten, 2)));
        assert_eq!(told(Form::Lines, 2, &exchange(504, body)), Ok(Told::all(Outcome::Unknown, 2)));
    }

    #[test]
    fn a_cut_progress_stream_settles_its_prefix_only() {
        let body = "{\"through_line\":2,\"written\":2,\"not_written\":0,\"unknown\":0}\n{\"through_line\":3,\"writ";
        let cut = Exchange { whole: false, ..exchange(200, body) };
        let expected = [Outcome::Written, Outcome::Written, Outcome::Unknown];
        assert_eq!(told(Form::Progress, 3, &cut).map(|told| told.outcomes), Ok(expected.to_vec()));
        assert_eq!(told(Form::Lines, 3, &cut), Ok(Told::all(Outcome::Unknown, 3)));
    }
}
