//! Requests between the bridges of a fleet.
//!
//! A consumer instance lives in one bridge, and a balancer sends its requests to any. The bridge that gets one for an
//! instance of another hands it on:
//!
//! ```text
//!   client ──▶ balancer ──▶ bridge A ── POST /forward, sealed ──▶ bridge B: has the instance
//!                              ◀────────── its answer ────────────
//! ```
//!
//! Who has an instance is written in the id that its creation answers, as a signed mark. A client that goes by the name
//! that it chose itself writes none: then the bridges under `fleet.peers` are asked, all at once, and the one that has it
//! is remembered.
//!
//! A member of a group that a client's stream is lives in one bridge, too, and Kafka takes offsets from it alone. So offsets
//! that are to be committed and are no member's here are shown to all peers, and whoever has the member commits them.
//!
//! The fleet's listener is not for clients. What arrives there is answered only if it is sealed by a secret of the fleet
//! ([`signature`]); it carries its caller along and is checked against the same rules as on the data listener. A
//! request is handed on once at most: what came from the fleet is answered here, or not at all.

mod signature;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use kafka_client::GroupOffset;
use produce_pipeline::Charge;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Context;
use super::access::Grant;
use super::caller::Caller;
use super::confluent::error::no_instance;
use super::confluent::v2::{self, Asked, Call};
use super::content_encoding::ContentEncoding;
use super::error::ApiError;
use super::groups;
use super::respond::{self, Response};
use super::whole_body::WholeBody;
use crate::client::{Connection, Endpoint, RequestBody, Trust};
use crate::config;
use crate::http1::{BadHead, Body, ResponseBody, Service};
use signature::{Keys, Nonces};

/// For a connection to another bridge, in the same network: one that does not answer then is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For the answer to the question whether a bridge has an instance.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// For a commit by another bridge, which waits for a rebalance to end, and for Kafka.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(45);
/// For an answer beyond the time that the request itself may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Idle connections that are kept to one bridge, a worker.
const KEPT_CONNECTIONS: usize = 8;
/// For how long, well within the time after which the other end closes an idle one.
const KEEP: Duration = Duration::from_secs(15);
/// Owners that are remembered, a worker.
const KNOWN_OWNERS: usize = 10_000;
/// The largest answer: records and what their JSON adds.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// The head of a request between bridges: an envelope has what a client's head says, in base64.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;

const ENVELOPE: HeaderName = HeaderName::from_static("penstock-envelope");
const SEAL: HeaderName = HeaderName::from_static("penstock-seal");
/// In every answer to a request that was believed. Without it, whoever answered has done nothing, or is no bridge.
const BELIEVED: HeaderName = HeaderName::from_static("penstock-believed");

/// This bridge's part in a fleet, shared by all workers.
pub(crate) struct Fleet {
    /// Where the others reach this bridge.
    advertised: String,
    /// As they are written, this bridge perhaps among them.
    peers: ArcSwap<Vec<String>>,
    secret_file: PathBuf,
    keys: ArcSwap<Keys>,
    seen: Nonces,
}

impl Fleet {
    /// `address` is where the fleet's listener is.
    pub(crate) fn new(config: &config::Fleet, address: SocketAddr) -> Self {
        let advertised = config.advertised.clone().unwrap_or_else(|| address.to_string());
        Self {
            advertised,
            peers: ArcSwap::from_pointee(config.peers.clone()),
            secret_file: config.secret_file.clone(),
            keys: ArcSwap::from_pointee(Keys::new(&config.secrets)),
            seen: Nonces::default(),
        }
    }

    /// Whoever is asked from now on.
    pub(crate) fn replace_peers(&self, peers: Vec<String>) {
        self.peers.store(Arc::new(peers));
    }

    /// Where the secrets are.
    pub(crate) fn secret_file(&self) -> &Path {
        &self.secret_file
    }

    /// Reads the secrets anew; those that cannot be used change nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(crate) fn reload_secret(&self) -> Result<(), String> {
        let secrets = config::Fleet::read_secrets(&self.secret_file)?;
        self.keys.store(Arc::new(Keys::new(&secrets)));
        Ok(())
    }

    /// What is written behind an instance's id so that any bridge finds its owner: this one.
    pub(crate) fn mark(&self, group: &str, instance: &str) -> String {
        self.keys.load().mark(&self.advertised, group, instance)
    }

    /// The owner in a mark.
    pub(crate) fn owner(&self, mark: &str, group: &str, instance: &str) -> Option<String> {
        self.keys.load().owner(mark, group, instance)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("advertised", &self.advertised)
            .field("peers", &self.peers.load())
            .finish_non_exhaustive()
    }
}

/// Everything of a request that is handed on, but its body.
#[derive(Serialize, Deserialize)]
enum Envelope<'a> {
    Call(InstanceCall<'a>),
    /// Offsets of a group, to be committed by the members that read their partitions.
    Offsets {
        caller: Cow<'a, Caller>,
        group: Cow<'a, str>,
    },
}

impl Envelope<'_> {
    fn encode(&self) -> String {
        BASE64_STANDARD.encode(serde_json::to_vec(self).expect("an envelope has string keys"))
    }
}

/// A call for a consumer instance.
#[derive(Serialize, Deserialize)]
pub(crate) struct InstanceCall<'a> {
    caller: Cow<'a, Caller>,
    group: Cow<'a, str>,
    instance: Cow<'a, str>,
    call: Cow<'a, Call>,
    asked: Cow<'a, Asked>,
}

impl<'a> InstanceCall<'a> {
    pub(crate) fn new(
        caller: &'a Caller,
        (group, instance): (&'a str, &'a str),
        call: &'a Call,
        asked: &'a Asked,
    ) -> Self {
        Self {
            caller: Cow::Borrowed(caller),
            group: group.into(),
            instance: instance.into(),
            call: Cow::Borrowed(call),
            asked: Cow::Borrowed(asked),
        }
    }
}

/// Why there is no answer from another bridge.
#[derive(Debug)]
enum Unanswered {
    /// Nobody is there, or somebody who does not believe this bridge.
    Gone,
    /// It may have done what it was asked for.
    Lost,
}

// ---- to another bridge ----

/// What a worker knows of the other bridges.
#[derive(Default)]
pub(crate) struct Peers {
    /// Idle ones by address, with the time since when.
    connections: RefCell<HashMap<Box<str>, Vec<Idle>>>,
    owners: RefCell<HashMap<Key, Box<str>>>,
}

type Idle = (Connection, Instant);
/// Group and instance.
type Key = (Box<str>, Box<str>);

/// A request for an instance that is not here. `owner` is what its id says, if it says something.
///
/// # Errors
///
/// 40403 if nobody has the instance, or who had it is gone.
pub(crate) async fn hand_on(
    context: &Rc<Context>,
    fleet: &Arc<Fleet>,
    call: InstanceCall<'_>,
    owner: Option<String>,
    body: &[u8],
) -> Result<Response, ApiError> {
    let patience = call.asked.patience() + PATIENCE;
    let body = Bytes::copy_from_slice(body);
    let key: Key = ((*call.group).into(), (*call.instance).into());
    let caller = call.caller.clone();
    let encoded = Envelope::Call(call).encode();
    let send = async |owner: &str| send(context, fleet, owner, &encoded, body.clone(), patience).await;
    let named = owner.is_some();
    let known = context.peers.owners.borrow().get(&key).map(ToString::to_string);
    if let Some(owner) = owner.or(known) {
        if owner == fleet.advertised {
            return Err(no_instance());
        }
        match send(&owner).await {
            // Another one may have it by now, under the same name.
            Ok(answer) if answer.status == StatusCode::NOT_FOUND && !named => {}
            Err(Unanswered::Gone) if !named => {}
            result => return answered(context, result),
        }
        context.peers.owners.borrow_mut().remove(&key);
    }
    if named {
        return Err(no_instance());
    }
    let Some(owner) = find(context, fleet, &caller, &key.0, &key.1).await else {
        return Err(no_instance());
    };
    remember(&context.peers, key, &owner);
    answered(context, send(&owner).await)
}

fn answered(context: &Context, result: Result<Answer, Unanswered>) -> Result<Response, ApiError> {
    match result {
        Ok(answer) => {
            context.metrics.fleet_request(true);
            Ok(answer.into_response())
        }
        Err(Unanswered::Gone) => {
            context.metrics.fleet_request(false);
            Err(no_instance())
        }
        Err(Unanswered::Lost) => {
            context.metrics.fleet_request(false);
            Err(ApiError::new(
                super::confluent::error::KAFKA_RETRIABLE,
                "the bridge that has the consumer instance went away before it answered: it may have done what was asked",
            ))
        }
    }
}

fn remember(peers: &Peers, key: Key, owner: &str) {
    let mut owners = peers.owners.borrow_mut();
    if owners.len() >= KNOWN_OWNERS {
        owners.clear();
    }
    owners.insert(key, owner.into());
}

/// Asks all peers who has an instance. Nobody, if none says so in time.
pub(crate) async fn find(
    context: &Rc<Context>,
    fleet: &Arc<Fleet>,
    caller: &Caller,
    group: &str,
    instance: &str,
) -> Option<String> {
    let asked = Asked::default();
    let envelope = Envelope::Call(InstanceCall::new(caller, (group, instance), &Call::Exists, &asked));
    let mut asking = ask_all(context, fleet, &envelope, Bytes::new(), ASK_TIMEOUT).await;
    // Those that have not answered when one has are asked in vain, and end with the set.
    while let Some(answer) = asking.join_next().await {
        if let Ok((address, Ok(answer))) = answer
            && answer.status.is_success()
        {
            return Some(address);
        }
    }
    None
}

/// Has all peers commit offsets whose partitions members there read; returns those that nobody has.
///
/// # Errors
///
/// What a peer said that could not commit, if something is left. Some may have been committed.
///
/// # Cancel safety
///
/// The commits may go on.
pub(crate) async fn commit(
    context: &Rc<Context>,
    fleet: &Arc<Fleet>,
    caller: &Caller,
    group: &str,
    offsets: Vec<GroupOffset>,
) -> Result<Vec<GroupOffset>, Response> {
    let envelope = Envelope::Offsets { caller: Cow::Borrowed(caller), group: group.into() };
    let body = groups::encode(&offsets);
    let _charge = context.pipeline.delivery(None, 1).charge(body.len());
    let mut asking = ask_all(context, fleet, &envelope, body.into(), COMMIT_TIMEOUT).await;
    let mut open: Vec<Option<GroupOffset>> = offsets.into_iter().map(Some).collect();
    let mut refusal = None;
    while open.iter().any(Option::is_some)
        && let Some(asked) = asking.join_next().await
    {
        match asked {
            Ok((_, Ok(answer))) if answer.status.is_success() => {
                let committed = groups::committed_of(&answer.body);
                if !committed.is_empty() {
                    context.metrics.fleet_request(true);
                }
                for index in committed {
                    if let Some(offset) = open.get_mut(index) {
                        *offset = None;
                    }
                }
            }
            // It has the member, or could not look.
            Ok((_, Ok(answer))) if answer.status == StatusCode::CONFLICT || answer.status.is_server_error() => {
                context.metrics.fleet_request(true);
                refusal = Some(answer);
            }
            Ok((_, Err(Unanswered::Lost))) => context.metrics.fleet_request(false),
            // Who is not there has no members, and a bridge of another version is none that could help.
            _ => {}
        }
    }
    let left: Vec<GroupOffset> = open.into_iter().flatten().collect();
    match refusal {
        Some(answer) if !left.is_empty() => Err(answer.into_response()),
        _ => Ok(left),
    }
}

/// Sends the same to all peers at once. Dropping what is returned ends those that have not answered.
async fn ask_all(
    context: &Rc<Context>,
    fleet: &Arc<Fleet>,
    envelope: &Envelope<'_>,
    body: Bytes,
    patience: Duration,
) -> JoinSet<(String, Result<Answer, Unanswered>)> {
    let envelope: Rc<str> = envelope.encode().into();
    let mut addresses = Vec::new();
    for peer in fleet.peers.load_full().iter() {
        match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(peer)).await {
            Ok(Ok(found)) => addresses.extend(found.map(|address| address.to_string())),
            _ => tracing::debug!(peer, "a peer's name cannot be resolved"),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    let mut asking = JoinSet::new();
    for address in addresses.into_iter().filter(|address| *address != fleet.advertised) {
        let (context, fleet, envelope, body) = (context.clone(), fleet.clone(), envelope.clone(), body.clone());
        asking.spawn_local(async move {
            let answer = send(&context, &fleet, &address, &envelope, body, patience).await;
            (address, answer)
        });
    }
    asking
}

/// Another bridge's answer, read to its end.
struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    retry_after: Option<HeaderValue>,
    body: Bytes,
    charge: Charge,
}

impl Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(ResponseBody::whole(self.body).guarded(self.charge));
        *response.status_mut() = self.status;
        for (name, value) in [(CONTENT_TYPE, self.content_type), (RETRY_AFTER, self.retry_after)] {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Sends one sealed request and reads its answer.
async fn send(
    context: &Context,
    fleet: &Fleet,
    owner: &str,
    envelope: &str,
    body: Bytes,
    patience: Duration,
) -> Result<Answer, Unanswered> {
    let deadline = Instant::now() + patience;
    let request = |endpoint: &Endpoint| {
        endpoint
            .request("/forward")
            .method(Method::POST)
            .header(SEAL, fleet.keys.load().seal(envelope, &body))
            .header(ENVELOPE, envelope)
            .body(RequestBody::Whole(body.clone()))
            .map_err(|_| Unanswered::Gone)
    };
    // The scheme is there for the parser: between bridges there is no TLS.
    let endpoint = Endpoint::new(&format!("http://{owner}"), Trust::System).map_err(|_| Unanswered::Gone)?;
    // A kept connection may have been closed by its other end, and then the request is lost on its way. So only those
    // that are known to be open are used, and what fails on one before its answer is not sent again: it may have arrived.
    let kept = context.peers.take(owner);
    let mut connection = match kept {
        Some(connection) => connection,
        None => match timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(_)) | Err(_) => return Err(Unanswered::Gone),
        },
    };
    let exchange = async {
        let answer = connection.send(request(&endpoint)?).await.map_err(|_| Unanswered::Lost)?;
        let (head, mut body) = answer.into_parts();
        if !head.headers.contains_key(BELIEVED) {
            tracing::warn!(owner, "another bridge of the fleet does not believe this one, or is none");
            return Err(Unanswered::Gone);
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let delivery = context.pipeline.delivery(None, 1);
        // The owner had room for it, too.
        let charge = delivery.charge(length.unwrap_or(0).min(MAX_ANSWER));
        let mut whole = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|_| Unanswered::Lost)?;
            whole.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if whole.len() > MAX_ANSWER {
                return Err(Unanswered::Lost);
            }
        }
        Ok(Answer {
            status: head.status,
            content_type: head.headers.get(CONTENT_TYPE).cloned(),
            retry_after: head.headers.get(RETRY_AFTER).cloned(),
            body: whole.freeze(),
            charge,
        })
    };
    let answer = tokio::time::timeout_at(deadline, exchange).await.map_err(|_| Unanswered::Lost)??;
    context.peers.keep(owner, connection);
    Ok(answer)
}

impl Peers {
    fn take(&self, owner: &str) -> Option<Connection> {
        let mut all = self.connections.borrow_mut();
        let of_owner = all.get_mut(owner)?;
        of_owner.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < KEEP);
        of_owner.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, owner: &str, connection: Connection) {
        let mut all = self.connections.borrow_mut();
        let of_owner = all.entry(owner.into()).or_default();
        if of_owner.len() < KEPT_CONNECTIONS {
            of_owner.push((connection, Instant::now()));
        }
    }
}

// ---- from another bridge ----

/// What answers the requests on one connection of the fleet's listener.
pub(crate) struct FleetSession {
    pub(crate) context: Rc<Context>,
    pub(crate) fleet: Arc<Fleet>,
}

impl Service for FleetSession {
    async fn call(&self, request: Request<Body>) -> Response {
        self.answer(request).await.unwrap_or_else(|error| respond::error(&error))
    }

    fn refuse(&self, head: BadHead) -> Response {
        respond::error(&ApiError { close: true, ..ApiError::new(head.status.as_u16().into(), head.message) })
    }
}

impl FleetSession {
    async fn answer(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let context = &self.context;
        let (head, body) = request.into_parts();
        let stranger = || ApiError { close: true, ..ApiError::denied("this listener is for the fleet alone") };
        let field = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(seal), Some(sealed)) = (field(&SEAL), field(&ENVELOPE)) else {
            context.metrics.fleet_refused();
            return Err(stranger());
        };
        let mut reader = context.body_reader(body, Grant::default());
        let delivery = context.pipeline.delivery(None, 1);
        let encoding = ContentEncoding::Identity;
        let body = WholeBody::read_optional(context, &mut reader, encoding, &delivery, v2::COMMAND).await?;
        let body = body.as_ref().map_or(&b""[..], WholeBody::bytes);
        if !self.fleet.keys.load().believes(seal, sealed, body, &self.fleet.seen) {
            context.metrics.fleet_refused();
            tracing::warn!("a request on the fleet's listener is not sealed by the fleet, is old, or came before");
            return Err(stranger());
        }
        let envelope = BASE64_STANDARD.decode(sealed).ok();
        let envelope: Option<Envelope<'_>> = envelope.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let answer = match envelope {
            Some(Envelope::Call(InstanceCall { caller, group, instance, call, asked })) => {
                v2::handed_on(context, &caller, (&group, &instance), &call, &asked, body).await
            }
            Some(Envelope::Offsets { caller, group }) => groups::handed_on(context, &caller, &group, body).await,
            None => Err(ApiError::bad_request("another version of the bridge wrote this envelope")),
        };
        let mut answer = answer.unwrap_or_else(|error| respond::error(&error));
        answer.headers_mut().insert(BELIEVED, HeaderValue::from_static("1"));
        Ok(answer)
    }
}
