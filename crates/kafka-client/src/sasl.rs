//! Logging in to brokers by SASL: who we are, and how that is shown.
//!
//! ```text
//!   Credentials<T> ──T──▶ Sasl::begin() ──▶ Mechanism ──bytes──▶ SaslAuthenticate
//!   file, token server,   asked anew for    pure: bytes in,  ◀── challenge
//!   AWS's chain           every login       bytes out
//! ```
//!
//! A mechanism is one exchange: a state machine without I/O, clock or retry. The connection moves its bytes, at
//! the start and again before the session ends (KIP-368). [`Credentials`] is the one place where secrets come from; it is
//! asked at every login, so that a password that was changed or a token that has expired is replaced without a
//! restart.
//!
//! Secrets are wiped when they are dropped, and appear in no `Debug` output and no error. The bytes that go onto the
//! wire are wiped, too; what a TLS library or the kernel copies is theirs.

mod aws_msk_iam;
mod oauthbearer;
mod plain;
mod scram;

pub use aws_msk_iam::AwsCredentials;
pub use oauthbearer::BearerToken;
pub use scram::ScramHash;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};
use zeroize::Zeroizing;

/// How a connection logs in.
#[derive(Debug, Clone)]
pub enum Sasl {
    /// Name and password as they are (RFC 4616): over TLS only, unless the network is trusted.
    Plain(Arc<dyn Credentials<Login>>),
    /// Proofs of the password on both sides (RFC 5802); 256 or 512 bits.
    Scram(ScramHash, Arc<dyn Credentials<Login>>),
    /// A token that somebody else issued (RFC 7628, KIP-255).
    OAuthBearer(Arc<dyn Credentials<BearerToken>>),
    /// A request signed with AWS credentials, as MSK's IAM listeners want it.
    AwsMskIam {
        /// The region of the cluster. Not guessed from host names: a cluster may have names of its own.
        region: Arc<str>,
        /// Who signs.
        credentials: Arc<dyn Credentials<AwsCredentials>>,
    },
}

impl Sasl {
    /// The mechanism's name on the wire.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(hash, _) => hash.mechanism(),
            Self::OAuthBearer(_) => "OAUTHBEARER",
            Self::AwsMskIam { .. } => "AWS_MSK_IAM",
        }
    }

    /// Asks for the credentials and begins an exchange with the broker that was dialled as `host`. `now`: what
    /// signatures are dated with.
    ///
    /// # Cancel safety
    ///
    /// As safe as the credentials' source.
    pub(crate) async fn begin(&self, host: &str, now: SystemTime) -> Result<Box<dyn Mechanism>, CredentialsError> {
        Ok(match self {
            Self::Plain(credentials) => Box::new(plain::Plain::new(credentials.credentials().await?)),
            Self::Scram(hash, credentials) => Box::new(scram::Scram::new(*hash, credentials.credentials().await?)?),
            Self::OAuthBearer(credentials) => Box::new(oauthbearer::OAuthBearer::new(credentials.credentials().await?)),
            Self::AwsMskIam { region, credentials } => {
                Box::new(aws_msk_iam::AwsMskIam::new(region, host, credentials.credentials().await?, now))
            }
        })
    }

    /// The broker refused what was shown to it.
    pub(crate) fn refused(&self) {
        match self {
            Self::Plain(credentials) | Self::Scram(_, credentials) => credentials.refused(),
            Self::OAuthBearer(credentials) => credentials.refused(),
            Self::AwsMskIam { credentials, .. } => credentials.refused(),
        }
    }
}

/// What [`Credentials::credentials`] returns.
pub type Obtaining<'a, T> = Pin<Box<dyn Future<Output = Result<T, CredentialsError>> + Send + 'a>>;

/// Where credentials come from. Asked once for every login, of which there is one a connection and one before the end of
/// each session.
pub trait Credentials<T>: Send + Sync + fmt::Debug {
    /// Credentials that are good now. A source that holds some (a token) may hand them out again until shortly before
    /// they expire.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt; the next one begins anew.
    fn credentials(&self) -> Obtaining<'_, T>;

    /// A broker refused the last ones: what is held must not be handed out again. Nothing to do for a source that holds
    /// nothing.
    fn refused(&self) {}
}

/// Credentials that never change, for tests and for who keeps them elsewhere.
#[derive(Debug, Clone)]
pub struct Fixed<T>(pub T);

impl<T: Clone + Send + Sync + fmt::Debug> Credentials<T> for Fixed<T> {
    fn credentials(&self) -> Obtaining<'_, T> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// Why there are no credentials. Holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(pub Arc<str>);

impl From<String> for CredentialsError {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

impl From<&str> for CredentialsError {
    fn from(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// A text that nobody may see: wiped when it is dropped, hidden from `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over, without copying it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A user's name and password. Both are used as they are, in UTF-8: Kafka does not prepare them as RFC 4013 (SASLprep)
/// says either, so a text that its normal form would change must be written the same way on both sides.
#[derive(Debug, Clone)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Bytes for the wire.
pub(crate) type Message = Zeroizing<Vec<u8>>;

/// One exchange, from the first message to its end.
pub(crate) trait Mechanism: Send {
    /// The client's first message. Called once, before `step`.
    fn first(&mut self) -> Result<Message, Refusal>;

    /// Takes a challenge of the broker. May take milliseconds of CPU (SCRAM).
    fn step(&mut self, challenge: &[u8]) -> Result<Step, Refusal>;
}

/// What follows a challenge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This message, and another challenge.
    Send(Message),
    /// Nothing: the broker knows us and, where the mechanism has it, has shown who it is.
    Done,
}

/// Why an exchange ends without a login. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The credentials cannot be sent by this mechanism.
    #[error("{0}")]
    Unfit(&'static str),
    /// The broker's message is not one of the mechanism, or proves that it does not know the password.
    #[error("{0}")]
    Peer(&'static str),
    /// The broker says no.
    #[error("the broker refuses: {0}")]
    Refused(String),
}

/// A peer's words for a log line: bounded, and without control characters.
pub(crate) fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_secret_is_shown() {
        let login = Login { username: "u".to_owned(), password: Secret::new("hunter2") };
        let aws = AwsCredentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: Secret::new("hunter2"),
            session_token: Some(Secret::new("hunter2")),
        };
        let token = BearerToken { token: Secret::new("hunter2") };
        let all = [
            Sasl::Plain(Arc::new(Fixed(login.clone()))),
            Sasl::Scram(ScramHash::Sha512, Arc::new(Fixed(login))),
            Sasl::OAuthBearer(Arc::new(Fixed(token))),
            Sasl::AwsMskIam { region: "eu-west-1".into(), credentials: Arc::new(Fixed(aws)) },
        ];
        for sasl in all {
            let shown = format!("{sasl:?}");
            assert!(shown.contains("[secret]") && !shown.contains("hunter2"), "{shown}");
            let mut mechanism = sasl.begin("b-1", SystemTime::UNIX_EPOCH).await.expect("fixed");
            let message = mechanism.first().expect("a message");
            let request = crate::messages::SaslAuthenticateRequest { message: message.to_vec().into() };
            assert!(!format!("{request:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_peer_s_words_are_bounded_and_printable() {
        assert_eq!(words("no\u{1b}[31m\r\n way"), "no[31m way");
        assert_eq!(words(&"é".repeat(1000)).chars().count(), 200);
    }
}
