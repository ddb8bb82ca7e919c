//! Logging in by SASL, and doing it again in place before the session ends (KIP-368).
//!
//! A broker that bounds sessions says with each login for how long it is good, and closes a connection that sends
//! anything but a new login after that. So the driver holds a [`Renewal`] that becomes due somewhere between 85 and 95 %
//! of the session (each connection elsewhere, so that a fleet's connections do not log in together), and acts on it with
//! the first request that comes after: a connection that nobody uses does not log in.
//!
//! ```text
//!             due, a request waits            credentials are here           lifetime of the new session
//!   [Idle] ────────────────────────▶ [Preparing] ────────────────▶ [Exchanging] ────────────────────────▶ [Idle]
//!             requests go on: a token server may take its time │     requests wait for two or three round trips
//! ```
//!
//! The exchange is in order with everything else: requests that were sent before are answered before, those that come
//! meanwhile wait unsent. So nothing is lost if it fails: the connection ends, what waits goes to a new one.

use super::{Channel, Outgoing, Queued};
use crate::{
    Error, ErrorCode,
    messages::{ApiVersionsResponse, Request, SaslAuthenticateRequest, SaslHandshakeRequest},
    sasl::{CredentialsError, Mechanism, Message, Refusal, Sasl, Step, words},
};
use bytes::Bytes;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout},
};

/// The most messages of one exchange; SCRAM, the longest, has two.
const MAX_ROUNDS: usize = 8;
/// How long before its end a session is renewed at the latest, if that is not more than half of it: room for requests
/// that the broker still works on when the new login begins to wait behind them.
const MARGIN: Duration = Duration::from_secs(5);
/// The pause after credentials could not be had for a session that still goes on.
const RETRY: Duration = Duration::from_secs(5);

/// How connections to one address log in.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) sasl: Arc<Sasl>,
    /// As it was dialled: AWS's signatures name it.
    pub(crate) host: Arc<str>,
    /// For the credentials.
    pub(crate) limit: Duration,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("mechanism", &self.sasl.mechanism()).finish_non_exhaustive()
    }
}

impl Login {
    /// The credentials, ready to be shown.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn begin(self) -> Result<Exchange, Error> {
        match timeout(self.limit, self.sasl.begin(&self.host, SystemTime::now())).await {
            Ok(Ok(mechanism)) => Ok(Exchange { login: self, mechanism }),
            Ok(Err(CredentialsError(reason))) => Err(self.error(reason)),
            Err(_) => Err(self.error(format!("no credentials within {:?}", self.limit))),
        }
    }

    fn error(&self, reason: impl Into<Arc<str>>) -> Error {
        Error::Authentication { mechanism: self.sasl.mechanism(), reason: reason.into() }
    }
}

/// A login about to begin.
pub(crate) struct Exchange {
    login: Login,
    mechanism: Box<dyn Mechanism>,
}

impl Exchange {
    /// Whose it is, to do it again.
    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// Moves the mechanism's messages over `channel`. Returns for how long the login is good; `None`: as long as the
    /// connection.
    ///
    /// # Cancel safety
    ///
    /// A login that is given up halfway leaves the connection of no use.
    pub(super) async fn run(self, channel: Channel, versions: &ApiVersionsResponse) -> Result<Option<Duration>, Error> {
        let Self { login, mut mechanism } = self;
        let limit = channel.shared.settings.request_timeout;
        let (Some(handshake), Some(version)) =
            (versions.agree(&SaslHandshakeRequest::API), versions.agree(&SaslAuthenticateRequest::API))
        else {
            return Err(login.error("the broker does not speak SaslAuthenticate: it is older than 1.0, or has no SASL"));
        };
        let request = SaslHandshakeRequest { mechanism: login.sasl.mechanism() };
        let answer = channel.send(&request, handshake, limit).await?;
        match answer.error {
            ErrorCode::NONE => {}
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let enabled = answer.mechanisms.join(", ");
                return Err(login.error(format!("the listener has it not enabled, but {}", words(&enabled))));
            }
            ErrorCode::ILLEGAL_SASL_STATE => return Err(login.error("the listener does not expect a login")),
            code => return Err(login.error(code.to_string())),
        }
        let refused = |refusal: Refusal| {
            if let Refusal::Refused(_) = refusal {
                login.sasl.refused();
            }
            login.error(refusal.to_string())
        };
        let mut message = mechanism.first().map_err(refused)?;
        for _ in 0..MAX_ROUNDS {
            let answer = channel.send(&SaslAuthenticateRequest { message: wiped(message) }, version, limit).await?;
            if let Err(code) = answer.error.ok() {
                login.sasl.refused();
                return Err(login.error(match answer.message {
                    Some(message) => format!("{code}: {}", words(&message)),
                    None => code.to_string(),
                }));
            }
            // SCRAM's hashing takes milliseconds, and this may be a thread that serves.
            let stepping = spawn_blocking(move || {
                let step = mechanism.step(&answer.challenge);
                (mechanism, step)
            });
            let step;
            (mechanism, step) = stepping.await.map_err(|_| Error::ShutDown)?;
            match step.map_err(refused)? {
                Step::Done => return Ok(answer.session_lifetime),
                Step::Send(next) => message = next,
            }
        }
        Err(login.error("the broker finds no end"))
    }
}

/// Bytes that are wiped with their last reference, and are never copied on the way to the socket.
fn wiped(message: Message) -> Bytes {
    Bytes::from_owner(message)
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// When and how a connection's session is renewed.
pub(super) struct Renewal {
    login: Login,
    versions: Arc<ApiVersionsResponse>,
    due: Instant,
    /// From here on the broker takes nothing but a login.
    end: Instant,
    state: State,
}

enum State {
    Idle,
    Preparing(Running<Exchange>),
    /// What the exchange wants sent comes out of the queue.
    Exchanging {
        exchange: Running<Option<Duration>>,
        frames: mpsc::UnboundedReceiver<Queued>,
    },
}

/// What the driver has to do.
pub(super) enum Renewed {
    /// Write this frame before any request that has not begun.
    Frame(Outgoing),
    /// Nothing: there is a new session.
    Again,
    /// Nothing bounds the session any more.
    Unbounded,
    /// The session is as good as over and there are no credentials for another one: answers may still come, nothing may
    /// be sent.
    Expired(Error),
    /// The broker did not let us in again.
    Failed(Error),
}

impl Renewal {
    /// For a session that began now. `login` and `versions` are those of the first login.
    pub(super) fn new(login: Login, versions: Arc<ApiVersionsResponse>, lifetime: Duration) -> Self {
        let now = Instant::now();
        let mut renewal = Self { login, versions, due: now, end: now, state: State::Idle };
        renewal.begin(now, lifetime);
        renewal
    }

    fn begin(&mut self, now: Instant, lifetime: Duration) {
        // Bounded, so that no peer's number overflows the clock: nothing lives for a year.
        let lifetime = lifetime.min(Duration::from_hours(24 * 365));
        let part = lifetime.mul_f64(0.85 + 0.1 * fastrand::f64());
        self.due = now + part.min(lifetime.saturating_sub(MARGIN.min(lifetime / 2)));
        self.end = now + lifetime;
        self.state = State::Idle;
    }

    /// Whether requests must wait.
    pub(super) fn holds_requests(&self) -> bool {
        matches!(self.state, State::Exchanging { .. }) || Instant::now() >= self.end
    }

    /// Goes on. `wanted`: whether a request waits to be written. `channel` makes the exchange's way to the driver out of a
    /// queue. Pending: nothing to do now; `cx` is woken for the rest.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wanted: bool,
        channel: impl Fn(mpsc::UnboundedSender<Queued>) -> Channel,
    ) -> Poll<Renewed> {
        loop {
            match &mut self.state {
                State::Idle => {
                    if !wanted || Instant::now() < self.due {
                        return Poll::Pending;
                    }
                    self.state = State::Preparing(Box::pin(self.login.clone().begin()));
                }
                State::Preparing(preparing) => match std::task::ready!(preparing.as_mut().poll(cx)) {
                    Ok(exchange) => {
                        let (queue, frames) = mpsc::unbounded_channel();
                        let (channel, versions) = (channel(queue), self.versions.clone());
                        let exchange = Box::pin(async move { exchange.run(channel, &versions).await });
                        self.state = State::Exchanging { exchange, frames };
                    }
                    Err(error) => {
                        let now = Instant::now();
                        if now >= self.end {
                            return Poll::Ready(Renewed::Expired(error));
                        }
                        tracing::warn!(%error, "no credentials to log in again with; the session goes on for now");
                        self.due = (now + RETRY).min(self.end);
                        self.state = State::Idle;
                    }
                },
                State::Exchanging { exchange, frames } => {
                    let done = exchange.as_mut().poll(cx);
                    if let Poll::Ready(Some(Queued::Request(frame))) = frames.poll_recv(cx) {
                        return Poll::Ready(Renewed::Frame(frame));
                    }
                    match std::task::ready!(done) {
                        Ok(Some(lifetime)) => {
                            self.begin(Instant::now(), lifetime);
                            return Poll::Ready(Renewed::Again);
                        }
                        Ok(None) => return Poll::Ready(Renewed::Unbounded),
                        Err(error) => return Poll::Ready(Renewed::Failed(error)),
                    }
                }
            }
        }
    }
}
