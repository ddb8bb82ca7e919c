//! Logins, and what a cluster does when they fail.

use super::*;
use crate::sasl::{self, Credentials, Obtaining, Sasl, Secret};

/// A password that somebody changes, as in a file.
#[derive(Debug)]
struct Changing(Arc<Mutex<&'static str>>);

impl Credentials<sasl::Login> for Changing {
    fn credentials(&self) -> Obtaining<'_, sasl::Login> {
        let password = Secret::new(*lock(&self.0));
        Box::pin(std::future::ready(Ok(sasl::Login { username: "u".to_owned(), password })))
    }
}

#[tokio::test]
async fn a_password_that_is_put_right_is_used_without_a_restart() {
    let fake = FakeBroker::start_cluster(2).await.expect("loopback");
    fake.require_sasl_plain("u", "right");
    fake.create_topic("t", 1);
    let password = Arc::new(Mutex::new("wrong"));
    let cluster = Cluster::start(Config {
        sasl: Some(Sasl::Plain(Arc::new(Changing(password.clone())))),
        request_timeout: Duration::from_millis(500),
        login_jitter: Duration::from_millis(1),
        login_backoff: Duration::from_millis(1),
        login_backoff_max: Duration::from_millis(50),
        ..config(&fake)
    });
    let Err(TopicError::Unavailable(error)) = cluster.topic("t").await else { panic!("not let in") };
    assert!(matches!(*error, Error::Authentication { mechanism: "PLAIN", .. }), "{error}");
    *lock(&password) = "right";
    until(&cluster, |known| known.generation > 0).await;
    let topic = cluster.topic("t").await.expect("let in");
    let leader = topic.partitions[0].leader.expect("a leader");
    let connection = cluster.dial(leader).await.expect("a connection");
    let response = connection.produce(request(&topic, 0)).await.expect("an answer");
    assert_eq!(response.topics[0].partitions[0].error, ErrorCode::NONE);
}
