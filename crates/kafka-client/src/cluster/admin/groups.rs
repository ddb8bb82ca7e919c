//! Consumer groups as an administrator sees them.

use super::{Cluster, no_such_part};
use crate::{
    Error, ErrorCode,
    messages::{DescribeGroupsRequest, DescribedGroup, ListGroupsRequest, ListedGroup, Request},
};
use std::sync::Arc;

/// Groups that are described in one request: an answer stays well below its bound.
const GROUPS_AT_ONCE: usize = 100;

impl Cluster {
    /// All groups that this client may see, by id, each with its coordinator: every broker is asked for its own.
    ///
    /// # Errors
    ///
    /// When one of the brokers cannot be asked in time: a list without its groups would be taken for the whole.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_groups(&self) -> Result<Vec<(i32, ListedGroup)>, Error> {
        let core = &self.0.core;
        core.wait_for_metadata().await?;
        let mut groups = Vec::new();
        for broker in core.metadata().brokers.keys() {
            let mut retry = core.retry();
            let of_broker = loop {
                let attempt = async {
                    let answer = core.ask_broker(*broker, &ListGroupsRequest, retry.limit()).await?;
                    match answer.error.ok() {
                        Ok(()) => Ok(answer.groups),
                        Err(code) => Err(Error::broker(ListGroupsRequest::API.name, code, None)),
                    }
                };
                match attempt.await {
                    Ok(groups) => break groups,
                    Err(error) => retry.after(error).await?,
                }
            };
            groups.extend(of_broker.into_iter().map(|group| (*broker, group)));
        }
        // While a coordinator moves, two brokers may name its groups.
        groups.sort_unstable_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        groups.dedup_by(|(_, a), (_, b)| a.id == b.id);
        Ok(groups)
    }

    /// A group with its members, and the broker that coordinates it. One that does not exist is `Dead` and has none; from
    /// Kafka 4.0 on it is an error.
    ///
    /// # Errors
    ///
    /// `GROUP_ID_NOT_FOUND`, `GROUP_AUTHORIZATION_FAILED` and other refusals as [`Error::Broker`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_group(&self, group: &str) -> Result<(i32, DescribedGroup), Error> {
        let api = DescribeGroupsRequest::API.name;
        let group: Arc<str> = group.into();
        let request = DescribeGroupsRequest { groups: vec![group.to_string()] };
        let first_error = |answer: &<DescribeGroupsRequest as Request>::Response| {
            answer.groups.first().map_or(ErrorCode::NONE, |group| group.error)
        };
        let answer = self.ask_coordinator(&group, request, first_error).await?;
        let described = answer.groups.into_iter().next().ok_or_else(|| no_such_part(api))?;
        if let Err(code) = described.error.ok() {
            return Err(Error::broker(api, code, described.message));
        }
        let coordinator = self.0.core.coordinator(&group, self.0.core.config().request_timeout).await?;
        Ok((coordinator.id, described))
    }

    /// Groups of one coordinator with their members. Those that it does not coordinate any more, or that are gone, are
    /// left out.
    ///
    /// # Errors
    ///
    /// When the broker cannot be asked in time.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_groups(&self, coordinator: i32, groups: &[Arc<str>]) -> Result<Vec<DescribedGroup>, Error> {
        let core = &self.0.core;
        let mut described = Vec::with_capacity(groups.len());
        for some in groups.chunks(GROUPS_AT_ONCE) {
            let request = DescribeGroupsRequest { groups: some.iter().map(ToString::to_string).collect() };
            let mut retry = core.retry();
            let answer = loop {
                match core.ask_broker(coordinator, &request, retry.limit()).await {
                    Ok(answer) => break answer,
                    Err(error) => retry.after(error).await?,
                }
            };
            described.extend(answer.groups.into_iter().filter(|group| group.error.is_ok()));
        }
        Ok(described)
    }
}
