//! Who may do what, and how much of it (P10).
//!
//! Asked before anything of a request's body is read. As soon as there is one rule, what no rule allows is refused. The
//! first rule that allows a request is the one whose rates it counts against.
//!
//! | what is touched | asked with | allowed by a rule with |
//! |---|---|---|
//! | a topic | [`Access::check`] | the topic, and one of the verbs |
//! | a consumer group | [`Access::check_group`] | the group, and one of the verbs |
//! | brokers, the cluster's settings, ACLs | [`Access::check_cluster`] | the topic `*`, and `admin` |
//! | which cluster this is | [`Access::check_known`] | anything at all |
//!
//! Each but the last counts one request. A request that touches more than one thing asks one of them so, and
//! [`Access::permit`] for the others, which counts nothing. What lives for hours, a stream of a group for one, asks
//! `permit` again from time to time: rules change while it lives.
//!
//! Every refusal and every call that changes topics, groups or the cluster leaves a line under the log's target `audit`,
//! at most [`AUDIT_LINES`] a second: a flood of refused requests must not become a flood of log lines. A line tells how
//! many were left out before it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
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
    rules: ArcSwap<Rules>,
    audit: Bucket,
    /// Audit lines that were left out since the last that was not.
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    /// Some rule is for a user: who is nobody yet may log in.
    name_users: bool,
}

#[derive(Debug)]
struct Rule {
    rule: AccessRule,
    requests: Option<Arc<Bucket>>,
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
        Self {
            rules: ArcSwap::from_pointee(Rules::new(rules, &[], now)),
            audit: Bucket::new(AUDIT_LINES, now),
            left_out: AtomicU64::new(0),
        }
    }

    /// Puts other rules in place, for requests to come. A rule that has the identity and the rates of one before goes on with
    /// its buckets as they are: a reload gives nobody a second burst.
    pub(crate) fn replace(&self, rules: Vec<AccessRule>) {
        let before = self.rules.load();
        self.rules.store(Arc::new(Rules::new(rules, &before.rules, Instant::now())));
    }

    /// Lets a request for a topic pass that any of `verbs` is enough for, and counts it.
    ///
    /// # Errors
    ///
    /// 403 when no rule allows it, or 401 when one might if the caller logged in; 429 when the rule that does has been used
    /// up for now.
    pub(crate) fn check(&self, caller: &Caller, topic: &str, verbs: &[Verb]) -> Result<Grant, ApiError> {
        self.grant(caller, Resource::Topic(topic), verbs)
    }

    /// Lets a request for a consumer group pass that any of `verbs` is enough for, and counts it: `consume` to join it, to
    /// commit and read its offsets and its lag; `admin` to delete it.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check)'s.
    pub(crate) fn check_group(&self, caller: &Caller, group: &str, verbs: &[Verb]) -> Result<Grant, ApiError> {
        self.grant(caller, Resource::Group(group), verbs)
    }

    /// Lets a request pass that concerns the whole cluster (brokers, the cluster's settings, ACLs), and counts it: `admin`
    /// on every topic.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check)'s.
    pub(crate) fn check_cluster(&self, caller: &Caller) -> Result<Grant, ApiError> {
        self.grant(caller, Resource::Cluster, &[Verb::Admin])
    }

    /// Lets whoever some rule is for learn which cluster this is. It counts nothing, as lists do.
    ///
    /// # Errors
    ///
    /// 403 when no rule is for the caller, or 401 when one might be if it logged in.
    pub(crate) fn check_known(&self, caller: &Caller) -> Result<(), ApiError> {
        self.permit(caller, Resource::ClusterId, &[Verb::Consume, Verb::Produce, Verb::Admin])
    }

    /// Whether the caller may do one more thing within a request that was counted already.
    ///
    /// # Errors
    ///
    /// 403 or 401 when no rule allows it.
    pub(crate) fn permit(&self, caller: &Caller, resource: Resource<'_>, verbs: &[Verb]) -> Result<(), ApiError> {
        self.find(&self.rules.load(), caller, resource, verbs).map(drop)
    }

    /// The same for a list, which leaves out what is not allowed: neither answer leaves a trace in the audit log.
    pub(crate) fn may(&self, caller: &Caller, resource: Resource<'_>, verbs: &[Verb]) -> bool {
        let rules = self.rules.load();
        rules.rules.is_empty() || rules.allowing(caller, resource, verbs).is_some()
    }

    /// Whether a caller may know that the topic is there: whoever may do anything with it.
    pub(crate) fn sees(&self, caller: &Caller, topic: &str) -> bool {
        self.sees_resource(caller, Resource::Topic(topic))
    }

    /// Whether a caller may know that the consumer group is there: whoever may do anything with it.
    pub(crate) fn sees_group(&self, caller: &Caller, group: &str) -> bool {
        self.sees_resource(caller, Resource::Group(group))
    }

    fn sees_resource(&self, caller: &Caller, resource: Resource<'_>) -> bool {
        let rules = self.rules.load();
        rules.rules.is_empty()
            || rules.allowing(caller, resource, &[Verb::Produce, Verb::Consume, Verb::Admin]).is_some()
    }

    fn grant(&self, caller: &Caller, resource: Resource<'_>, verbs: &[Verb]) -> Result<Grant, ApiError> {
        let rules = self.rules.load();
        let Some(rule) = self.find(&rules, caller, resource, verbs)? else {
            return Ok(Grant::default());
        };
        if let Err(wait) = rule.spend(Instant::now()) {
            self.audit(caller, resource, verbs, "over its rate");
            return Err(ApiError::over_rate(wait));
        }
        Ok(Grant { bytes: rule.bytes.clone() })
    }

    /// The first rule that allows it; `None` where there are no rules.
    fn find<'a>(
        &self,
        rules: &'a Rules,
        caller: &Caller,
        resource: Resource<'_>,
        verbs: &[Verb],
    ) -> Result<Option<&'a Rule>, ApiError> {
        let allowed = rules.allowing(caller, resource, verbs);
        if allowed.is_none() && !rules.rules.is_empty() {
            self.audit(caller, resource, verbs, "denied");
            let verb = name_of(verbs);
            return Err(if rules.may_log_in(caller) {
                ApiError::unauthorized(format!("{verb} on {resource} needs a login"))
            } else {
                ApiError::denied(format!("no access rule allows {verb} on {resource}"))
            });
        }
        if verbs == [Verb::Admin] {
            self.audit(caller, resource, verbs, "allowed");
        }
        Ok(allowed)
    }

    /// Tells the audit log of somebody who is not whom it says.
    pub(crate) fn login_failed(&self, caller: &Caller, why: &str) {
        if let Some(left_out) = self.audit_turn() {
            tracing::info!(target: "audit", %caller, outcome = why, left_out, "login");
        }
    }

    fn audit(&self, caller: &Caller, resource: Resource<'_>, verbs: &[Verb], outcome: &str) {
        if let Some(left_out) = self.audit_turn() {
            tracing::info!(target: "audit", %caller, %resource, verb = name_of(verbs), outcome, left_out, "access");
        }
    }

    /// How many lines were left out before this one; `None` leaves it out, too.
    fn audit_turn(&self) -> Option<u64> {
        if self.audit.take(Instant::now()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

impl Rules {
    fn new(rules: Vec<AccessRule>, before: &[Rule], now: Instant) -> Self {
        let mut before: Vec<&Rule> = before.iter().collect();
        let name_users = rules.iter().any(|rule| matches!(rule.identity, Identity::User(_)));
        let rules = rules.into_iter().map(|rule| {
            let same = before
                .iter()
                .position(|old| old.rule == rule)
                .or_else(|| before.iter().position(|old| old.rule.has_rates_of(&rule)));
            let same = same.map(|index| before.swap_remove(index));
            let bucket = |rate: Option<u64>| rate.map(|rate| Arc::new(Bucket::new(rate, now)));
            Rule {
                requests: same.map_or_else(|| bucket(rule.rate_requests), |same| same.requests.clone()),
                bytes: same.map_or_else(|| bucket(rule.rate_bytes), |same| same.bytes.clone()),
                rule,
            }
        });
        Self { rules: rules.collect(), name_users }
    }

    fn allowing(&self, caller: &Caller, resource: Resource<'_>, verbs: &[Verb]) -> Option<&Rule> {
        let allows = |rule: &&Rule| {
            verbs.iter().any(|verb| resource.is_allowed_by(&rule.rule, *verb)) && is_for(&rule.rule.identity, caller)
        };
        self.rules.iter().find(allows)
    }

    /// Whether a caller that is refused is nobody that a rule knows, and could become somebody.
    fn may_log_in(&self, caller: &Caller) -> bool {
        let is_named = |rule: &Rule| rule.rule.identity != Identity::Anyone && is_for(&rule.rule.identity, caller);
        self.name_users && caller.user.is_none() && !self.rules.iter().any(is_named)
    }
}

/// A caller is all that it proved to be.
fn is_for(identity: &Identity, caller: &Caller) -> bool {
    match identity {
        Identity::Anyone => true,
        Identity::Endpoint(id) => caller.endpoint.as_deref() == Some(&**id),
        Identity::Certificate(name) => caller.certificate.as_ref().is_some_and(|names| names.has(name)),
        Identity::User(name) => caller.user.as_deref() == Some(&**name),
    }
}

/// What an error and the audit log call it: the verb that is asked for first.
fn name_of(verbs: &[Verb]) -> &'static str {
    verbs.first().map_or("", |verb| verb.name())
}

/// What a request touches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource<'a> {
    /// A topic, by name.
    Topic(&'a str),
    /// A consumer group, by its id.
    Group(&'a str),
    /// What is no topic's and no group's.
    Cluster,
    /// Which cluster it is.
    ClusterId,
}

impl Resource<'_> {
    fn is_allowed_by(self, rule: &AccessRule, verb: Verb) -> bool {
        match self {
            Self::Topic(topic) => rule.allows(topic, verb),
            Self::Group(group) => rule.allows_group(group, verb),
            Self::Cluster => rule.allows_cluster(verb),
            Self::ClusterId => rule.allow.contains(verb),
        }
    }
}

/// For messages and logs. A group's id is any text: it is escaped.
impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic {topic}"),
            Self::Group(group) => write!(f, "group {}", group.escape_debug()),
            Self::Cluster => f.write_str("the cluster"),
            Self::ClusterId => f.write_str("the cluster's id"),
        }
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
    use crate::config::{Allow, NamePattern};

    const PRODUCE: Allow = Allow { produce: true, consume: false, admin: false };
    const CONSUME: Allow = Allow { produce: false, consume: true, admin: false };

    fn rule(identity: Identity, pattern: NamePattern, allow: Allow) -> AccessRule {
        AccessRule { identity, topics: vec![pattern], groups: Vec::new(), allow, rate_bytes: None, rate_requests: None }
    }

    fn caller(endpoint: Option<&str>) -> Caller {
        Caller { endpoint: endpoint.map(Into::into), ..Caller::of_socket(([192, 0, 2, 7], 4000).into()) }
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let access = Access::new(vec![
            rule(Identity::Anyone, NamePattern::Name("orders".into()), PRODUCE),
            rule(Identity::Anyone, NamePattern::Prefix("logs-".into()), CONSUME),
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
        let access = Access::new(vec![rule(id, NamePattern::Prefix("".into()), PRODUCE)]);
        let may = |endpoint| access.check(&caller(endpoint), "orders", &[Verb::Produce]).is_ok();
        assert!(may(Some("vpce-1")));
        assert!(!may(Some("vpce-12")) && !may(Some("VPCE-1")) && !may(None));
        assert!(!access.sees(&caller(None), "orders"));
        assert!(access.check_known(&caller(Some("vpce-1"))).is_ok());
        assert_eq!(access.check_known(&caller(None)).expect_err("no rule is for it").code, 40301);
    }

    #[test]
    fn groups_have_names_and_prefixes_of_their_own() {
        let groups = |groups: &[&str]| groups.iter().map(|name| NamePattern::parse(name)).collect();
        let consume = |topic, named: &[&str]| AccessRule {
            groups: groups(named),
            ..rule(Identity::Anyone, NamePattern::parse(topic), CONSUME)
        };
        let access = Access::new(vec![consume("orders", &["team-*", "billing"]), consume("logs", &[])]);
        let anyone = caller(None);
        for group in ["team-a", "team-", "billing"] {
            access.check_group(&anyone, group, &[Verb::Consume]).expect("allowed");
            assert!(access.sees_group(&anyone, group));
        }
        for group in ["billing2", "team", "logs", "orders", ""] {
            let error = access.check_group(&anyone, group, &[Verb::Consume]).expect_err("refused");
            assert_eq!(error.code, 40301, "{group}");
            assert!(!access.sees_group(&anyone, group));
        }
        access.check_group(&anyone, "team-a", &[Verb::Admin]).expect_err("the verb counts, too");
        let error = access.permit(&anyone, Resource::Group("a\nb"), &[Verb::Consume]).expect_err("refused");
        assert_eq!(error.message, "no access rule allows consume on group a\\nb");
    }

    #[test]
    fn the_cluster_is_for_those_who_administer_every_topic() {
        let admin = Allow { admin: true, ..CONSUME };
        let id = |id: &str| Identity::Endpoint(id.into());
        let access = Access::new(vec![
            rule(id("vpce-1"), NamePattern::parse("*"), admin),
            rule(id("vpce-2"), NamePattern::parse("a*"), admin),
            rule(id("vpce-3"), NamePattern::parse("*"), CONSUME),
        ]);
        access.check_cluster(&caller(Some("vpce-1"))).expect("allowed");
        for endpoint in [Some("vpce-2"), Some("vpce-3"), None] {
            assert_eq!(access.check_cluster(&caller(endpoint)).expect_err("refused").code, 40301);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_request_touches_beside_the_first_is_not_counted() {
        let mut limited = rule(Identity::Anyone, NamePattern::parse("*"), CONSUME);
        limited.rate_requests = Some(1);
        let access = Access::new(vec![limited]);
        access.check(&caller(None), "a", &[Verb::Consume]).expect("the first");
        for _ in 0..10 {
            access.permit(&caller(None), Resource::Topic("b"), &[Verb::Consume]).expect("uncounted");
        }
        assert_eq!(access.check(&caller(None), "a", &[Verb::Consume]).expect_err("the second").code, 429);
    }

    #[test]
    fn without_rules_everyone_is_served() {
        assert!(Access::new(Vec::new()).check(&caller(None), "any", &[Verb::Admin]).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_that_is_used_up_says_when_to_come_again() {
        let mut limited = rule(Identity::Anyone, NamePattern::Prefix("".into()), PRODUCE);
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
        let access = Access::new(vec![rule(Identity::Anyone, NamePattern::Name("a".into()), PRODUCE)]);
        for _ in 0..AUDIT_LINES + 50 {
            access.check(&caller(None), "b", &[Verb::Produce]).expect_err("refused");
        }
        assert_eq!(access.left_out.load(Ordering::Relaxed), 50);
    }
}
