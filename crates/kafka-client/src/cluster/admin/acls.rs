//! Kafka's own access rules: described, created, deleted. Clusters without an authorizer answer `SECURITY_DISABLED`.

use super::{Cluster, no_such_part};
use crate::{
    Error,
    messages::{Acl, AclFilter, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, Request},
};

impl Cluster {
    /// The rules that a filter matches, in order.
    ///
    /// # Errors
    ///
    /// The broker's refusal, as [`Error::Broker`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn describe_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, Error> {
        let core = &self.0.core;
        let request = DescribeAclsRequest { filter: filter.clone() };
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let answer = core.ask_any(&request, retry.limit()).await?;
                match answer.error.ok() {
                    Ok(()) => Ok(answer.acls),
                    Err(code) => Err(Error::broker(DescribeAclsRequest::API.name, code, answer.message)),
                }
            };
            match attempt.await {
                Ok(mut acls) => {
                    acls.sort_unstable();
                    return Ok(acls);
                }
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// Creates rules. One that is there already stays, so lost answers are asked for again.
    ///
    /// # Errors
    ///
    /// The broker's first refusal, as [`Error::Broker`]; the rules before it and after it may have been created.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn create_acls(&self, acls: Vec<Acl>) -> Result<(), Error> {
        let core = &self.0.core;
        let count = acls.len();
        let request = CreateAclsRequest { acls };
        let api = CreateAclsRequest::API.name;
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let answer = core.ask_any(&request, retry.limit()).await?;
                if answer.results.len() != count {
                    return Err(no_such_part(api));
                }
                let refused = answer.results.into_iter().find(|(error, _)| !error.is_ok());
                refused.map_or(Ok(()), |(code, message)| Err(Error::broker(api, code, message)))
            };
            match attempt.await {
                Ok(()) => return Ok(()),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// Deletes the rules that a filter matches, and returns them in order.
    ///
    /// # Errors
    ///
    /// The broker's refusal, as [`Error::Broker`], of the filter or of one of the rules. If the connection is lost after
    /// the request was sent, the rules may be gone; nothing is repeated then.
    ///
    /// # Cancel safety
    ///
    /// The request may go on.
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, Error> {
        let core = &self.0.core;
        let request = DeleteAclsRequest { filter: filter.clone() };
        let api = DeleteAclsRequest::API.name;
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let answer = core.ask_any(&request, retry.limit()).await?;
                let deleted = answer.results.into_iter().next().ok_or_else(|| no_such_part(api))?;
                deleted.error.ok().map_err(|code| Error::broker(api, code, deleted.message))?;
                deleted
                    .acls
                    .into_iter()
                    .map(|(error, acl)| error.ok().map(|()| acl).map_err(|code| Error::broker(api, code, None)))
                    .collect::<Result<Vec<_>, _>>()
            };
            match attempt.await {
                Ok(mut acls) => {
                    acls.sort_unstable();
                    return Ok(acls);
                }
                Err(error) => retry.unless_done(error).await?,
            }
        }
    }
}
