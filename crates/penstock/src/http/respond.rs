//! Answers: JSON, errors, and the produce summary.

use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use produce_pipeline::{Outcome, Summary};
use serde::Serialize;

use super::error::ApiError;
use crate::http1::{ResponseBody, close_after};

/// The media type of one JSON document.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of JSON lines.
pub(crate) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// An answer on its way out.
pub(crate) type Response = hyper::Response<ResponseBody>;

/// A JSON document as an answer.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    let mut response = Response::new(ResponseBody::whole(json_line(document)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A JSON document and a line end.
pub(crate) fn json_line(document: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(document).expect("our documents have string keys and no failing Serialize");
    line.push(b'\n');
    line
}

/// What an error's answer says.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    pub(super) error_code: u32,
    pub(super) message: &'a str,
}

/// An error as an answer.
pub(crate) fn error(error: &ApiError) -> Response {
    let body = ErrorBody { error_code: error.code, message: &error.message };
    let mut response = json(error.status(), &body);
    error_headers(error, &mut response);
    response
}

/// The headers that go with an error.
fn error_headers(error: &ApiError, response: &mut Response) {
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if error.close {
        close_after(response);
    }
}

/// What an upload came to.
pub(crate) struct UploadResult<'a> {
    pub(crate) topic: &'a str,
    pub(crate) summary: &'a Summary,
    /// Why the body was not read to its end, if it was not. What it had brought until then is in the summary.
    pub(crate) stopped: Option<&'a ApiError>,
}

#[derive(Serialize)]
struct SummaryBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    topic: &'a str,
    lines: u64,
    written: u64,
    not_written: u64,
    unknown: u64,
    partitions: Vec<PartitionBody>,
    failures: Vec<FailureBody>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    failures_truncated: bool,
}

#[derive(Serialize)]
struct PartitionBody {
    partition: i32,
    count: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

#[derive(Serialize)]
struct FailureBody {
    first_line: u64,
    last_line: u64,
    outcome: &'static str,
    error_code: u32,
    message: String,
}

impl UploadResult<'_> {
    /// The status of the first failure by line; what stopped the body comes after every line that was read. `None`: all
    /// written.
    fn error(&self) -> Option<ApiError> {
        let Some(first) = self.summary.failures.first() else {
            return self.stopped.cloned();
        };
        let mut error = ApiError::of_cause(first.outcome, &first.cause);
        let mut message = format!("line {}: {}", first.first_line, error.message);
        if let Some(stopped) = self.stopped {
            message = format!("{message}; then the body was not read on: {}", stopped.message);
            error.close |= stopped.close;
        }
        error.message = message.into();
        Some(error)
    }

    fn document(&self, error: Option<&ApiError>, done: Option<bool>) -> SummaryBody<'_> {
        let partitions = self.summary.partitions.iter().map(|partition| PartitionBody {
            partition: partition.partition,
            count: partition.count,
            first_offset: partition.first_offset,
            last_offset: partition.last_offset,
        });
        let failures = self.summary.failures.iter().map(|failure| {
            let error = ApiError::of_cause(failure.outcome, &failure.cause);
            FailureBody {
                first_line: failure.first_line,
                last_line: failure.last_line,
                outcome: outcome_name(failure.outcome),
                error_code: error.code,
                message: error.message.into_owned(),
            }
        });
        SummaryBody {
            done,
            error_code: error.map(|error| error.code),
            message: error.map(|error| error.message.to_string()),
            topic: self.topic,
            lines: self.summary.lines,
            written: self.summary.written,
            not_written: self.summary.not_written,
            unknown: self.summary.unknown,
            partitions: partitions.collect(),
            failures: failures.collect(),
            failures_truncated: self.summary.failures_truncated,
        }
    }

    /// The summary as an answer of its own.
    pub(crate) fn response(&self) -> Response {
        let error = self.error();
        let status = error.as_ref().map_or(StatusCode::OK, ApiError::status);
        let mut response = json(status, &self.document(error.as_ref(), None));
        if let Some(error) = &error {
            error_headers(error, &mut response);
        }
        response
    }

    /// The summary as the last line of a progress stream.
    pub(crate) fn last_line(&self) -> Vec<u8> {
        json_line(&self.document(self.error().as_ref(), Some(true)))
    }
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Written => "written",
        Outcome::NotWritten => "not_written",
        Outcome::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::CONNECTION;
    use produce_pipeline::{Cause, Failure, PartitionSummary};

    fn summary(failures: Vec<Failure>) -> Summary {
        Summary {
            lines: 5000,
            written: 5000,
            not_written: 0,
            unknown: 0,
            partitions: vec![PartitionSummary {
                partition: 2,
                count: 5000,
                first_offset: Some(880),
                last_offset: Some(5879),
            }],
            failures,
            failures_truncated: false,
            log_append_time: None,
        }
    }

    fn text(line: &[u8]) -> &str {
        std::str::from_utf8(line).expect("JSON is UTF-8")
    }

    #[test]
    fn a_clean_summary_is_as_the_interface_says() {
        let summary = summary(Vec::new());
        let result = UploadResult { topic: "t", summary: &summary, stopped: None };
        assert_eq!(
            text(&result.last_line()),
            "{\"done\":true,\"topic\":\"t\",\"lines\":5000,\"written\":5000,\"not_written\":0,\"unknown\":0,\
             \"partitions\":[{\"partition\":2,\"count\":5000,\"first_offset\":880,\"last_offset\":5879}],\"failures\":[]}\n"
        );
        assert_eq!(result.response().status(), StatusCode::OK);
    }

    #[test]
    fn the_first_failing_line_gives_the_status() {
        let refused = Cause::Refused { code: 413, message: "too long".into() };
        let summary = summary(vec![
            Failure { first_line: 17, last_line: 17, outcome: Outcome::NotWritten, cause: refused },
            Failure { first_line: 20, last_line: 30, outcome: Outcome::Unknown, cause: Cause::Deadline },
        ]);
        let stopped = ApiError::draining();
        let result = UploadResult { topic: "t", summary: &summary, stopped: Some(&stopped) };
        let response = result.response();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()[CONNECTION], "close");
        let line = result.last_line();
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(line["error_code"], 413);
        assert!(
            line["message"].as_str().is_some_and(|message| message.contains("line 17") && message.contains("stopping"))
        );
        assert_eq!(line["failures"][0]["outcome"], "not_written");
        assert_eq!(line["failures"][1]["outcome"], "unknown");
        assert_eq!(line["failures"][1]["error_code"], 50401);
    }

    #[test]
    fn a_body_that_was_not_read_whole_is_no_success() {
        let summary = summary(Vec::new());
        let stopped = ApiError::bad_request("broken body");
        let result = UploadResult { topic: "t", summary: &summary, stopped: Some(&stopped) };
        assert_eq!(result.response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn an_error_tells_when_to_come_back_and_what_is_allowed() {
        let response = error(&ApiError::overloaded());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        assert_eq!(error(&ApiError::bad_method("GET")).headers()[ALLOW], "GET");
    }
}
