//! The request under way, for whoever runs on its behalf.
//!
//! A task-local rather than a parameter: log lines are written in places that know of no request, and most requests have
//! no scope.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use kafka_records::HeaderBlock;
use produce_pipeline::Delivery;
use tokio_util::either::Either;

use super::trace_context::{TRACESTATE, TraceContext};
use crate::http::caller::Caller;

tokio::task_local! {
    static CURRENT: Rc<Scope>;
}

/// Deliveries that are looked through for those that are over, when there are so many.
const OPEN_DELIVERIES: usize = 16;

/// Runs `future` as part of a request, if there is something to know of it.
///
/// No `async fn`, which would have room for the future twice.
pub(crate) fn within<T>(scope: Option<Rc<Scope>>, future: impl Future<Output = T>) -> impl Future<Output = T> {
    match scope {
        None => Either::Left(future),
        Some(scope) => Either::Right(CURRENT.scope(scope, future)),
    }
}

/// Looks at the scope of the request under way. `None` if there is none.
pub(crate) fn current<T>(look: impl FnOnce(&Rc<Scope>) -> T) -> Option<T> {
    CURRENT.try_with(look).ok()
}

/// What is known of a request.
pub(crate) struct Scope {
    pub(crate) trace: Trace,
    topic: RefCell<Option<Box<str>>>,
    caller: RefCell<Option<Rc<Caller>>>,
    settled: Cell<Outcomes>,
    deliveries: RefCell<Vec<Delivery>>,
}

/// A request's place in a trace.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Where what the request causes goes on from.
    pub(crate) context: TraceContext,
    /// `context` names a span of ours, which is exported when the request is over.
    pub(crate) recorded: bool,
    /// The sender's span above ours.
    pub(crate) parent: Option<u64>,
    /// Records carry it on. Not where it is known to nobody but the log.
    pub(super) goes_on: bool,
    /// What vendors added, if it goes on.
    pub(crate) state: Option<String>,
}

impl Trace {
    /// `headers` and the trace under `name`. `None` if it does not go on, or the client put something there.
    pub(super) fn in_records(&self, name: &str, headers: &HeaderBlock) -> Option<HeaderBlock> {
        if !self.goes_on || headers.iter().any(|(known, _)| known == name.as_bytes()) {
            return None;
        }
        let traced = headers.and(name, Some(self.context.to_string().as_bytes()));
        Some(match &self.state {
            Some(state) => traced.and(TRACESTATE, Some(state.as_bytes())),
            None => traced,
        })
    }
}

/// Records by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcomes {
    pub(crate) written: u64,
    pub(crate) not_written: u64,
    pub(crate) unknown: u64,
}

impl Outcomes {
    fn add(&mut self, delivery: &Delivery) {
        let progress = delivery.progress();
        self.written += progress.written;
        self.not_written += progress.not_written;
        self.unknown += progress.unknown;
    }
}

impl Scope {
    pub(super) fn new(trace: Trace) -> Self {
        Self {
            trace,
            topic: RefCell::default(),
            caller: RefCell::default(),
            settled: Cell::default(),
            deliveries: RefCell::default(),
        }
    }

    /// The request is about this topic. The last one counts.
    pub(crate) fn is_about(&self, topic: &str) {
        *self.topic.borrow_mut() = Some(topic.into());
    }

    pub(crate) fn topic(&self) -> Option<Box<str>> {
        self.topic.borrow().clone()
    }

    /// The request has proved that this caller sends it.
    pub(crate) fn is_by(&self, caller: &Rc<Caller>) {
        *self.caller.borrow_mut() = Some(caller.clone());
    }

    /// Who has proved to send it. `None`: nobody, or nothing more than the connection says.
    pub(crate) fn caller(&self) -> Option<Rc<Caller>> {
        self.caller.borrow().clone()
    }

    /// What becomes of these records is part of what becomes of the request.
    pub(crate) fn waits_for(&self, delivery: &Delivery) {
        let mut deliveries = self.deliveries.borrow_mut();
        if deliveries.len() >= OPEN_DELIVERIES {
            let mut settled = self.settled.get();
            deliveries.retain(|delivery| {
                let over = delivery.is_resolved();
                if over {
                    settled.add(delivery);
                }
                !over
            });
            self.settled.set(settled);
        }
        deliveries.push(delivery.clone());
    }

    /// What has become of the request's records so far. `None` if it never had any.
    pub(crate) fn outcomes(&self) -> Option<Outcomes> {
        let deliveries = self.deliveries.borrow();
        let mut outcomes = self.settled.get();
        deliveries.iter().for_each(|delivery| outcomes.add(delivery));
        (!deliveries.is_empty()).then_some(outcomes)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("trace", &self.trace).finish_non_exhaustive()
    }
}
