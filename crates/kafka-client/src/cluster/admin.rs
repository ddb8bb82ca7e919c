//! Administration. Here: topics, listed, created, grown, moved, deleted. Beside it: settings, access rules, groups.

mod acls;
mod configs;
mod groups;

use super::{Cluster, Core, TopicError, brokers::lock};
use crate::{
    Error, ErrorCode, TopicInfo,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, ListPartitionReassignmentsRequest,
        MetadataRequest, NewTopic, Reassignment, Request, TopicResult,
    },
    metadata::{self, Doubts, Metadata, Verdict},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a created topic is waited for until every partition's leader is known here.
const UNTIL_LED: Duration = Duration::from_secs(10);

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

    /// Creates a topic and waits until every partition's leader is known here, for 10 s at most.
    ///
    /// # Errors
    ///
    /// The controller's refusal, as [`Error::Broker`]. If the connection is lost after the request was sent, the topic
    /// may have been created; nothing is repeated then.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<(), Error> {
        let core = &self.0.core;
        let timeout = core.config().request_timeout;
        let request = CreateTopicsRequest { topic: topic.clone(), timeout };
        core.change_topic(&request, timeout, |answer| answer.topics).await?;
        if !topic.validate_only {
            let limit = Instant::now() + UNTIL_LED;
            let _ = timeout_at(limit, core.until_led(&topic.name)).await;
        }
        Ok(())
    }

    /// Adds partitions to a topic, so that it has `count`. The snapshot has them a moment later.
    ///
    /// # Errors
    ///
    /// The controller's refusal, as [`Error::Broker`]: `INVALID_PARTITIONS` where the topic has as many already;
    /// otherwise as [`Cluster::create_topic`].
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        let core = &self.0.core;
        let timeout = core.config().request_timeout;
        let request = CreatePartitionsRequest { name: topic.to_owned(), count, timeout };
        core.change_topic(&request, timeout, |answer| answer.topics).await?;
        core.request_refresh();
        Ok(())
    }

    /// The partitions that are being moved, by topic: all, or of these partitions of one topic.
    ///
    /// # Errors
    ///
    /// The controller's refusal, as [`Error::Broker`]; [`Error::Unsupported`] before Kafka 2.4.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_reassignments(
        &self,
        of: Option<(&str, &[i32])>,
    ) -> Result<Vec<(Arc<str>, Vec<Reassignment>)>, Error> {
        let core = &self.0.core;
        let timeout = core.config().request_timeout;
        let request = ListPartitionReassignmentsRequest {
            of: of.map(|(topic, partitions)| (topic.to_owned(), partitions.to_vec())),
            timeout,
        };
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let answer = core.ask_controller(request.clone(), timeout).await?;
                match answer.error.ok() {
                    Ok(()) => Ok(answer.topics),
                    Err(code) => Err(Error::broker(ListPartitionReassignmentsRequest::API.name, code, answer.message)),
                }
            };
            match attempt.await {
                Ok(topics) => return Ok(topics),
                Err(error) => retry.after(error).await?,
            }
        }
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
        let timeout = core.config().request_timeout;
        let request = DeleteTopicsRequest { name: name.to_owned(), timeout };
        core.change_topic(&request, timeout, |answer| answer.topics).await?;
        let _doubts = lock(&core.doubts);
        let mut next = Metadata::clone(&core.metadata());
        if next.topics.remove(name).is_some() {
            core.publish(next);
        }
        Ok(())
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
    /// One topic's change, asked of the controller, and again where it certainly was not made.
    async fn change_topic<R>(
        self: &Arc<Self>,
        request: &R,
        wait: Duration,
        results: fn(R::Response) -> Vec<TopicResult>,
    ) -> Result<(), Error>
    where
        R: Request + Clone + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        let mut retry = self.retry();
        loop {
            let attempt = async {
                let answer = self.ask_controller(request.clone(), wait).await?;
                let result = results(answer).into_iter().next();
                let result = result.ok_or_else(|| no_such_part(R::API.name))?;
                match result.error.ok() {
                    Ok(()) => Ok(()),
                    Err(code) => Err(Error::broker(R::API.name, code, result.message)),
                }
            };
            match attempt.await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if error.code() == Some(ErrorCode::NOT_CONTROLLER) {
                        self.request_refresh();
                    }
                    retry.unless_done(error).await?;
                }
            }
        }
    }

    /// A request to the controller, which may hold it for `wait`.
    async fn ask_controller<R>(&self, request: R, wait: Duration) -> Result<R::Response, Error>
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
        answer
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
