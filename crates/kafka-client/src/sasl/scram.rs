//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677; KIP-84): both sides prove that they know the password.
//!
//! ```text
//!   client-first   n,,n=user,r=NONCE
//!   server-first                       r=NONCEnonce,s=SALT,i=4096
//!   client-final   c=biws,r=NONCEnonce,p=PROOF
//!   server-final                       v=SIGNATURE
//! ```
//!
//! No channel binding: Kafka has none. What is checked, because a server that does not know the password may be on the
//! other side: its nonce extends ours (or the message is a repeated one), its iteration count is one that Kafka
//! allows (too few make the proof cheap to break, too many are CPU that anybody could make us burn), and its
//! signature is right, compared in constant time.

use super::{CredentialsError, Login, Mechanism, Message, Refusal, Secret, Step, words};
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// RFC 7677, section 4, and Kafka's own lower bound.
const MIN_ITERATIONS: u32 = 4096;
/// Four times what Kafka lets a password be stored with (16,384): about 30 ms of one core.
const MAX_ITERATIONS: u32 = 65_536;
/// The GS2 header: no channel binding, no authorization identity.
const GS2_HEADER: &str = "n,,";
/// The same in Base64.
const CHANNEL_BINDING: &str = "c=biws";

/// The hash that SCRAM is run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512: the one of Amazon MSK.
    Sha512,
}

impl ScramHash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// The exchange.
pub(super) struct Scram {
    hash: ScramHash,
    password: Secret,
    /// client-first without the GS2 header.
    first_bare: String,
    nonce: String,
    state: State,
}

/// What is awaited.
enum State {
    ServerFirst,
    /// With the signature that it must carry.
    ServerFinal(hmac::Tag),
    Over,
}

impl Scram {
    pub(super) fn new(hash: ScramHash, login: Login) -> Result<Self, CredentialsError> {
        let mut random = [0; 24];
        rand::fill(&mut random).map_err(|_| CredentialsError::from("no random bytes for a nonce"))?;
        Ok(Self::with_nonce(hash, login, BASE64.encode(random)))
    }

    fn with_nonce(hash: ScramHash, login: Login, nonce: String) -> Self {
        // `=` first, or it would be escaped twice.
        let name = login.username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        Self { hash, password: login.password, first_bare, nonce, state: State::ServerFirst }
    }

    /// client-final, and the signature to come.
    fn prove(&self, server_first: &str) -> Result<(Message, hmac::Tag), Refusal> {
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(server_first)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(Refusal::Peer("the broker's nonce does not extend ours"));
        }
        let length = self.hash.digest().output_len();
        let mut salted = Zeroizing::new(vec![0; length]);
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &salt, self.password.reveal().as_bytes(), &mut salted);
        let key = hmac::Key::new(self.hash.hmac(), &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());

        let without_proof = format!("{CHANNEL_BINDING},r={nonce}");
        let authentication = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_signature =
            hmac::sign(&hmac::Key::new(self.hash.hmac(), stored_key.as_ref()), authentication.as_bytes());
        let proof: Zeroizing<Vec<u8>> = Zeroizing::new(
            client_key.as_ref().iter().zip(client_signature.as_ref()).map(|(key, signature)| key ^ signature).collect(),
        );
        let server_key = hmac::sign(&key, b"Server Key");
        let signature = hmac::sign(&hmac::Key::new(self.hash.hmac(), server_key.as_ref()), authentication.as_bytes());
        let message = format!("{without_proof},p={}", BASE64.encode(&proof));
        Ok((Message::new(message.into_bytes()), signature))
    }
}

impl Mechanism for Scram {
    fn first(&mut self) -> Result<Message, Refusal> {
        if self.first_bare.starts_with("n=,") || self.password.reveal().is_empty() {
            return Err(Refusal::Unfit("SCRAM needs a name and a password"));
        }
        if self.first_bare.contains('\0') {
            return Err(Refusal::Unfit("SCRAM has no way to send a name that holds a NUL"));
        }
        Ok(Message::new(format!("{GS2_HEADER}{}", self.first_bare).into_bytes()))
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step, Refusal> {
        let challenge =
            std::str::from_utf8(challenge).map_err(|_| Refusal::Peer("a SCRAM message that is not UTF-8"))?;
        match std::mem::replace(&mut self.state, State::Over) {
            State::ServerFirst => {
                let (message, signature) = self.prove(challenge)?;
                self.state = State::ServerFinal(signature);
                Ok(Step::Send(message))
            }
            State::ServerFinal(expected) => {
                let mut attributes = challenge.split(',');
                let verifier = match attributes.next().and_then(|first| first.split_once('=')) {
                    Some(("v", verifier)) => BASE64.decode(verifier).ok(),
                    Some(("e", error)) => return Err(Refusal::Refused(words(error))),
                    _ => None,
                };
                let verifier = verifier.ok_or(Refusal::Peer("the broker's last SCRAM message has no signature"))?;
                constant_time::verify_slices_are_equal(&verifier, expected.as_ref())
                    .map_err(|_| Refusal::Peer("the broker's signature is wrong: it does not know the password"))?;
                Ok(Step::Done)
            }
            State::Over => Err(Refusal::Peer("a SCRAM message after the last one")),
        }
    }
}

/// The broker's first message, its bounds checked.
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a str) -> Result<Self, Refusal> {
        let malformed = Refusal::Peer("the broker's first SCRAM message is malformed");
        let mut attributes = message.split(',');
        let mut attribute = |name: &str| {
            // In this order (RFC 5802, section 7); what follows the three are extensions that nobody has to know. One that
            // must be known (`m=`) would come first.
            attributes.next().and_then(|attribute| attribute.split_once('=')).filter(|(found, _)| *found == name)
        };
        let (Some((_, nonce)), Some((_, salt)), Some((_, iterations))) =
            (attribute("r"), attribute("s"), attribute("i"))
        else {
            if let Some(error) = message.strip_prefix("e=") {
                return Err(Refusal::Refused(words(error)));
            }
            return Err(malformed);
        };
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty()).ok_or(malformed.clone())?;
        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed);
        }
        let iterations = iterations.parse::<u32>().ok();
        if iterations.is_some_and(|count| count < MIN_ITERATIONS) {
            return Err(Refusal::Peer("the broker asks for fewer than 4096 SCRAM iterations"));
        }
        let iterations = iterations.filter(|count| *count <= MAX_ITERATIONS).and_then(NonZeroU32::new);
        let iterations = iterations.ok_or(Refusal::Peer("the broker asks for more than 65536 SCRAM iterations"))?;
        Ok(Self { nonce, salt, iterations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scram(hash: ScramHash, username: &str, nonce: &str) -> Scram {
        let login = Login { username: username.to_owned(), password: Secret::new("pencil") };
        Scram::with_nonce(hash, login, nonce.to_owned())
    }

    /// RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn sent(message: &[u8]) -> &str {
        std::str::from_utf8(message).expect("text")
    }

    #[test]
    fn sha_256_agrees_with_the_rfc_s_example() {
        let mut exchange = scram(ScramHash::Sha256, "user", NONCE);
        assert_eq!(sent(&exchange.first().expect("sendable")), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let Ok(Step::Send(message)) = exchange.step(SERVER_FIRST.as_bytes()) else { panic!("a proof") };
        assert_eq!(
            sent(&message),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(exchange.step(SERVER_FINAL.as_bytes()), Ok(Step::Done));
        assert!(exchange.step(SERVER_FINAL.as_bytes()).is_err(), "once is enough");
    }

    /// The other side, written down from RFC 5802, section 3, as a server with the password stored would do it.
    fn server_final(hash: ScramHash, first_bare: &str, server_first: &str, client_final: &str) -> Option<String> {
        let parsed = ServerFirst::parse(server_first).ok()?;
        let mut salted = vec![0; hash.digest().output_len()];
        pbkdf2::derive(hash.pbkdf2(), parsed.iterations, &parsed.salt, b"pencil", &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hash.hmac(), key), text);
        let stored = digest::digest(hash.digest(), sign(&salted, b"Client Key").as_ref());
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        let message = format!("{first_bare},{server_first},{without_proof}");
        let signature = sign(stored.as_ref(), message.as_bytes());
        let key: Vec<u8> =
            BASE64.decode(proof).ok()?.iter().zip(signature.as_ref()).map(|(proof, sign)| proof ^ sign).collect();
        let known = digest::digest(hash.digest(), &key).as_ref() == stored.as_ref();
        let signature = sign(sign(&salted, b"Server Key").as_ref(), message.as_bytes());
        known.then(|| format!("v={}", BASE64.encode(signature.as_ref())))
    }

    #[test]
    fn sha_512_convinces_a_server_and_is_convinced() {
        let mut exchange = scram(ScramHash::Sha512, "user", "abc");
        let first = exchange.first().expect("sendable");
        let server_first = "r=abcdef,s=QSXCR+Q6sek8bf92,i=8192,x=an extension";
        let Ok(Step::Send(message)) = exchange.step(server_first.as_bytes()) else { panic!("a proof") };
        let answer = server_final(ScramHash::Sha512, &sent(&first)[3..], server_first, sent(&message));
        assert_eq!(exchange.step(answer.expect("convinced").as_bytes()), Ok(Step::Done));
    }

    #[test]
    fn names_are_escaped() {
        let mut exchange = scram(ScramHash::Sha256, "a=b,c", "n");
        assert_eq!(sent(&exchange.first().expect("sendable")), "n,,n=a=3Db=2Cc,r=n");
    }

    #[test]
    fn two_exchanges_have_two_nonces() {
        let login = Login { username: "u".to_owned(), password: Secret::new("p") };
        let nonce = || Scram::new(ScramHash::Sha256, login.clone()).expect("random bytes").nonce;
        let (one, other) = (nonce(), nonce());
        assert!(one != other && one.len() == 32 && !one.contains(','));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        for wrong in [
            "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A==",
            "v=",
            "v=!",
            "",
            "x=1",
        ] {
            let mut exchange = scram(ScramHash::Sha256, "user", NONCE);
            assert!(exchange.step(SERVER_FIRST.as_bytes()).is_ok());
            assert!(matches!(exchange.step(wrong.as_bytes()), Err(Refusal::Peer(_))), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_server_s_words() {
        let mut exchange = scram(ScramHash::Sha256, "user", NONCE);
        assert!(exchange.step(SERVER_FIRST.as_bytes()).is_ok());
        assert_eq!(exchange.step(b"e=invalid-proof"), Err(Refusal::Refused("invalid-proof".to_owned())));
    }

    #[test]
    fn first_messages_outside_the_rules_are_refused() {
        let long = "i=99999999999999999999";
        for wrong in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=somebody's,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=65537",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=+4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==",
            "m=must,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "s=W22ZaJ0SNY7soEsUEjb6gQ==,r=rOprNGfwEbeRWgbNEkqOx,i=4096",
            &format!("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,{long}"),
        ] {
            let mut exchange = scram(ScramHash::Sha256, "user", NONCE);
            assert!(matches!(exchange.step(wrong.as_bytes()), Err(Refusal::Peer(_))), "{wrong}");
        }
        assert!(matches!(scram(ScramHash::Sha256, "u", NONCE).step(&[0xff]), Err(Refusal::Peer(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn no_challenge_panics(challenges in proptest::collection::vec("[rsivem=,0-9a-zA-Z/+]{0,40}", 1..3)) {
            let mut exchange = scram(ScramHash::Sha256, "user", "");
            for challenge in challenges {
                let _ = exchange.step(challenge.as_bytes());
            }
        }
    }
}
