//! `topic_pattern`: a regular expression that topics' whole names match.
//!
//! The original takes Java's expressions. These are a linear-time subset of them, without look-around and
//! back-references: an expression from a client must not be able to keep a worker busy.

use regex_lite::{Regex, RegexBuilder};

/// What an expression may compile to.
const SIZE_LIMIT: usize = 64 * 1024;

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    ///
    /// What is wrong with the expression, for its sender.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        let compiled =
            |text: &str| RegexBuilder::new(text).size_limit(SIZE_LIMIT).build().map_err(|error| error.to_string());
        // On its own first: one with a parenthesis too many would end ours.
        compiled(expression)?;
        compiled(&format!("^(?:{expression})$")).map(Self)
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_has_to_match() {
        let pattern = Pattern::new("logs-.*|audit").expect("an expression");
        for (topic, matches) in
            [("logs-a", true), ("logs-", true), ("audit", true), ("audits", false), ("my-logs-a", false)]
        {
            assert_eq!(pattern.matches(topic), matches, "{topic}");
        }
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        for wrong in ["(", "a)|(b", "*", "(?=x)", "a{1000}{1000}"] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
