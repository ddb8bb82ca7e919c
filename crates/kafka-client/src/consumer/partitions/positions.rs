//! Where to begin: at the group's offset, where this consumer was, or where the configuration says.

use super::super::{OffsetReset, Shared, TopicPartition, by_topic};
use super::LONG_PAUSE;
use crate::cluster::lock;
use crate::{ConsumerError, OffsetSpec};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::sleep;

impl Shared {
    /// Finds where to begin with these, in the background.
    pub(crate) fn find_positions(self: &Arc<Self>, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let versions = {
            let mut state = lock(&self.state);
            let mut versions = Vec::with_capacity(partitions.len());
            for partition in partitions {
                if let Some(one) = state.partitions.get_mut(&partition) {
                    one.busy = true;
                    versions.push((partition, one.version));
                }
            }
            versions
        };
        self.cluster.spawn(self.clone().from_committed(versions));
    }

    async fn from_committed(self: Arc<Self>, mut open: Vec<(TopicPartition, u64)>) {
        let mut committed = Vec::new();
        if let Some(group) = &self.config.group {
            loop {
                self.keep_current(&mut open);
                if open.is_empty() {
                    return;
                }
                let names: Vec<TopicPartition> = open.iter().map(|(partition, _)| partition.clone()).collect();
                match self.cluster.group_offsets(group, Some(by_topic(&names))).await {
                    Ok(offsets) => {
                        committed = offsets;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%group, %error, "no committed offsets yet");
                        if !error.is_retriable() {
                            lock(&self.state).trouble(error.into());
                        }
                        sleep(LONG_PAUSE).await;
                    }
                }
            }
        }
        let mut found: HashMap<TopicPartition, (i64, bool)> =
            committed.into_iter().map(|one| ((one.topic, one.partition), (one.offset, true))).collect();
        {
            let mut state = lock(&self.state);
            for (partition, _) in &open {
                if let Some(&at_least) = self.config.at_least.get(partition)
                    && state.begun.insert(partition.clone())
                    && found.get(partition).is_none_or(|(offset, _)| *offset < at_least)
                {
                    found.insert(partition.clone(), (at_least, false));
                }
            }
        }
        let mut new = Vec::new();
        {
            let mut state = lock(&self.state);
            for (partition, version) in open {
                let committed = found.get(&partition).map(|(offset, _)| *offset);
                if state.goes_on(&partition, version, committed) {
                    continue;
                }
                if committed.is_none() {
                    new.push((partition, version));
                    continue;
                }
                let (offset, committed) = found[&partition];
                state.begin_at(&partition, version, offset, committed.then_some(offset));
            }
        }
        self.changed.notify_waiters();
        self.reset(new).await;
    }

    /// Begins where the configuration says when no offset does.
    pub(super) async fn reset(self: Arc<Self>, mut open: Vec<(TopicPartition, u64)>) {
        let at = match self.config.reset {
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest => OffsetSpec::Latest,
            OffsetReset::None => {
                let mut state = lock(&self.state);
                for ((topic, partition), _) in open {
                    state.trouble(ConsumerError::NoOffset(topic, partition));
                }
                drop(state);
                self.changed.notify_waiters();
                return;
            }
        };
        loop {
            self.keep_current(&mut open);
            if open.is_empty() {
                return;
            }
            let wanted: Vec<_> = open.iter().map(|(partition, _)| (partition.clone(), at)).collect();
            let listed = self.list_offsets(&wanted).await;
            let mut left = Vec::new();
            {
                let mut state = lock(&self.state);
                for ((partition, version), listed) in open.into_iter().zip(listed) {
                    match listed.map(|listed| listed.offset) {
                        // Not committed yet: whoever has the partition next must not begin elsewhere.
                        Ok(Some(offset)) => state.begin_at(&partition, version, offset, None),
                        Ok(None) => left.push((partition, version)),
                        Err(error) => {
                            tracing::debug!(topic = %partition.0, partition = partition.1, %error, "no offset yet");
                            if !error.is_retriable() {
                                state.trouble(error.into());
                            }
                            left.push((partition, version));
                        }
                    }
                }
            }
            self.delivered.notify_one();
            self.changed.notify_waiters();
            open = left;
            if !open.is_empty() {
                sleep(LONG_PAUSE).await;
            }
        }
    }

    /// Leaves out what is not read any more, or was sought elsewhere.
    fn keep_current(&self, open: &mut Vec<(TopicPartition, u64)>) {
        let state = lock(&self.state);
        open.retain(|(partition, version)| state.partitions.get(partition).is_some_and(|one| one.version == *version));
        if *self.closing.borrow() {
            open.clear();
        }
    }
}
