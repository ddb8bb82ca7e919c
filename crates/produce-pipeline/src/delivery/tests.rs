use super::*;
use crate::budget::MemoryBudget;

fn delivery() -> Delivery {
    let lease = Rc::new(Lease::new(MemoryBudget::new(64 << 20)));
    Delivery::new(lease, Duration::from_secs(30), 1_000, 1)
}

fn range(delivery: &Delivery, first_line: u64, count: u32) -> Range {
    Range { delivery: delivery.clone(), first_line, count, bytes: count * 10 }
}

/// Lines `next_line - records ..next_line` come, in a segment of their own.
fn segment(delivery: &Delivery, next_line: u64, records: u64) {
    delivery.handle_appended(next_line, records, records as usize * 10);
    if let Some(last) = delivery.0.state.borrow_mut().segments.back_mut() {
        last.bytes = SEGMENT_BYTES;
    }
}

#[test]
fn the_settled_prefix_grows_over_what_is_settled_without_a_gap() {
    let d = delivery();
    segment(&d, 11, 10);
    segment(&d, 21, 10);
    assert_eq!(d.progress().through_line, 0);
    settle_written(&[range(&d, 11, 10)], 1, Some(0), None);
    assert_eq!(d.progress(), Progress { through_line: 0, written: 10, not_written: 0, unknown: 0 });
    settle_written(&[range(&d, 1, 4)], 0, Some(0), None);
    assert_eq!(d.progress().through_line, 0);
    settle_written(&[range(&d, 5, 6)], 0, Some(4), None);
    assert_eq!(d.progress(), Progress { through_line: 20, written: 20, not_written: 0, unknown: 0 });
    assert!(d.is_resolved());
}

#[test]
fn empty_and_refused_lines_are_settled_as_they_come() {
    let d = delivery();
    d.handle_refused(2, Cause::TooLarge);
    d.handle_appended(4, 0, 0);
    assert_eq!(d.progress(), Progress { through_line: 3, written: 0, not_written: 1, unknown: 0 });
    let summary = d.summary();
    assert_eq!((summary.lines, summary.not_written), (3, 1));
    assert_eq!((summary.failures[0].first_line, summary.failures[0].last_line), (2, 2));
}

#[test]
fn lines_are_counted_from_where_the_request_says() {
    let lease = Rc::new(Lease::new(MemoryBudget::new(1 << 20)));
    let d = Delivery::new(lease, Duration::from_secs(30), 1_000, 5_000);
    assert_eq!(d.progress().through_line, 4_999);
    d.handle_appended(5_002, 2, 20);
    settle_written(&[range(&d, 5_000, 2)], 0, Some(7), None);
    assert_eq!(d.progress().through_line, 5_001);
    assert_eq!(d.summary().lines, 2);
}

#[test]
fn one_batch_settles_several_requests_with_their_own_offsets() {
    let (a, b) = (delivery(), delivery());
    a.handle_appended(6, 5, 50);
    b.handle_appended(3, 2, 20);
    let ranges = [range(&a, 1, 2), range(&b, 1, 2), range(&a, 3, 1), range(&a, 4, 2)];
    settle_written(&ranges, 3, Some(100), Some(9));
    let of_a = PartitionSummary { partition: 3, count: 5, first_offset: Some(100), last_offset: Some(106) };
    let of_b = PartitionSummary { partition: 3, count: 2, first_offset: Some(102), last_offset: Some(103) };
    assert_eq!(a.summary().partitions, [of_a]);
    assert_eq!(b.summary().partitions, [of_b]);
    assert_eq!(b.summary().log_append_time, Some(9));
}

#[test]
fn neighbouring_failures_of_one_kind_are_one_entry_in_whatever_order_they_come() {
    let d = delivery();
    d.handle_appended(31, 30, 300);
    for (first, cause) in [(21, Cause::NoBroker), (1, Cause::NoBroker), (11, Cause::NoBroker)] {
        settle_failed(&[range(&d, first, 10)], Outcome::NotWritten, &cause);
    }
    assert_eq!(
        d.summary().failures,
        [Failure { first_line: 1, last_line: 30, outcome: Outcome::NotWritten, cause: Cause::NoBroker }]
    );
}

#[test]
fn failures_of_different_kinds_stay_apart() {
    let d = delivery();
    d.handle_appended(4, 3, 30);
    settle_failed(&[range(&d, 1, 1)], Outcome::NotWritten, &Cause::NoBroker);
    settle_failed(&[range(&d, 2, 1)], Outcome::Unknown, &Cause::Deadline);
    settle_failed(&[range(&d, 3, 1)], Outcome::NotWritten, &Cause::NoBroker);
    let summary = d.summary();
    assert_eq!(summary.failures.len(), 3);
    assert_eq!((summary.not_written, summary.unknown), (2, 1));
}

#[test]
fn only_the_first_hundred_failures_are_kept() {
    let d = delivery();
    d.handle_appended(1_001, 1_000, 10_000);
    for line in (1..=1_000).rev().step_by(2) {
        settle_failed(&[range(&d, line, 1)], Outcome::NotWritten, &Cause::TooLarge);
    }
    let summary = d.summary();
    assert_eq!(summary.failures.len(), 100);
    assert_eq!(summary.failures[0].first_line, 2);
    assert_eq!(summary.failures[99].first_line, 200);
    assert!(summary.failures_truncated);
    assert_eq!(summary.not_written, 500, "the counts are whole");
}

#[test]
fn failures_behind_one_that_was_left_out_are_left_out_too() {
    let d = delivery();
    d.handle_appended(401, 400, 4_000);
    let fail = |line, cause: &Cause| settle_failed(&[range(&d, line, 1)], Outcome::NotWritten, cause);
    // A hundred, and one too many.
    (1..=101).for_each(|i| fail(3 * i, &Cause::TooLarge));
    assert_eq!(d.summary().failures.last().map(|f| f.first_line), Some(300));
    // Two neighbours become one with what is between them: there is room for one.
    fail(4, &Cause::TooLarge);
    fail(5, &Cause::TooLarge);
    fail(350, &Cause::TooLarge);
    let summary = d.summary();
    assert_eq!(summary.failures.last().map(|f| f.first_line), Some(300), "303 is not listed, so 350 must not be");
    assert!(summary.failures_truncated);
    assert_eq!((summary.failures.len(), summary.not_written), (99, 104));
    fail(302, &Cause::NoBroker);
    assert_eq!(d.summary().failures.last().map(|f| f.first_line), Some(302), "before 303 there is room");
}

#[test]
fn small_chunks_share_a_segment() {
    let d = delivery();
    for line in 1..=1_000 {
        d.handle_appended(line + 1, 1, 10);
    }
    assert_eq!(d.0.state.borrow().segments.len(), 1);
    settle_written(&[range(&d, 1, 1_000)], 0, Some(0), None);
    assert_eq!(d.progress().through_line, 1_000);
}

#[tokio::test(start_paused = true)]
async fn room_comes_back_when_records_are_settled() {
    let d = delivery();
    assert!(d.has_room());
    d.handle_appended(101, 100, 1_000);
    assert!(!d.has_room());
    let settle = async { settle_written(&[range(&d, 1, 100)], 0, Some(0), None) };
    let (room, ()) = tokio::join!(d.room(), settle);
    assert_eq!(room, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn where_lines_that_have_begun_fill_the_memory_one_after_the_other_reads_on() {
    let lease = Rc::new(Lease::new(MemoryBudget::new(1 << 20)));
    let uploads = [1, 2].map(|_| Delivery::new(lease.clone(), Duration::from_secs(30), 4 << 20, 1));
    let mut lines = uploads.each_ref().map(|upload| upload.charge(600_000));
    assert!(uploads.iter().all(|upload| !upload.has_room()));
    assert_eq!(uploads[0].room().await, Ok(()), "the first that waits");
    assert!(uploads[0].has_room(), "and it goes on");
    let end = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        lines[0].set(0);
    };
    let (room, ()) = tokio::join!(uploads[1].room(), end);
    assert_eq!(room, Ok(()), "the other when the first has ended its line");
}

#[tokio::test(start_paused = true)]
async fn the_reserve_goes_from_one_who_gives_it_back_to_one_who_waits() {
    let lease = Rc::new(Lease::new(MemoryBudget::new(1 << 20)));
    let uploads = [1, 2].map(|_| Delivery::new(lease.clone(), Duration::from_secs(30), 4 << 20, 1));
    let _lines = uploads.each_ref().map(|upload| upload.charge(600_000));
    assert_eq!(uploads[0].room().await, Ok(()), "the first that waits");
    assert!(uploads[0].is_on_reserve() && !uploads[1].is_on_reserve());
    let (room, ()) = tokio::join!(uploads[1].room(), async { uploads[0].give_back_reserve() });
    assert_eq!(room, Ok(()));
    assert!(uploads[1].is_on_reserve() && !uploads[0].has_room());
}

#[tokio::test(start_paused = true)]
async fn no_room_until_the_delivery_timeout_is_an_error() {
    let d = delivery();
    d.handle_appended(101, 100, 1_000);
    assert_eq!(d.room().await, Err(Cause::NoMemory));
}

#[tokio::test]
async fn progress_is_seen_when_it_happens() {
    let d = delivery();
    d.handle_appended(3, 2, 20);
    let settle = async { settle_written(&[range(&d, 1, 2)], 0, Some(0), None) };
    let (seen, ()) = tokio::join!(d.progressed(d.progress()), settle);
    assert_eq!((seen.through_line, seen.written), (2, 2));
    d.resolved().await;
}

#[test]
fn a_charge_lasts_as_long_as_its_guard() {
    let d = delivery();
    let mut charge = d.charge(10);
    charge.set(500);
    assert_eq!(d.0.lease.held(), 500);
    drop(charge);
    assert_eq!(d.0.lease.held(), 0);
}

#[test]
fn places_of_single_lines_are_remembered_for_whoever_asks() {
    let (a, b) = (delivery(), delivery());
    a.keep_places();
    a.handle_appended(6, 5, 50);
    b.handle_appended(3, 2, 20);
    settle_written(&[range(&a, 4, 2)], 1, None, None);
    let shared = [range(&a, 1, 2), range(&b, 1, 2), range(&a, 3, 1)];
    settle_written(&shared, 3, Some(100), None);
    let place = |first_line, count, partition, first_offset| Place {
        first_line,
        count,
        partition,
        first_offset,
        log_append_time: None,
    };
    assert_eq!(a.places(), [place(1, 2, 3, Some(100)), place(3, 1, 3, Some(104)), place(4, 2, 1, None)]);
    assert!(b.places().is_empty());
}

#[test]
fn whoever_asks_for_places_is_told_every_failure() {
    let d = delivery();
    d.keep_places();
    for line in 1..=2 * MAX_FAILURES as u64 {
        d.handle_refused(2 * line, Cause::TooLarge);
    }
    let summary = d.summary();
    assert_eq!((summary.failures.len(), summary.failures_truncated), (2 * MAX_FAILURES, false));
}

#[test]
fn what_is_settled_in_line_is_taken_once() {
    let d = delivery();
    d.keep_places();
    // Two chunks, each a segment of its own.
    d.handle_appended(4, 3, SEGMENT_BYTES);
    d.handle_refused(4, Cause::TooLarge);
    d.handle_appended(7, 2, SEGMENT_BYTES);
    settle_failed(&[range(&d, 3, 1)], Outcome::NotWritten, &Cause::TooLarge);
    settle_written(&[range(&d, 5, 2)], 0, Some(7), None);
    let (written, failed) = d.take_settled();
    assert!(written.is_empty() && failed.is_empty(), "the first line is open");
    settle_written(&[range(&d, 1, 2)], 1, Some(20), Some(99));
    let (written, failed) = d.take_settled();
    let place = |first_line, partition, first_offset, log_append_time| Place {
        first_line,
        count: 2,
        partition,
        first_offset: Some(first_offset),
        log_append_time,
    };
    assert_eq!(written, [place(1, 1, 20, Some(99)), place(5, 0, 7, None)]);
    assert_eq!(failed.iter().map(|f| (f.first_line, f.last_line)).collect::<Vec<_>>(), [(3, 4)]);
    assert_eq!(d.take_settled(), (Vec::new(), Vec::new()));
}

#[test]
fn a_failure_is_taken_as_far_as_it_is_settled_in_line() {
    let d = delivery();
    d.keep_places();
    d.handle_appended(3, 2, SEGMENT_BYTES);
    d.handle_appended(5, 2, SEGMENT_BYTES);
    settle_failed(&[range(&d, 1, 2)], Outcome::NotWritten, &Cause::TooLarge);
    settle_failed(&[range(&d, 3, 1)], Outcome::NotWritten, &Cause::TooLarge);
    let lines = |failures: Vec<Failure>| failures.iter().map(|f| (f.first_line, f.last_line)).collect::<Vec<_>>();
    assert_eq!(lines(d.take_settled().1), [(1, 2)]);
    settle_failed(&[range(&d, 4, 1)], Outcome::NotWritten, &Cause::TooLarge);
    assert_eq!(lines(d.take_settled().1), [(3, 4)]);
}
