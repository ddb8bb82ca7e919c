//! The memory of consumers, out of the process's budget (P6).

use std::sync::Arc;

use kafka_client::{Account, Held};
use produce_pipeline::MemoryBudget;

/// Answers for what a consumer holds. Its fetches run beside the workers, so it counts at the budget itself: once an answer.
#[derive(Debug)]
pub(crate) struct GroupMemory(pub(crate) MemoryBudget);

impl Account for GroupMemory {
    fn share(&self, wanted: usize) -> Option<usize> {
        // Like new requests: what is left above belongs to uploads that run.
        (!self.0.refuses_new()).then(|| self.0.share(wanted))
    }

    fn charge(&self, bytes: usize) -> Held {
        Arc::new(self.0.charge(bytes))
    }
}
