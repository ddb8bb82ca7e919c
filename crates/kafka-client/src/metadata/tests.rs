use super::*;
use std::time::Duration;

fn broker(id: i32) -> Broker {
    Broker { id, host: format!("b-{id}").into(), port: 9092, rack: None }
}

fn answer(topics: Vec<TopicMetadata>) -> MetadataResponse {
    MetadataResponse {
        throttle: Duration::ZERO,
        brokers: vec![broker(1), broker(2)],
        cluster_id: Some("c".into()),
        controller: 1,
        topics,
        error: ErrorCode::NONE,
    }
}

/// A topic `t` whose partitions have these leaders and epochs.
fn topic(id: u8, leaders: &[(i32, i32)]) -> TopicMetadata {
    TopicMetadata {
        error: ErrorCode::NONE,
        name: Some("t".into()),
        id: TopicId([id; 16]),
        internal: false,
        partitions: (0..)
            .zip(leaders)
            .map(|(index, (leader, leader_epoch))| PartitionMetadata {
                error: ErrorCode::NONE,
                index,
                leader: *leader,
                leader_epoch: *leader_epoch,
                replicas: vec![1, 2],
                in_sync: vec![1],
            })
            .collect(),
    }
}

fn failed(code: ErrorCode) -> TopicMetadata {
    TopicMetadata { error: code, ..topic(0, &[]) }
}

/// The leaders and epochs after these answers, one after the other.
fn after(answers: &[TopicMetadata]) -> Vec<(Option<i32>, i32)> {
    let mut doubts = Doubts::default();
    let mut known = Metadata::default();
    for topic in answers {
        known = merge(&known, answer(vec![topic.clone()]), &mut doubts).0;
    }
    known.topics["t"].partitions.iter().map(|p| (p.leader, p.leader_epoch)).collect()
}

#[test]
fn a_lagging_broker_does_not_bring_back_an_old_leader() {
    let leaders = after(&[topic(1, &[(1, 5), (1, 5)]), topic(1, &[(2, 4), (2, 6)])]);
    assert_eq!(leaders, [(Some(1), 5), (Some(2), 6)]);
}

#[test]
fn the_same_epoch_and_no_epoch_are_believed() {
    // librdkafka #4804 and #4796: a client that refused these was stuck.
    assert_eq!(after(&[topic(1, &[(1, 5)]), topic(1, &[(2, 5)])]), [(Some(2), 5)]);
    assert_eq!(after(&[topic(1, &[(1, 5)]), topic(1, &[(2, -1)])]), [(Some(2), -1)]);
}

#[test]
fn a_partition_can_lose_its_leader_and_get_one_again() {
    assert_eq!(after(&[topic(1, &[(1, 5)]), topic(1, &[(-1, 6)])]), [(None, 6)]);
    assert_eq!(after(&[topic(1, &[(-1, 6)]), topic(1, &[(2, 6)])]), [(Some(2), 6)]);
}

#[test]
fn another_id_is_another_topic() {
    assert_eq!(after(&[topic(1, &[(1, 5), (1, 5)]), topic(2, &[(2, 0)])]), [(Some(2), 0)]);
}

#[test]
fn without_ids_an_older_epoch_is_believed_when_it_is_told_again_and_again() {
    let (old, new) = (topic(0, &[(1, 5), (1, 5)]), topic(0, &[(2, 0)]));
    let once = vec![old.clone(), new.clone(), new.clone()];
    assert_eq!(after(&once), [(Some(1), 5), (Some(1), 5)]);
    let enough = vec![old.clone(), new.clone(), new.clone(), new.clone()];
    assert_eq!(after(&enough), [(Some(2), 0)]);
    let interrupted = vec![old.clone(), new.clone(), new.clone(), old, new];
    assert_eq!(after(&interrupted), [(Some(1), 5), (Some(1), 5)]);
}

#[test]
fn partitions_that_a_lagging_broker_does_not_know_are_kept() {
    let leaders = after(&[topic(1, &[(1, 0), (2, 0)]), topic(1, &[(1, 0)])]);
    assert_eq!(leaders, [(Some(1), 0), (Some(2), 0)]);
}

#[test]
fn partitions_that_are_not_numbered_in_order_are_refused() {
    let mut gap = topic(1, &[(1, 0), (1, 0)]);
    gap.partitions[1].index = i32::MAX;
    let mut twice = topic(1, &[(1, 0), (1, 0)]);
    twice.partitions[1].index = 0;
    for wrong in [gap, twice] {
        let (next, verdicts) = merge(&Metadata::default(), answer(vec![wrong]), &mut Doubts::default());
        assert!(next.topics.is_empty());
        assert_eq!(verdicts, [("t".into(), Verdict::Failed(ErrorCode::UNKNOWN_SERVER_ERROR))]);
    }
    let mut shuffled = topic(1, &[(1, 0), (2, 0)]);
    shuffled.partitions.reverse();
    assert_eq!(after(&[shuffled]), [(Some(1), 0), (Some(2), 0)]);
}

#[test]
fn a_missing_topic_leaves_the_snapshot_when_it_is_missing_again() {
    let mut doubts = Doubts::default();
    let name: Arc<str> = "t".into();
    let (mut known, _) = merge(&Metadata::default(), answer(vec![topic(1, &[(1, 0)])]), &mut doubts);
    let missing = failed(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(merge(&known, answer(vec![missing]), &mut doubts).1, [(name.clone(), Verdict::Missing)]);
    assert!(!confirm_missing(&mut known, &name, &mut doubts));
    assert!(known.topics.contains_key("t"));
    assert!(confirm_missing(&mut known, &name, &mut doubts));
    assert!(known.topics.is_empty());
}

#[test]
fn an_unchanged_topic_is_the_same_allocation() {
    let mut doubts = Doubts::default();
    let (first, _) = merge(&Metadata::default(), answer(vec![topic(1, &[(1, 0)])]), &mut doubts);
    let (second, _) = merge(&first, answer(vec![topic(1, &[(1, 0)])]), &mut doubts);
    assert!(Arc::ptr_eq(&first.topics["t"], &second.topics["t"]));
}

#[test]
fn a_hint_counts_only_for_the_same_topic_with_a_newer_epoch_and_a_known_address() {
    let (known, _) = merge(&Metadata::default(), answer(vec![topic(1, &[(1, 5)])]), &mut Doubts::default());
    let t = ("t", known.topics["t"].id);
    for epoch in [4, 5] {
        assert!(with_leader(&known, t, 0, 2, epoch, &[]).is_none(), "epoch {epoch}");
    }
    assert!(with_leader(&known, t, 0, 9, 6, &[]).is_none(), "a broker without an address");
    assert!(with_leader(&known, t, 0, -1, 6, &[]).is_none());
    assert!(with_leader(&known, t, 1, 2, 6, &[]).is_none(), "no such partition");
    assert!(with_leader(&known, t, -1, 2, 6, &[]).is_none());
    assert!(with_leader(&known, ("u", t.1), 0, 2, 6, &[]).is_none(), "no such topic");
    assert!(with_leader(&known, ("t", TopicId([9; 16])), 0, 2, 6, &[]).is_none(), "another topic of that name");
    let next = with_leader(&known, t, 0, 9, 6, &[broker(9)]).expect("news");
    assert_eq!((next.topics["t"].partitions[0].leader, &next.brokers[&9]), (Some(9), &broker(9)));
}

#[test]
fn topic_names_follow_kafka_s_rules() {
    for name in ["a", "orders.v1_x-2", "...", &"x".repeat(249)] {
        assert!(is_topic_name(name), "{name}");
    }
    for name in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
        assert!(!is_topic_name(name), "{name}");
    }
}
