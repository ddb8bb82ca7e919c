//! Who may do what, and how much of it (P10).
//!
//! Asked before anything of a request's body is read. As soon as there is one rule, what no rule allows is refused. The
//! first rule that allows a request is the one whose rates it counts against.
//!
//! Every refusal and every call that changes topics leaves a line under the log's target `audit`, at most
//! [`AUDIT_LINES`] a second: a flood of refused requests must not become a flood of log lines. A line tells how many
//! were left out before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::caller::Caller;
use super::error::ApiError;
use super::rate::Bucket;
use crate::config::{AccessRule, Identity, Verb};

/// Lines of the audit log in a second.
const AUDIT_LINES: u64 = 100;

/// The rules of the data listener, shared by all workers.
#[derive(Debug)]
pub(crate) struct Access {
    rules: Vec<Rule>,
    audit: Bucket,
    /// Audit lines that were left out since the last that was not.
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Rule {
    rule: AccessRule,
    requests: Option<Bucket>,
    bytes: Option<Arc<Bucket>>,
}

/// Leave for one request.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    /// What its body's bytes count against.
    pub(crate) bytes: Option<Arc<Bucket>>,
}

impl Access {
    /// Without any rule everyone may do everything: the configuration allows that on a loopback address alone.
    pub(crate) fn new(rules: Vec<AccessRule>) -> Self {
        let now = Instant::now();
        let rules = rules.into_iter().map(|rule| Rule {
            requests: rule.rate_requests.map(|rate| Bucket::new(rate, now)),
            bytes: rule.rate_bytes.map(|rate| Arc::new(Bucket::new(rate, now))),
            rule,
        });
        Self { rules: rules.collect(), audit: Bucket::new(AUDIT_LINES, now), left_out: AtomicU64::new(0) }
    }

    /// Lets a request pass that any of `verbs` is enough for.
    ///
    /// # Errors
    ///
    /// 403 when no rule allows it, 429 when the rule that does has been used up for now.
    pub(crate) fn check(&self, caller: &Caller, topic: &str, verbs: &[Verb]) -> Result<Grant, ApiError> {
        let wanted = verbs.first().map_or("", |verb| verb.name());
        let allowed = self.allowing(caller, topic, verbs);
        if allowed.is_none() && !self.rules.is_empty() {
            self.audit(caller, topic, wanted, "denied");
            return Err(ApiError::denied(format!("no access rule allows {wanted} on topic {topic}")));
        }
        if let Some(rule) = allowed
            && let Err(wait) = rule.spend(Instant::now())
        {
            self.audit(caller, topic, wanted, "over its rate");
            return Err(ApiError::over_rate(wait));
        }
        if verbs == [Verb::Admin] {
            self.audit(caller, topic, wanted, "allowed");
        }
        Ok(Grant { bytes: allowed.and_then(|rule| rule.bytes.clone()) })
    }

    /// Whether a caller may know that the topic is there: whoever may do anything with it.
    pub(crate) fn sees(&self, caller: &Caller, topic: &str) -> bool {
        self.rules.is_empty() || self.allowing(caller, topic, &[Verb::Produce, Verb::Consume, Verb::Admin]).is_some()
    }

    fn allowing(&self, caller: &Caller, topic: &str, verbs: &[Verb]) -> Option<&Rule> {
        let allows = |rule: &&Rule| {
            let is_for = match &rule.rule.identity {
                Identity::Anyone => true,
                Identity::Endpoint(id) => caller.endpoint.as_deref() == Some(&**id),
            };
            is_for && verbs.iter().any(|verb| rule.rule.allows(topic, *verb))
        };
        self.rules.iter().find(allows)
    }

    fn audit(&self, caller: &Caller, topic: &str, verb: &str, outcome: &str) {
        if self.audit.take(Instant::now()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        tracing::info!(target: "audit", %caller, topic, verb, outcome, left_out, "access");
    }
}

impl Rule {
    /// Counts a request. The bytes of its body count when they come.
    fn spend(&self, now: Instant) -> Result<(), Duration> {
        if let Some(bytes) = &self.bytes {
            bytes.settled(now)?;
        }
        self.requests.as_ref().map_or(Ok(()), |requests| requests.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Allow, TopicPattern};

    const PRODUCE: Allow = Allow { produce: true, consume: false, admin: false };
    const CONSUME: Allow = Allow { produce: false, consume: true, admin: false };

    fn rule(identity: Identity, pattern: TopicPattern, allow: Allow) -> AccessRule {
        AccessRule { identity, topics: vec![pattern], allow, rate_bytes: None, rate_requests: None }
    }

    fn caller(endpoint: Option<&str>) -> Caller {
        Caller { endpoint: endpoint.map(Into::into), ..Caller::of_socket(([192, 0, 2, 7], 4000).into()) }
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let access = Access::new(vec![
            rule(Identity::Anyone, TopicPattern::Name("orders".into()), PRODUCE),
            rule(Identity::Anyone, TopicPattern::Prefix("logs-".into()), CONSUME),
        ]);
        let anyone = caller(None);
        assert!(access.check(&anyone, "orders", &[Verb::Produce]).is_ok());
        assert!(access.check(&anyone, "logs-eu", &[Verb::Consume, Verb::Admin]).is_ok());
        for (topic, verb) in
            [("orders", Verb::Consume), ("orders", Verb::Admin), ("logs-eu", Verb::Produce), ("orders2", Verb::Produce)]
        {
            let error = access.check(&anyone, topic, &[verb]).expect_err("refused");
            assert_eq!(error.code, 40301, "{topic} {verb:?}");
        }
        assert!(access.sees(&anyone, "orders") && access.sees(&anyone, "logs-x") && !access.sees(&anyone, "other"));
    }

    #[test]
    fn a_rule_for_an_endpoint_is_for_that_endpoint_alone() {
        let id = Identity::Endpoint("vpce-1".into());
        let access = Access::new(vec![rule(id, TopicPattern::Prefix("".into()), PRODUCE)]);
        let may = |endpoint| access.check(&caller(endpoint), "orders", &[Verb::Produce]).is_ok();
        assert!(may(Some("vpce-1")));
        assert!(!may(Some("vpce-12")) && !may(Some("VPCE-1")) && !may(None));
        assert!(!access.sees(&caller(None), "orders"));
    }

    #[test]
    fn without_rules_everyone_is_served() {
        assert!(Access::new(Vec::new()).check(&caller(None), "any", &[Verb::Admin]).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_that_is_used_up_says_when_to_come_again() {
        let mut limited = rule(Identity::Anyone, TopicPattern::Prefix("".into()), PRODUCE);
        (limited.rate_requests, limited.rate_bytes) = (Some(2), Some(1000));
        let access = Access::new(vec![limited]);
        let check = || access.check(&caller(None), "orders", &[Verb::Produce]);
        let grant = check().expect("the first");
        check().expect("the second");
        let error = check().expect_err("the third");
        assert_eq!((error.code, error.retry_after), (429, Some(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        grant.bytes.expect("bytes count").charge(Instant::now(), 4000);
        assert_eq!(check().expect_err("bytes are owed").retry_after, Some(3));
        tokio::time::advance(Duration::from_secs(3)).await;
        check().expect("they are paid");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_a_bounded_number_of_lines() {
        let access = Access::new(vec![rule(Identity::Anyone, TopicPattern::Name("a".into()), PRODUCE)]);
        for _ in 0..AUDIT_LINES + 50 {
            access.check(&caller(None), "b", &[Verb::Produce]).expect_err("refused");
        }
        assert_eq!(access.left_out.load(Ordering::Relaxed), 50);
    }
}
