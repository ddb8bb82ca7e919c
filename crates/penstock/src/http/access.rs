//! Who may do what (P10).
//!
//! Asked before anything of a request's body is read. Rules name identities; the only one that exists without a PROXY
//! header, a client certificate or a login is `anyone`.

use crate::config::{AccessRule, Identity, Verb};

use super::error::ApiError;

/// The rules of the data listener.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    rules: Vec<AccessRule>,
}

impl Access {
    /// Without any rule everyone may do everything: the configuration allows that on a loopback address alone.
    pub(crate) const fn new(rules: Vec<AccessRule>) -> Self {
        Self { rules }
    }

    /// Refuses with 403 what no rule allows.
    pub(crate) fn check(&self, topic: &str, verb: Verb) -> Result<(), ApiError> {
        if self.allows(topic, verb) {
            return Ok(());
        }
        let verb = match verb {
            Verb::Produce => "produce",
            Verb::Consume => "consume",
            Verb::Admin => "admin",
        };
        Err(ApiError::denied(format!("no access rule allows {verb} on topic {topic}")))
    }

    /// Whether a caller may know that the topic is there: whoever may do anything with it.
    pub(crate) fn sees(&self, topic: &str) -> bool {
        [Verb::Produce, Verb::Consume, Verb::Admin].into_iter().any(|verb| self.allows(topic, verb))
    }

    fn allows(&self, topic: &str, verb: Verb) -> bool {
        self.rules.is_empty()
            || self.rules.iter().any(|rule| match rule.identity {
                Identity::Anyone => rule.allows(topic, verb),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Allow, TopicPattern};

    fn rule(pattern: TopicPattern, allow: Allow) -> AccessRule {
        AccessRule { identity: Identity::Anyone, topics: vec![pattern], allow }
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let produce = Allow { produce: true, ..Allow::default() };
        let consume = Allow { consume: true, ..Allow::default() };
        let access = Access::new(vec![
            rule(TopicPattern::Name("orders".into()), produce),
            rule(TopicPattern::Prefix("logs-".into()), consume),
        ]);
        assert!(access.check("orders", Verb::Produce).is_ok());
        assert!(access.check("logs-eu", Verb::Consume).is_ok());
        for (topic, verb) in
            [("orders", Verb::Consume), ("orders", Verb::Admin), ("logs-eu", Verb::Produce), ("orders2", Verb::Produce)]
        {
            assert_eq!(access.check(topic, verb).expect_err("refused").code, 40301, "{topic} {verb:?}");
        }
        assert!(access.sees("orders") && access.sees("logs-x") && !access.sees("other"));
    }

    #[test]
    fn without_rules_everyone_is_served() {
        assert!(Access::new(Vec::new()).check("any", Verb::Admin).is_ok());
    }
}
