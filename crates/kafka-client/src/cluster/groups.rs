//! A group's committed offsets, for members and for anybody else.

use super::Cluster;
use crate::{
    Error, ErrorCode,
    messages::{CommittedOffset, OffsetCommitRequest, OffsetFetchRequest, Request},
};
use std::sync::Arc;

/// How far a group has read one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1: unknown (KIP-320).
    pub leader_epoch: i32,
    /// The committer's note.
    pub metadata: Option<Arc<str>>,
}

/// In whose name offsets are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The generation that the member is in.
    pub generation: i32,
    /// The member's id.
    pub member: Arc<str>,
    /// The id of a static member (KIP-345).
    pub instance: Option<Arc<str>>,
}

impl Membership {
    /// No member: taken while the group has none.
    pub(crate) fn none() -> Self {
        Self { generation: -1, member: "".into(), instance: None }
    }
}

impl Cluster {
    /// A group's committed offsets: of these partitions, by topic, or of all that have one. A partition without a
    /// committed offset is left out. A group that is not there has none.
    ///
    /// Waits, within the request timeout, for transactions that may still change an offset (KIP-447).
    ///
    /// # Errors
    ///
    /// `GROUP_AUTHORIZATION_FAILED` and other refusals as [`Error::Broker`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn group_offsets(
        &self,
        group: &Arc<str>,
        partitions: Option<Vec<(Arc<str>, Vec<i32>)>>,
    ) -> Result<Vec<GroupOffset>, Error> {
        let api = OffsetFetchRequest::API.name;
        let request = OffsetFetchRequest { group: group.clone(), topics: partitions, require_stable: true };
        let mut retry = self.0.core.retry();
        loop {
            let answer = self.ask_coordinator(group, request.clone(), |answer| answer.error).await?;
            if let Err(code) = answer.error.ok() {
                return Err(Error::broker(api, code, None));
            }
            let mut offsets = Vec::new();
            let mut failure = None;
            for (topic, partitions) in answer.topics {
                for (committed, error) in partitions {
                    match error.ok() {
                        Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => {}
                        Err(code) => failure = Some(Error::broker(api, code, None)),
                        Ok(()) if committed.offset < 0 => {}
                        Ok(()) => offsets.push(GroupOffset {
                            topic: topic.clone(),
                            partition: committed.partition,
                            offset: committed.offset,
                            leader_epoch: committed.leader_epoch,
                            metadata: committed.metadata.filter(|note| !note.is_empty()),
                        }),
                    }
                }
            }
            match failure {
                None => return Ok(offsets),
                Some(error) => retry.after(error).await?,
            }
        }
    }

    /// Commits offsets as `membership` says, or as no member, which only a group without members takes.
    ///
    /// # Errors
    ///
    /// The first refusal of a partition as [`Error::Broker`]: `UNKNOWN_MEMBER_ID` where a group has members and this is
    /// none, `ILLEGAL_GENERATION` and `REBALANCE_IN_PROGRESS` where it has gone on. Others may have been committed then.
    ///
    /// # Cancel safety
    ///
    /// The commit may go on.
    pub async fn commit_group_offsets(
        &self,
        group: &Arc<str>,
        membership: Option<Membership>,
        offsets: &[GroupOffset],
    ) -> Result<(), Error> {
        let mut topics: Vec<(Arc<str>, Vec<CommittedOffset>)> = Vec::new();
        for offset in offsets {
            let committed = CommittedOffset {
                partition: offset.partition,
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: Some(offset.metadata.clone().unwrap_or_else(|| "".into())),
            };
            match topics.iter_mut().find(|(topic, _)| *topic == offset.topic) {
                Some((_, partitions)) => partitions.push(committed),
                None => topics.push((offset.topic.clone(), vec![committed])),
            }
        }
        let membership = membership.unwrap_or_else(Membership::none);
        let request = OffsetCommitRequest {
            group: group.clone(),
            generation: membership.generation,
            member: membership.member,
            instance: membership.instance,
            topics,
        };
        let first_error = |answer: &<OffsetCommitRequest as Request>::Response| {
            let mut codes = answer.topics.iter().flat_map(|(_, partitions)| partitions).map(|(_, code)| *code);
            codes.find(|code| !code.is_ok()).unwrap_or(ErrorCode::NONE)
        };
        let mut retry = self.0.core.retry();
        loop {
            let answer = self.ask_coordinator(group, request.clone(), first_error).await?;
            let error = match first_error(&answer).ok() {
                Ok(()) => return Ok(()),
                Err(code) => Error::broker(OffsetCommitRequest::API.name, code, None),
            };
            // A new partition may not be known to the coordinator yet.
            if !matches!(error.code(), Some(code) if code.is_retriable()) || retry.failures > 5 {
                return Err(error);
            }
            retry.after(error).await?;
        }
    }
}
