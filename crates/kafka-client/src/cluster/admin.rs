//! Topics: list, create, delete, describe.

use super::{Cluster, Core, TopicError, brokers::lock};
use crate::{
    Error, ErrorCode, TopicInfo,
    messages::{
        CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, MetadataRequest, Request, TopicResult,
    },
    metadata::{self, Doubts, Metadata, Verdict},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a created topic is waited for until every partition's leader is known here.
const UNTIL_LED: Duration = Duration::from_secs(10);

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// The name.
    pub name: String,
    /// The value; `None` where it is sensitive.
    pub value: Option<String>,
    /// Whether it is the cluster's default rather than the topic's own.
    pub is_default: bool,
    /// Whether it is a secret.
    pub is_sensitive: bool,
    /// Whether it cannot be changed.
    pub read_only: bool,
}

impl Cluster {
    /// Every topic this client may see, by name. Read anew each time; the snapshot stays as it is.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicInfo>>, Error> {
        let core = &self.0.core;
        let mut retry = core.retry();
        let answer = loop {
            match core.ask_any(&MetadataRequest { topics: None }, retry.limit()).await {
                Ok(answer) => break answer,
                Err(error) => retry.after(error).await?,
            }
        };
        let (_, verdicts) = metadata::merge(&Metadata::default(), answer, &mut Doubts::default());
        let mut topics: Vec<_> = verdicts
            .into_iter()
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Found(topic) => Some(topic),
                Verdict::Missing | Verdict::Failed(_) => None,
            })
            .collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Creates a topic and waits until every partition's leader is known here, for 10 s at most. -1 for `partitions` or
    /// `replication_factor` takes the broker's default (2.4 and later).
    ///
    /// # Errors
    ///
    /// The controller's refusal, as [`Error::Broker`]. If the connection is lost after the request was sent, the topic
    /// may have been created; nothing is repeated then.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(String, Option<String>)],
    ) -> Result<(), Error> {
        let core = &self.0.core;
        let request = CreateTopicsRequest {
            name: name.to_owned(),
            partitions,
            replication_factor,
            configs: configs.to_vec(),
            timeout: core.config().request_timeout,
        };
        let timeout = request.timeout;
        let mut retry = core.retry();
        loop {
            let attempt = core.ask_controller(request.clone(), timeout, |answer| answer.topics);
            match attempt.await {
                Ok(()) => break,
                Err(error) => retry.unless_done(error).await?,
            }
        }
        let limit = Instant::now() + UNTIL_LED;
        let _ = timeout_at(limit, core.until_led(name)).await;
        Ok(())
    }

    /// Deletes a topic. It leaves the snapshot at once; brokers may know it for a moment longer.
    ///
    /// # Errors
    ///
    /// The controller's refusal, as [`Error::Broker`]; otherwise as [`Cluster::create_topic`].
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let core = &self.0.core;
        let request = DeleteTopicsRequest { name: name.to_owned(), timeout: core.config().request_timeout };
        let timeout = request.timeout;
        let mut retry = core.retry();
        loop {
            let attempt = core.ask_controller(request.clone(), timeout, |answer| answer.topics);
            match attempt.await {
                Ok(()) => break,
                Err(error) => retry.unless_done(error).await?,
            }
        }
        let _doubts = lock(&core.doubts);
        let mut next = Metadata::clone(&core.metadata());
        if next.topics.remove(name).is_some() {
            core.publish(next);
        }
        Ok(())
    }

    /// All settings of a topic.
    ///
    /// # Errors
    ///
    /// The broker's refusal, as [`Error::Broker`]: `UNKNOWN_TOPIC_OR_PARTITION`, `TOPIC_AUTHORIZATION_FAILED` and so
    /// on.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_topic_configs(&self, name: &str) -> Result<Vec<TopicConfig>, Error> {
        let core = &self.0.core;
        let request = DescribeConfigsRequest { topic: name.to_owned() };
        let api = DescribeConfigsRequest::API.name;
        let mut retry = core.retry();
        let mut unknown_once = false;
        loop {
            let attempt = async {
                let answer = core.ask_any(&request, retry.limit()).await?;
                let mut resources = answer.resources.into_iter();
                let resource = resources.find(|resource| *resource.name == *name);
                let resource = resource.ok_or_else(|| no_such_part(api))?;
                match resource.error.ok() {
                    Ok(()) => Ok(resource.entries),
                    Err(code) => Err(Error::broker(api, code, resource.message)),
                }
            };
            let error = match attempt.await {
                Ok(entries) => {
                    let config = entries.into_iter().map(|entry| TopicConfig {
                        is_default: entry.is_default(),
                        name: entry.name,
                        value: entry.value,
                        is_sensitive: entry.sensitive,
                        read_only: entry.read_only,
                    });
                    return Ok(config.collect());
                }
                Err(error) => error,
            };
            // A topic that two brokers do not know is not there.
            if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) {
                if unknown_once {
                    return Err(error);
                }
                unknown_once = true;
            }
            retry.after(error).await?;
        }
    }
}

impl super::Retry {
    /// For requests that change something: no retry where the first attempt may have done it.
    async fn unless_done(&mut self, error: Error) -> Result<(), Error> {
        match error.code() {
            Some(ErrorCode::NOT_CONTROLLER | ErrorCode::THROTTLING_QUOTA_EXCEEDED) => {}
            Some(_) => return Err(error),
            None if error.maybe_sent() => return Err(error),
            None => {}
        }
        self.after(error).await
    }
}

/// An answer that lacks what was asked for.
pub(super) fn no_such_part(api: &'static str) -> Error {
    Error::Malformed { api, source: crate::wire::DecodeError::Inconsistent("the answer lacks what was asked for") }
}

impl Core {
    /// One topic's change, asked of the controller.
    async fn ask_controller<R>(
        &self,
        request: R,
        wait: Duration,
        results: fn(R::Response) -> Vec<TopicResult>,
    ) -> Result<(), Error>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        self.wait_for_metadata().await?;
        let known = self.metadata();
        let controller = known
            .controller
            .and_then(|id| known.brokers.get(&id))
            .ok_or(Error::NoBroker("the cluster has no controller"))?
            .clone();
        let lent = self.brokers.slow(&controller).await?;
        // The connection is busy until the answer is there, whether or not the caller waits for it.
        let answer = self.brokers.detached(async move { lent.connection().call(&request, i16::MAX, wait).await }).await;
        if let Err(error) = &answer
            && error.invalidates_metadata()
        {
            self.request_refresh();
        }
        let result = results(answer?).into_iter().next();
        let result = result.ok_or_else(|| no_such_part(R::API.name))?;
        if result.error == ErrorCode::NOT_CONTROLLER {
            self.request_refresh();
        }
        match result.error.ok() {
            Ok(()) => Ok(()),
            Err(code) => Err(Error::broker(R::API.name, code, result.message)),
        }
    }

    /// Until every partition of `name` has a leader.
    async fn until_led(&self, name: &str) {
        let mut generation = self.generation.subscribe();
        loop {
            generation.borrow_and_update();
            self.forget_refusal(name);
            match self.topic(name).await {
                Ok(topic) if !topic.is_leaderless() => return,
                // The refresher asks on by itself.
                Ok(_) => {
                    if generation.changed().await.is_err() {
                        return;
                    }
                }
                // The broker that was asked has not heard of it yet.
                Err(TopicError::Unknown) => sleep(Duration::from_millis(50)).await,
                Err(_) => return,
            }
        }
    }
}
