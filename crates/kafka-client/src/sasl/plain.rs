//! PLAIN (RFC 4616): name and password in one message.

use super::{Login, Mechanism, Message, Refusal, Step};

/// The exchange.
pub(super) struct Plain(Login);

impl Plain {
    pub(super) fn new(login: Login) -> Self {
        Self(login)
    }
}

impl Mechanism for Plain {
    fn first(&mut self) -> Result<Message, Refusal> {
        let Login { username, password } = &self.0;
        let password = password.reveal();
        if username.is_empty() || password.is_empty() {
            return Err(Refusal::Unfit("PLAIN needs a name and a password"));
        }
        if username.contains('\0') || password.contains('\0') {
            return Err(Refusal::Unfit("PLAIN has no way to send a name or password that holds a NUL"));
        }
        // Sized at once: a buffer that grows leaves copies behind.
        let mut message = Message::new(Vec::with_capacity(2 + username.len() + password.len()));
        // The first field, whom to act for, is empty: ourselves.
        message.push(0);
        message.extend_from_slice(username.as_bytes());
        message.push(0);
        message.extend_from_slice(password.as_bytes());
        Ok(message)
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step, Refusal> {
        match challenge {
            [] => Ok(Step::Done),
            _ => Err(Refusal::Peer("the broker sent a challenge, which PLAIN does not have")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::Secret;

    fn plain(username: &str, password: &str) -> Plain {
        Plain::new(Login { username: username.to_owned(), password: Secret::new(password) })
    }

    #[test]
    fn name_and_password_go_as_they_are() {
        // RFC 4616, section 4, without an authorization identity.
        let mut exchange = plain("tim", "tanstaaftanstaaf");
        assert_eq!(exchange.first().expect("sendable").as_slice(), b"\0tim\0tanstaaftanstaaf");
        assert_eq!(exchange.step(b""), Ok(Step::Done));
        assert_eq!(plain("é", "ü").first().expect("sendable").as_slice(), "\0é\0ü".as_bytes());
    }

    #[test]
    fn what_the_format_cannot_carry_is_not_sent() {
        for (username, password) in [("", "p"), ("u", ""), ("a\0b", "p"), ("u", "a\0b")] {
            assert!(matches!(plain(username, password).first(), Err(Refusal::Unfit(_))), "{username:?} {password:?}");
        }
    }

    #[test]
    fn a_challenge_is_no_success() {
        assert!(matches!(plain("u", "p").step(b"more"), Err(Refusal::Peer(_))));
    }
}
