//! Consumer groups as an administrator sees them.

use super::Cluster;
use crate::{
    Error,
    messages::{ListGroupsRequest, ListedGroup, Request},
};

impl Cluster {
    /// All groups that this client may see, by id: every broker is asked for those that it coordinates.
    ///
    /// # Errors
    ///
    /// When one of the brokers cannot be asked in time: a list without its groups would be taken for the whole.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>, Error> {
        let core = &self.0.core;
        core.wait_for_metadata().await?;
        let mut groups = Vec::new();
        for broker in core.metadata().brokers.keys() {
            let mut retry = core.retry();
            let answer = loop {
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
            groups.extend(answer);
        }
        // While a coordinator moves, two brokers may name its groups.
        groups.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        groups.dedup_by(|a, b| a.id == b.id);
        Ok(groups)
    }
}
