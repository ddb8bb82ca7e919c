//! Logins and their renewal.

use super::{super::login::Exchange, *};
use crate::sasl::{self, Credentials, CredentialsError, Fixed, Obtaining, Sasl, Secret};
use std::sync::atomic::AtomicBool;
use tokio::time::advance;

const SASL_APIS: [(i16, i16, i16); 4] = [(0, 0, 7), (22, 0, 1), (17, 0, 1), (36, 0, 1)];
const LIFETIME: Duration = Duration::from_secs(100);
/// Before the earliest moment at which a session of `LIFETIME` is renewed.
const NOT_DUE: Duration = Duration::from_secs(84);
/// From there to after the latest such moment, and still before the end.
const TO_DUE: Duration = Duration::from_secs(12);

fn user() -> sasl::Login {
    sasl::Login { username: "u".to_owned(), password: Secret::new("p") }
}

fn plain() -> Sasl {
    Sasl::Plain(Arc::new(Fixed(user())))
}

async fn exchange(sasl: Sasl) -> Exchange {
    let login = Login { sasl: Arc::new(sasl), host: "b-1".into(), limit: Duration::from_secs(30) };
    login.begin().await.expect("credentials")
}

/// SaslAuthenticate, version 1.
fn authenticated(error: i16, message: Option<&str>, lifetime: Duration) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_i16(error);
    body.put_i16(message.map_or(-1, |message| message.len() as i16));
    body.put_slice(message.unwrap_or("").as_bytes());
    body.put_i32(0);
    body.put_i64(lifetime.as_millis() as i64);
    body.to_vec()
}

/// SaslHandshake, version 1: an error and PLAIN.
fn handshaken(error: i16) -> Vec<u8> {
    [&error.to_be_bytes()[..], &1_i32.to_be_bytes(), &5_i16.to_be_bytes(), b"PLAIN"].concat()
}

impl Peer {
    /// Versions, then a login by PLAIN that lasts for `lifetime`.
    async fn let_in(&mut self, lifetime: Duration) {
        let seen = self.read().await;
        self.answer(seen.id, &api_versions(3, 0, &SASL_APIS)).await;
        self.shake_hands().await;
        self.authenticate(lifetime).await;
    }

    async fn shake_hands(&mut self) {
        let seen = self.read().await;
        assert_eq!((seen.key, seen.version), (17, 1));
        assert!(seen.rest.ends_with(b"PLAIN"));
        self.answer(seen.id, &handshaken(0)).await;
    }

    async fn authenticate(&mut self, lifetime: Duration) {
        let seen = self.read().await;
        assert_eq!((seen.key, seen.version), (36, 1));
        assert!(seen.rest.ends_with(b"\0u\0p"));
        self.answer(seen.id, &authenticated(0, None, lifetime)).await;
    }

    async fn read_produce(&mut self) -> i32 {
        let seen = self.read().await;
        assert_eq!(seen.key, 0);
        seen.id
    }
}

async fn logged_in(sasl: Sasl, lifetime: Duration) -> (Connection, Peer) {
    let (ours, theirs) = duplex(1 << 20);
    let mut peer = Peer(theirs);
    let letting_in = tokio::spawn(async move {
        peer.let_in(lifetime).await;
        peer
    });
    let connection = Connection::open(Box::new(ours), settings(), Some(exchange(sasl).await)).await;
    (connection.expect("a connection"), letting_in.await.expect("the peer"))
}

fn renewals(connection: &Connection) -> u64 {
    connection.channel.shared.settings.traffic.renewals.load(Relaxed)
}

#[tokio::test]
async fn a_login_comes_before_any_request() {
    let (connection, mut peer) = logged_in(plain(), Duration::ZERO).await;
    let pending = connection.produce(request(10));
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
}

/// Opens a connection to a peer that ends the login with `answers`, and returns why there is none.
async fn refused(sasl: Sasl, answers: Vec<Vec<u8>>) -> String {
    let (ours, theirs) = duplex(1 << 20);
    let mut peer = Peer(theirs);
    let refusing = tokio::spawn(async move {
        let seen = peer.read().await;
        peer.answer(seen.id, &api_versions(3, 0, &SASL_APIS)).await;
        for answer in answers {
            let seen = peer.read().await;
            peer.answer(seen.id, &answer).await;
        }
        assert!(peer.try_read().await.is_none(), "nothing is sent to a broker that refuses");
    });
    let result = Connection::open(Box::new(ours), settings(), Some(exchange(sasl).await)).await;
    let error = result.expect_err("refused");
    assert!(matches!(error, Error::Authentication { .. }) && !error.maybe_sent() && error.is_retriable());
    refusing.await.expect("the peer");
    error.to_string()
}

/// Remembers that it was refused; may be told to have nothing.
#[derive(Debug, Default)]
struct Source {
    refused: AtomicBool,
    empty: AtomicBool,
}

impl Credentials<sasl::Login> for Arc<Source> {
    fn credentials(&self) -> Obtaining<'_, sasl::Login> {
        Box::pin(std::future::ready(match self.empty.load(Relaxed) {
            true => Err(CredentialsError::from("the file is gone")),
            false => Ok(user()),
        }))
    }

    fn refused(&self) {
        self.refused.store(true, Relaxed);
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_in_the_broker_s_words_and_to_their_source() {
    let source = Arc::new(Source::default());
    let sasl = Sasl::Plain(Arc::new(source.clone()));
    let error = refused(sasl, vec![handshaken(0), authenticated(58, Some("bad\u{7}user"), Duration::ZERO)]).await;
    assert_eq!(error, "cannot log in by PLAIN: SASL_AUTHENTICATION_FAILED (58): baduser");
    assert!(source.refused.load(Relaxed));
}

#[tokio::test]
async fn a_listener_without_the_mechanism_says_which_it_has() {
    let sasl = Sasl::Scram(sasl::ScramHash::Sha512, Arc::new(Fixed(user())));
    let error = refused(sasl, vec![handshaken(33)]).await;
    assert_eq!(error, "cannot log in by SCRAM-SHA-512: the listener has it not enabled, but PLAIN");
    let error = refused(plain(), vec![handshaken(34)]).await;
    assert!(error.contains("does not expect a login"), "{error}");
}

#[tokio::test]
async fn success_without_the_broker_s_proof_is_none() {
    let sasl = Sasl::Scram(sasl::ScramHash::Sha256, Arc::new(Fixed(user())));
    let error = refused(sasl, vec![handshaken(0), authenticated(0, None, Duration::ZERO)]).await;
    assert!(error.contains("malformed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_in_place_and_requests_wait_for_it() {
    let (connection, mut peer) = logged_in(plain(), LIFETIME).await;
    for round in 1..4 {
        advance(NOT_DUE).await;
        let before = connection.produce(request(10));
        let before_id = peer.read_produce().await;
        advance(TO_DUE).await;
        let first = connection.produce(request(20));
        // In front of the request that made it necessary; the one before is still unanswered.
        let seen = peer.read().await;
        assert_eq!(seen.key, 17);
        let second = connection.produce(request(30));
        peer.answer(before_id, &produced(0)).await;
        before.await.expect("an answer");
        peer.answer(seen.id, &handshaken(0)).await;
        peer.authenticate(LIFETIME).await;
        for bytes in [20, 30] {
            let seen = peer.read().await;
            assert!(seen.key == 0 && seen.rest.ends_with(&vec![7; bytes]), "in their order");
            peer.answer(seen.id, &produced(0)).await;
        }
        first.await.expect("an answer");
        second.await.expect("an answer");
        assert_eq!(renewals(&connection), round);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_renewed_before_85_percent_of_it() {
    let (connection, mut peer) = logged_in(plain(), LIFETIME).await;
    advance(NOT_DUE).await;
    let pending = connection.produce(request(10));
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
    assert_eq!(renewals(&connection), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_logs_in_with_its_next_request_even_after_the_session_s_end() {
    let (connection, mut peer) = logged_in(plain(), LIFETIME).await;
    advance(2 * LIFETIME).await;
    // Had it logged in by itself, this would come second.
    let pending = connection.produce(request(10));
    peer.shake_hands().await;
    peer.authenticate(Duration::ZERO).await;
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
    // The new session has no end.
    advance(3 * LIFETIME).await;
    let pending = connection.produce(request(10));
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_loses_no_request() {
    let (connection, mut peer) = logged_in(plain(), LIFETIME).await;
    advance(NOT_DUE).await;
    let before = connection.produce(request(10));
    let before_id = peer.read_produce().await;
    advance(TO_DUE).await;
    let waiting = connection.produce(request(20));
    let seen = peer.read().await;
    peer.answer(before_id, &produced(0)).await;
    peer.answer(seen.id, &handshaken(0)).await;
    let seen = peer.read().await;
    peer.answer(seen.id, &authenticated(58, Some("Cannot change principals"), Duration::ZERO)).await;
    before.await.expect("sent before, answered before");
    assert_disconnected(waiting.await, false);
    assert!(connection.is_closed(), "the next one goes to a new connection");
}

#[tokio::test(start_paused = true)]
async fn without_credentials_a_session_goes_on_to_its_end_and_no_further() {
    let source = Arc::new(Source::default());
    let (connection, mut peer) = logged_in(Sasl::Plain(Arc::new(source.clone())), LIFETIME).await;
    source.empty.store(true, Relaxed);
    advance(NOT_DUE + TO_DUE).await;
    let pending = connection.produce(request(10));
    let id = peer.read_produce().await;
    // Not answered before the end.
    advance(LIFETIME - NOT_DUE - TO_DUE).await;
    assert_disconnected(connection.produce(request(20)).await, false);
    assert!(connection.is_closed());
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer to what was sent in time");
    assert!(peer.try_read().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_back_are_used() {
    let source = Arc::new(Source::default());
    let (connection, mut peer) = logged_in(Sasl::Plain(Arc::new(source.clone())), 2 * LIFETIME).await;
    source.empty.store(true, Relaxed);
    advance(2 * (NOT_DUE + TO_DUE)).await;
    let pending = connection.produce(request(10));
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
    source.empty.store(false, Relaxed);
    advance(Duration::from_secs(6)).await;
    let pending = connection.produce(request(20));
    peer.shake_hands().await;
    peer.authenticate(LIFETIME).await;
    let id = peer.read_produce().await;
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
    assert_eq!(renewals(&connection), 1);
}
