//! OAUTHBEARER (RFC 7628; KIP-255): a token that an authorization server issued.

use super::{Mechanism, Message, Refusal, Secret, Step, words};

/// An access token. The broker looks into it, we do not.
#[derive(Debug, Clone)]
pub struct BearerToken {
    /// As it was issued, Base64 characters and dots (RFC 6750, section 2.1).
    pub token: Secret,
}

/// The exchange.
pub(super) struct OAuthBearer {
    token: BearerToken,
    /// What the broker said against the token.
    refusal: Option<String>,
}

impl OAuthBearer {
    pub(super) fn new(token: BearerToken) -> Self {
        Self { token, refusal: None }
    }
}

impl Mechanism for OAuthBearer {
    fn first(&mut self) -> Result<Message, Refusal> {
        let token = self.token.token.reveal();
        let (body, padding) = token.split_at(token.trim_end_matches('=').len());
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if body.is_empty() || !body.bytes().all(fits) {
            return Err(Refusal::Unfit("the token is not one that can be sent (RFC 6750, section 2.1)"));
        }
        // Each part ends in 0x01. Kafka's server wants neither host nor port.
        let mut message = Message::new(Vec::with_capacity(token.len() + 32));
        for part in ["n,,\x01auth=Bearer ", body, padding, "\x01\x01"] {
            message.extend_from_slice(part.as_bytes());
        }
        Ok(message)
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step, Refusal> {
        if let Some(refusal) = self.refusal.take() {
            return Err(Refusal::Refused(refusal));
        }
        if challenge.is_empty() {
            return Ok(Step::Done);
        }
        // RFC 7628, section 3.2.3: the refusal is a challenge of JSON, a lone 0x01 acknowledges it, and only then the
        // exchange fails.
        let status = serde_json::from_slice::<serde_json::Value>(challenge).ok();
        let status = status.as_ref().and_then(|answer| answer.get("status")?.as_str());
        self.refusal = Some(words(status.unwrap_or("without a status")));
        Ok(Step::Send(Message::new(vec![1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(token: &str) -> OAuthBearer {
        OAuthBearer::new(BearerToken { token: Secret::new(token) })
    }

    #[test]
    fn the_token_is_framed_as_the_rfc_says() {
        // RFC 7628, section 4.1, without authorization identity, host and port.
        let mut exchange = exchange("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        assert_eq!(
            exchange.first().expect("sendable").as_slice(),
            b"n,,\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
        );
        assert_eq!(exchange.step(b""), Ok(Step::Done));
    }

    #[test]
    fn a_token_cannot_break_out_of_its_frame() {
        for wrong in ["", "=", "a b", "a\x01auth=Bearer b", "a,b", "a=b", "a\n"] {
            assert!(matches!(exchange(wrong).first(), Err(Refusal::Unfit(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_is_acknowledged_and_then_told() {
        for (challenge, status) in
            [(&br#"{"status":"invalid_token"}"#[..], "invalid_token"), (b"{", "without a status")]
        {
            let mut exchange = exchange("abc");
            assert_eq!(exchange.step(challenge), Ok(Step::Send(Message::new(vec![1]))));
            assert_eq!(exchange.step(b""), Err(Refusal::Refused(status.to_owned())), "not a login");
        }
    }
}
