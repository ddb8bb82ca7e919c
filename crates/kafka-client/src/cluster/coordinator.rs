//! Requests to a group's coordinator: found once, remembered, found again when it has moved.

use super::{Cluster, Core, brokers::lock};
use crate::{
    Broker, Error, ErrorCode,
    messages::{FindCoordinatorRequest, Request},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How many groups' coordinators are remembered. Names come from callers; beyond this all are forgotten and found again.
const MAX_KNOWN: usize = 4096;

/// Coordinators by group.
#[derive(Debug, Default)]
pub(super) struct Coordinators(HashMap<Arc<str>, Broker>);

impl Coordinators {
    fn remember(&mut self, group: Arc<str>, coordinator: Broker) {
        if self.0.len() >= MAX_KNOWN {
            self.0.clear();
        }
        self.0.insert(group, coordinator);
    }
}

impl Cluster {
    /// A short request to a group's coordinator, on the connection that all short requests to that broker share.
    ///
    /// `error` picks the code by which an answer says that this broker is not the coordinator, or not yet. Those answers
    /// (NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS) and lost connections are followed to
    /// the new coordinator within the request timeout; any other code is the caller's, in the answer. So the request
    /// must be one that may be sent twice.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub(crate) async fn ask_coordinator<R>(
        &self,
        group: &Arc<str>,
        request: R,
        error: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, Error>
    where
        R: Request + Clone + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        self.follow_coordinator(group, request, None, error).await
    }

    /// The same for a request that the coordinator may hold for `hold`: on a connection of its own, for Kafka answers
    /// nothing else on it meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The request goes on, and its connection is not lent to anybody else before it is answered.
    pub(crate) async fn ask_coordinator_patiently<R>(
        &self,
        group: &Arc<str>,
        request: R,
        hold: Duration,
        error: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, Error>
    where
        R: Request + Clone + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        self.follow_coordinator(group, request, Some(hold), error).await
    }

    /// Has the group's coordinator found anew with the next request.
    pub(crate) fn forget_coordinator(&self, group: &Arc<str>) {
        lock(&self.0.core.coordinators).0.remove(group);
    }

    async fn follow_coordinator<R>(
        &self,
        group: &Arc<str>,
        request: R,
        hold: Option<Duration>,
        error: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, Error>
    where
        R: Request + Clone + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        let core = &self.0.core;
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let coordinator = core.coordinator(group, retry.limit()).await?;
                let answer = match hold {
                    None => core.brokers.control(&coordinator).await?.call(&request, i16::MAX, Duration::ZERO).await?,
                    Some(hold) => {
                        let lent = core.brokers.held(&coordinator).await?;
                        let request = request.clone();
                        let call = async move { lent.connection().call(&request, i16::MAX, hold).await };
                        core.brokers.detached(call).await?
                    }
                };
                match error(&answer) {
                    code @ (ErrorCode::NOT_COORDINATOR
                    | ErrorCode::COORDINATOR_NOT_AVAILABLE
                    | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => Err(Error::broker(R::API.name, code, None)),
                    _ => Ok(answer),
                }
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // While it loads its groups it is the right one.
                    if error.code() != Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) {
                        lock(&core.coordinators).0.remove(group);
                    }
                    retry.after(error).await?;
                }
            }
        }
    }
}

impl Core {
    /// The remembered coordinator, or the one that any broker names. `limit`: for the asking.
    pub(super) async fn coordinator(&self, group: &Arc<str>, limit: Duration) -> Result<Broker, Error> {
        if let Some(known) = lock(&self.coordinators).0.get(group) {
            return Ok(known.clone());
        }
        let answer = self.ask_any(&FindCoordinatorRequest { group: group.clone() }, limit).await?;
        if let Err(code) = answer.error.ok() {
            return Err(Error::broker(FindCoordinatorRequest::API.name, code, answer.message));
        }
        let coordinator = answer.coordinator.ok_or(Error::NoBroker("the group has no coordinator"))?;
        lock(&self.coordinators).remember(group.clone(), coordinator.clone());
        Ok(coordinator)
    }
}
