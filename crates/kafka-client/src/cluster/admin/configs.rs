//! Settings of topics and brokers: described, changed.

use super::{Cluster, no_such_part};
use crate::{
    Error, ErrorCode,
    messages::{
        ConfigChange, ConfigEntry, ConfigResource, DescribeConfigsRequest, IncrementalAlterConfigsRequest, Request,
    },
};
use std::sync::Arc;

/// Topics whose settings are asked for in one request: an answer stays well below its bound.
const TOPICS_AT_ONCE: usize = 200;

impl Cluster {
    /// All settings of a topic, of a broker, or of all brokers. `synonyms`: with what each value is taken from.
    ///
    /// # Errors
    ///
    /// The broker's refusal, as [`Error::Broker`]: `UNKNOWN_TOPIC_OR_PARTITION`, `TOPIC_AUTHORIZATION_FAILED` and so
    /// on. [`Error::NoBroker`] where the cluster has no such broker.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_configs(&self, of: &ConfigResource, synonyms: bool) -> Result<Vec<ConfigEntry>, Error> {
        let core = &self.0.core;
        let request = DescribeConfigsRequest { resources: vec![of.clone()], synonyms };
        let api = DescribeConfigsRequest::API.name;
        let mut retry = core.retry();
        let mut unknown = false;
        loop {
            let attempt = async {
                let answer = core.ask_for(of, &request, retry.limit()).await?;
                let resource = answer.resources.into_iter().next().ok_or_else(|| no_such_part(api))?;
                match resource.error.ok() {
                    Ok(()) => Ok(resource.entries),
                    Err(code) => Err(Error::broker(api, code, resource.message)),
                }
            };
            match attempt.await {
                Ok(entries) => return Ok(entries),
                Err(error) => retry.unless_twice_unknown(error, &mut unknown).await?,
            }
        }
    }

    /// The settings of many topics. Those that are gone, or that Kafka does not let this client see, are left out.
    ///
    /// # Errors
    ///
    /// When the cluster cannot be asked in time.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_topics_configs(
        &self,
        topics: &[Arc<str>],
        synonyms: bool,
    ) -> Result<Vec<(Arc<str>, Vec<ConfigEntry>)>, Error> {
        let core = &self.0.core;
        let mut described = Vec::with_capacity(topics.len());
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let resources = some.iter().map(|name| ConfigResource::Topic(name.to_string()));
            let request = DescribeConfigsRequest { resources: resources.collect(), synonyms };
            let mut retry = core.retry();
            let answer = loop {
                match core.ask_any(&request, retry.limit()).await {
                    Ok(answer) => break answer,
                    Err(error) => retry.after(error).await?,
                }
            };
            let there = answer.resources.into_iter().filter(|resource| resource.error.is_ok());
            described.extend(there.map(|resource| (resource.name, resource.entries)));
        }
        Ok(described)
    }

    /// Changes some settings and leaves the others as they are. With `validate_only` nothing is changed.
    ///
    /// # Errors
    ///
    /// The broker's refusal, as [`Error::Broker`]; [`Error::Unsupported`] before Kafka 2.3, which can only replace all
    /// settings at once. To repeat a change does no harm, so lost answers are asked for again.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn alter_configs(
        &self,
        of: &ConfigResource,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Result<(), Error> {
        let core = &self.0.core;
        let request = IncrementalAlterConfigsRequest { resource: of.clone(), changes, validate_only };
        let api = IncrementalAlterConfigsRequest::API.name;
        let mut retry = core.retry();
        let mut unknown = false;
        loop {
            let attempt = async {
                let answer = core.ask_for(of, &request, retry.limit()).await?;
                let (error, message) = answer.results.into_iter().next().ok_or_else(|| no_such_part(api))?;
                error.ok().map_err(|code| Error::broker(api, code, message))
            };
            match attempt.await {
                Ok(()) => return Ok(()),
                Err(error) => retry.unless_twice_unknown(error, &mut unknown).await?,
            }
        }
    }
}

impl super::super::Retry {
    /// A topic that two brokers do not know is not there.
    async fn unless_twice_unknown(&mut self, error: Error, unknown: &mut bool) -> Result<(), Error> {
        if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) && std::mem::replace(unknown, true) {
            return Err(error);
        }
        self.after(error).await
    }
}

impl super::Core {
    /// A request about settings, to whom it may go.
    async fn ask_for<R>(
        &self,
        of: &ConfigResource,
        request: &R,
        limit: std::time::Duration,
    ) -> Result<R::Response, Error>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        match of {
            ConfigResource::Broker(id) => self.ask_broker(*id, request, limit).await,
            ConfigResource::Topic(_) | ConfigResource::BrokerDefaults => self.ask_any(request, limit).await,
        }
    }
}
