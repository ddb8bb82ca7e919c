//! Topics that come, go, come back and grow; leaders that move.

use super::*;

#[test]
fn a_topic_made_again_under_another_id_gets_none_of_the_old_ones_records() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"on the wire");
    let first = b.one();
    b.append(0, b"waiting");
    b.acc.handle_metadata(&metadata(Some(info(2, 1, Some(LEADER), 0))), b.now);
    assert_eq!(b.counts(), (0, 1, 0), "what was not sent never will be");
    assert!(!b.acc.takes_records(b.slot));
    b.answer(first.0, ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(b.counts(), (0, 2, 0));
    assert_eq!(b.only_failure().cause, Cause::TopicGone);
    b.later(5_000);
    assert!(b.drain().is_empty());
    let (slot, _handle) = b.acc.topic(&info(2, 1, Some(LEADER), 0), b.now);
    assert_ne!(slot, b.slot);
    b.assert_clean();
}

#[test]
fn a_deleted_topic_settles_what_is_unknown_as_unknown() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.acc.handle_metadata(&metadata(None), b.now);
    b.acc.handle_lost(first.0, true, b.now);
    let failure = b.only_failure();
    assert_eq!((failure.outcome, failure.cause), (Outcome::Unknown, Cause::TopicGone));
    b.assert_clean();
}

#[test]
fn the_slot_of_a_topic_that_is_gone_is_freed_with_its_last_handle() {
    let mut b = Bench::new(config(), 1);
    b.acc.handle_metadata(&metadata(None), b.now);
    assert!(b.acc.topics[b.slot].is_some(), "an upload still holds it");
    b._handle = Rc::new(());
    b.later(25);
    assert!(b.acc.topics[b.slot].is_none());
}

#[test]
fn a_topic_is_in_use_while_somebody_holds_it_or_has_asked_for_it_lately() {
    let mut b = Bench::new(config(), 1);
    assert_eq!(b.acc.topics_in_use(), ["t".into()], "an upload holds it");
    b._handle = Rc::new(());
    assert_eq!(b.acc.topics_in_use(), []);
    assert!(b.acc.known_topic("t").is_some());
    assert_eq!(b.acc.topics_in_use(), ["t".into()], "a request has come and gone");
    assert_eq!(b.acc.topics_in_use(), []);
    b.acc.handle_metadata(&metadata(None), b.now);
    assert!(b.acc.known_topic("t").is_none(), "it is gone");
}

#[test]
fn new_partitions_are_used_as_soon_as_they_are_known() {
    let mut b = Bench::new(config(), 1);
    b.acc.handle_metadata(&metadata(Some(info(1, 4, Some(LEADER), 0))), b.now);
    assert_eq!(b.acc.partition_count(b.slot), 4);
    b.append(3, b"x");
    let batch = b.one();
    b.ack(&batch);
    b.assert_clean();
}

#[test]
fn a_topic_that_was_forgotten_and_comes_back_goes_on_under_a_new_epoch() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    assert_eq!(identity(&first.1), (0, 0));
    b.ack(&first);
    b.later(1);
    // Nobody used it for ten minutes, so the client dropped it from its metadata.
    let (_, handle) = b.acc.topic(&info(1, 1, Some(LEADER), 0), b.now);
    b._handle = Rc::new(());
    drop(handle);
    b.acc.handle_metadata(&metadata(None), b.now);
    let (slot, handle) = b.acc.topic(&info(1, 1, Some(LEADER), 0), b.now);
    (b.slot, b._handle) = (slot, handle);
    b.append(0, b"b");
    let next = b.one();
    assert_eq!(identity(&next.1), (1, 0), "under epoch 0 the broker would take it for the first batch");
    b.ack(&next);
    assert_eq!(b.counts(), (2, 0, 0));
    b.assert_clean();
}

#[test]
fn a_batch_refused_after_its_topic_went_is_not_framed_anew_for_the_next_one() {
    for code in [ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::INVALID_RECORD] {
        let mut b = Bench::new(config(), 1);
        b.append(0, b"a");
        b.append(0, b"b");
        let first = b.one();
        b.acc.handle_metadata(&metadata(Some(info(2, 1, Some(LEADER), 0))), b.now);
        let mut refusal = response(code);
        if code == ErrorCode::INVALID_RECORD {
            refusal.record_errors = vec![(0, None)];
        }
        b.acc.handle_response(first.0, &refusal, b.now);
        b.later(5_000);
        assert!(b.drain().is_empty(), "{code}");
        assert_eq!(b.counts(), (0, 2, 0), "{code}");
        b.assert_clean();
    }
}

#[test]
fn a_broker_is_not_dialled_for_what_moved_away_or_was_settled() {
    let mut b = Bench::new(config(), 2);
    b.append(0, b"a");
    assert!(b.acc.has_ready(LEADER, b.now));
    b.acc.handle_metadata(&metadata(Some(info(1, 2, Some(2), 1))), b.now);
    assert!(!b.acc.has_ready(LEADER, b.now));
    assert!(b.acc.has_ready(2, b.now));
    b.later(30_000);
    assert_eq!(b.counts(), (0, 1, 0));
    assert!(!b.acc.has_ready(2, b.now));
    b.append(1, b"b");
    assert!(b.acc.has_ready(2, b.now));
    let batch = b.drain_from(2).remove(0);
    b.ack(&batch);
    b.assert_clean();
}

#[test]
fn a_partition_that_the_metadata_no_longer_names_is_asked_for_and_goes_on() {
    let mut b = Bench::new(config(), 2);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, Some(LEADER), 0))), b.now);
    b.append(1, b"waits");
    assert!(b.drain().is_empty(), "nobody is known to lead it");
    let _ = b.acc.effects();
    b.later(25);
    assert!(b.acc.effects().refresh, "nobody else would ask for it");
    b.later(25);
    assert!(!b.acc.effects().refresh, "not at every tick");
    b.later(1_000);
    assert!(b.acc.effects().refresh);
    b.acc.handle_metadata(&metadata(Some(info(1, 2, Some(LEADER), 0))), b.now);
    let batch = b.one();
    b.ack(&batch);
    assert_eq!(b.counts(), (1, 0, 0));
    b.assert_clean();
}
