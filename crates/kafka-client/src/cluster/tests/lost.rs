//! Every request kind, with its answer lost: connections that end before and after the broker did what was asked.

use super::*;
use krafka::testing::Control;

/// The ways in which a request can be lost.
fn losses() -> [Control; 2] {
    [Control::Disconnect, Control::ApplyThen(Box::new(Control::Disconnect))]
}

/// Two brokers, and a topic with one record.
async fn with_a_record() -> (FakeBroker, Cluster, Arc<TopicInfo>) {
    let (fake, cluster) = start(2).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let connection = cluster.dial(topic.partitions[0].leader.expect("a leader")).await.expect("a connection");
    connection.produce(request(&topic, 0)).await.expect("written");
    (fake, cluster, topic)
}

fn lose(fake: &FakeBroker, api: ApiKey, loss: &Control, times: u32) {
    let loss = loss.clone();
    fake.on_times(api, times, move |_| loss.clone());
}

#[tokio::test]
async fn questions_are_asked_again() {
    for loss in losses() {
        let (fake, cluster, topic) = with_a_record().await;
        lose(&fake, ApiKey::ListOffsets, &loss, 2);
        let end =
            cluster.list_offset(&topic, 0, OffsetSpec::Latest, Isolation::ReadUncommitted).await.expect("an offset");
        assert_eq!(end.offset, Some(1));
        lose(&fake, ApiKey::Fetch, &loss, 2);
        let fetched =
            cluster.fetch(&topic, 0, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::ZERO).await.expect("records");
        assert_eq!(fetched.records.len(), batch().len());
        lose(&fake, ApiKey::Metadata, &loss, 2);
        assert_eq!(cluster.list_topics().await.expect("topics").len(), 1);
        lose(&fake, ApiKey::InitProducerId, &loss, 2);
        cluster.init_producer_id().await.expect("an identity");
        lose(&fake, ApiKey::ApiVersions, &loss, 1);
        fake.crash(0);
        fake.restart(0);
        cluster.init_producer_id().await.expect("an identity");
    }
}

/// A topic may have been made or deleted: whoever asked must learn that nobody can say, and asking again is his to do.
#[tokio::test]
async fn changes_are_not_made_again() {
    for loss in losses() {
        let (fake, cluster, _) = with_a_record().await;
        lose(&fake, ApiKey::CreateTopics, &loss, 1);
        let error = cluster.create_topic(&NewTopic::new("new", 1, 1)).await.expect_err("the answer was lost");
        assert!(error.maybe_sent(), "{error}");
        assert_eq!(fake.request_count(ApiKey::CreateTopics), 1);
        lose(&fake, ApiKey::DeleteTopics, &loss, 1);
        let error = cluster.delete_topic("t").await.expect_err("the answer was lost");
        assert!(error.maybe_sent(), "{error}");
        assert_eq!(fake.request_count(ApiKey::DeleteTopics), 1);
    }
}

/// A batch is its pipeline's to send again: the connection says only that nobody can say.
#[tokio::test]
async fn a_batch_whose_answer_is_lost_may_have_been_sent() {
    for loss in losses() {
        let (fake, cluster, topic) = with_a_record().await;
        lose(&fake, ApiKey::Produce, &loss, 1);
        let connection = cluster.dial(topic.partitions[0].leader.expect("a leader")).await.expect("a connection");
        let error = connection.produce(request(&topic, 0)).await.expect_err("the answer was lost");
        assert!(error.maybe_sent(), "{error}");
        assert!(connection.is_closed());
    }
}

#[tokio::test]
async fn a_broker_that_keeps_silent_does_not_take_the_time_of_one_that_answers() {
    let (fake, cluster, _) = with_a_record().await;
    // Whichever is asked first. To wait for it until the request timeout would be the end of the call.
    fake.on_once(ApiKey::InitProducerId, |_| Control::Silence);
    cluster.init_producer_id().await.expect("an identity of the other broker");
    let (fake, cluster, _) = with_a_record().await;
    fake.on_once(ApiKey::Metadata, |_| Control::Silence);
    cluster.list_topics().await.expect("topics");
}
