//! Each kind of finding, in a history that has it and nothing else.

use super::*;
use crate::history::{Range, Told, since_creation};

fn line(seq: u64, attempt: u32) -> Line {
    Line { writer: 1, key: 0, seq, attempt }
}

/// A request for partition 0 that was answered in time with this outcome for every line.
fn request(lines: &[Line], outcome: Outcome) -> Request {
    let second = Duration::from_secs(1);
    Request {
        connection: 0,
        partition: Some(0),
        keyed: false,
        abandoned: false,
        lines: lines.to_vec(),
        invoked: second,
        slot: second,
        sending: Duration::ZERO,
        due: second,
        answered: Some(2 * second),
        told: Told::all(outcome, lines.len()),
    }
}

/// Partition 0 with these lines from offset 10 on.
fn log(lines: &[Line]) -> Vec<Logged> {
    let record = |(line, offset): (&Line, i64)| Logged { partition: 0, offset, key: None, line: Some(*line) };
    lines.iter().zip(10..).map(record).collect()
}

fn kinds(requests: &[Request], log: &[Logged]) -> Vec<Kind> {
    check(requests, log).iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_history_that_holds_has_no_findings() {
    let mut written = request(&[line(0, 0), line(1, 0)], Outcome::Written);
    written.told.ranges = Some(vec![Range { partition: 0, count: 2, first: Some(10), last: Some(11) }]);
    let requests = [
        written,
        request(&[line(2, 0)], Outcome::NotWritten),
        request(&[line(3, 0)], Outcome::Unknown),
        request(&[line(4, 0)], Outcome::Unknown),
        request(&[line(2, 1), line(3, 1)], Outcome::Written),
    ];
    // The first try of 4 came to be written, that of 3 too; what is unknown may.
    let log = log(&[line(0, 0), line(1, 0), line(3, 0), line(4, 0), line(2, 1), line(3, 1)]);
    assert_eq!(kinds(&requests, &log), []);
}

#[test]
fn a_lost_line_is_found() {
    let requests = [request(&[line(0, 0), line(1, 0)], Outcome::Written)];
    assert_eq!(kinds(&requests, &log(&[line(0, 0)])), [Kind::Lost]);
}

#[test]
fn a_duplicate_is_found_whatever_was_told() {
    for outcome in [Outcome::Written, Outcome::Unknown] {
        let requests = [request(&[line(0, 0)], outcome)];
        let twice = log(&[line(0, 0), line(0, 0)]);
        assert_eq!(kinds(&requests, &twice), [Kind::Duplicate, Kind::TooOften]);
    }
}

#[test]
fn a_client_s_own_retry_is_no_duplicate() {
    let requests = [request(&[line(0, 0)], Outcome::Unknown), request(&[line(0, 1)], Outcome::Written)];
    assert_eq!(kinds(&requests, &log(&[line(0, 0), line(0, 1)])), []);
}

#[test]
fn lines_out_of_order_are_found_within_a_request_and_between_two() {
    let one = [request(&[line(0, 0), line(1, 0)], Outcome::Written)];
    assert_eq!(kinds(&one, &log(&[line(1, 0), line(0, 0)])), [Kind::Reordered]);
    let two = [request(&[line(0, 0)], Outcome::Unknown), request(&[line(1, 0)], Outcome::Written)];
    assert_eq!(kinds(&two, &log(&[line(1, 0), line(0, 0)])), [Kind::Reordered]);
}

#[test]
fn order_is_by_sending_not_by_sequence() {
    let requests = [
        request(&[line(0, 0)], Outcome::NotWritten),
        request(&[line(1, 0)], Outcome::Written),
        request(&[line(0, 1)], Outcome::Written),
    ];
    assert_eq!(kinds(&requests, &log(&[line(1, 0), line(0, 1)])), []);
}

#[test]
fn no_order_is_promised_between_connections() {
    let mut requests = [request(&[line(0, 0)], Outcome::Unknown), request(&[line(1, 0)], Outcome::Written)];
    requests[1].connection = 1;
    assert_eq!(kinds(&requests, &log(&[line(1, 0), line(0, 0)])), []);
}

#[test]
fn wrong_offsets_counts_and_partitions_of_a_summary_are_found() {
    let right = Range { partition: 0, count: 2, first: Some(10), last: Some(11) };
    for wrong in [
        Range { first: Some(9), ..right },
        Range { last: Some(12), ..right },
        Range { count: 1, ..right },
        Range { partition: 1, ..right },
    ] {
        let mut request = request(&[line(0, 0), line(1, 0)], Outcome::Written);
        request.told.ranges = Some(vec![wrong]);
        assert_eq!(kinds(&[request], &log(&[line(0, 0), line(1, 0)])), [Kind::WrongOffset], "{wrong:?}");
    }
}

#[test]
fn offsets_are_those_of_the_written_lines_alone() {
    let mut request = request(&[line(0, 0), line(1, 0), line(2, 0)], Outcome::Written);
    request.told.outcomes[0] = Outcome::Unknown;
    request.told.ranges = Some(vec![Range { partition: 0, count: 2, first: Some(11), last: Some(12) }]);
    assert_eq!(kinds(&[request], &log(&[line(0, 0), line(1, 0), line(2, 0)])), []);
}

#[test]
fn a_line_that_was_not_written_and_is_there_is_found() {
    let requests = [request(&[line(0, 0)], Outcome::NotWritten)];
    assert_eq!(kinds(&requests, &log(&[line(0, 0)])), [Kind::NotWrittenPresent, Kind::TooOften]);
}

#[test]
fn another_partition_than_asked_for_is_found() {
    let requests = [request(&[line(0, 0)], Outcome::Written)];
    let mut log = log(&[line(0, 0)]);
    log[0].partition = 3;
    assert_eq!(kinds(&requests, &log), [Kind::WrongPartition]);
}

#[test]
fn a_key_in_two_partitions_or_missing_is_found() {
    let mut requests = [request(&[line(0, 0), line(1, 0)], Outcome::Written)];
    requests[0].partition = None;
    requests[0].keyed = true;
    let mut log = log(&[line(0, 0), line(1, 0)]);
    assert_eq!(kinds(&requests, &log), [Kind::WrongPartition; 2], "no key");
    for record in &mut log {
        record.key = Some(line(0, 0).kafka_key());
    }
    assert_eq!(kinds(&requests, &log), []);
    log[1].partition = 1;
    assert_eq!(kinds(&requests, &log), [Kind::WrongPartition]);
}

#[test]
fn values_that_nobody_sent_are_found() {
    let mut records = log(&[line(0, 0), line(7, 0)]);
    records[0].line = None;
    assert_eq!(kinds(&[], &records), [Kind::Foreign; 2]);
}

#[test]
fn answers_that_are_late_or_never_come_are_found() {
    let mut late = request(&[line(0, 0)], Outcome::Written);
    late.answered = Some(late.invoked + late.due + GRACE + Duration::from_millis(1));
    let mut never = request(&[line(1, 0)], Outcome::Unknown);
    never.answered = None;
    let requests = [late, never];
    assert_eq!(kinds(&requests, &log(&[line(0, 0)])), [Kind::Late, Kind::Unresolved]);
}

#[test]
fn a_record_of_a_deleted_topic_in_its_successor_is_found() {
    let times = [1, 10, 20].map(Duration::from_secs);
    let (deleted, created) = (Duration::from_secs(9), Duration::from_secs(12));
    let history = |outcome| {
        let mut requests: Vec<_> = times
            .iter()
            .zip(0..)
            .map(|(invoked, seq)| Request { invoked: *invoked, ..request(&[line(seq, 0)], outcome) })
            .collect();
        for request in &mut requests {
            request.answered = Some(request.invoked);
        }
        since_creation(&mut requests, deleted, created, Duration::from_secs(1));
        requests
    };
    let written = history(Outcome::Written);
    assert_eq!(kinds(&written, &log(&[line(2, 0)])), [], "what was acknowledged before is gone, as it should");
    assert_eq!(kinds(&written, &log(&[line(1, 0), line(2, 0)])), []);
    assert_eq!(kinds(&written, &log(&[])), [Kind::Lost], "what was acknowledged after stays");
    let unknown = history(Outcome::Unknown);
    assert_eq!(kinds(&unknown, &log(&[line(0, 0)])), [Kind::NotWrittenPresent, Kind::TooOften]);
}
