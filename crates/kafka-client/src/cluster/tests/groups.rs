//! Requests to a group's coordinator.

use super::*;
use krafka::error::ErrorCode as TheirCode;
use krafka::testing::Control;

fn offset(partition: i32, offset: i64) -> GroupOffset {
    GroupOffset { topic: "t".into(), partition, offset, leader_epoch: -1, metadata: None }
}

#[tokio::test]
async fn offsets_are_committed_at_the_coordinator_and_read_back() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 3);
    fake.set_group_coordinator("g", 2);
    let group: Arc<str> = "g".into();
    assert_eq!(cluster.group_offsets(&group, None).await.expect("an answer"), []);
    cluster.commit_group_offsets(&group, None, &[offset(0, 7), offset(2, 9)]).await.expect("committed");
    assert_eq!(fake.committed_offset("g", "t", 2), Some(9));
    let wanted = Some(vec![("t".into(), vec![0, 1, 2])]);
    let read = cluster.group_offsets(&group, wanted).await.expect("an answer");
    assert_eq!(read, [offset(0, 7), offset(2, 9)]);
    assert_eq!(cluster.group_offsets(&group, None).await.expect("all").len(), 2);
    assert_eq!(fake.request_count(ApiKey::FindCoordinator), 1, "it is remembered");
    assert!(fake.request_nodes(ApiKey::OffsetCommit).iter().all(|node| *node == 2));
}

#[tokio::test]
async fn a_coordinator_that_moves_is_followed() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 1);
    fake.set_group_coordinator("g", 0);
    let group: Arc<str> = "g".into();
    cluster.commit_group_offsets(&group, None, &[offset(0, 1)]).await.expect("committed");
    fake.set_group_coordinator("g", 2);
    fake.on_once(ApiKey::OffsetCommit, |_| Control::Error(TheirCode::NotCoordinator));
    cluster.commit_group_offsets(&group, None, &[offset(0, 2)]).await.expect("committed elsewhere");
    assert_eq!(fake.request_nodes(ApiKey::OffsetCommit).last(), Some(&2));
    // One that loads its groups is still the right one; one that is gone is not.
    let found = fake.request_count(ApiKey::FindCoordinator);
    fake.on_once(ApiKey::OffsetCommit, |_| Control::Error(TheirCode::CoordinatorLoadInProgress));
    cluster.commit_group_offsets(&group, None, &[offset(0, 3)]).await.expect("committed later");
    assert_eq!(fake.request_count(ApiKey::FindCoordinator), found);
    fake.on_once(ApiKey::FindCoordinator, |_| Control::Error(TheirCode::CoordinatorNotAvailable));
    fake.on_once(ApiKey::OffsetCommit, |_| Control::Disconnect);
    cluster.commit_group_offsets(&group, None, &[offset(0, 4)]).await.expect("committed at last");
    assert_eq!(fake.committed_offset("g", "t", 0), Some(4));
    assert!(fake.request_count(ApiKey::FindCoordinator) >= found + 2);
}

#[tokio::test]
async fn many_offsets_are_asked_of_each_leader_at_once() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 6);
    let topic = cluster.topic("t").await.expect("the topic");
    let wanted: Vec<_> = (0..6).map(|partition| (&*topic, partition, OffsetSpec::Latest)).collect();
    let listed = cluster.list_offsets(&wanted, Isolation::ReadUncommitted).await;
    assert!(listed.iter().all(|listed| listed.as_ref().is_ok_and(|listed| listed.offset == Some(0))), "{listed:?}");
    assert_eq!(fake.request_count(ApiKey::ListOffsets), 3);
    let listed = cluster
        .list_offsets(&[(&topic, 0, OffsetSpec::Earliest), (&topic, 9, OffsetSpec::Latest)], Isolation::ReadCommitted)
        .await;
    assert!(listed[0].is_ok(), "one that is not there is in nobody's way");
    assert_eq!(listed[1].as_ref().expect_err("no partition").code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
}
