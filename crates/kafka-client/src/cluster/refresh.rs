//! The refresher: the one task that asks for metadata.
//!
//! It sleeps until something is due: the snapshot's age, a request for a refresh, names that
//! [`Cluster::topic`](super::Cluster::topic) waits for, or a partition without a leader. Names that come in while it
//! asks go into the next request together.
//!
//! A broker that does not answer costs one short limit, once: the next one is asked, and the silent one comes last for
//! a while. If no known broker answers, the bootstrap servers are asked again (KIP-899), every address of each.

use super::{
    Core, TopicError,
    brokers::{backoff, lock},
};
use crate::{
    Config, Connection, Error, ErrorCode, TopicInfo,
    messages::{MetadataRequest, MetadataResponse, Request},
    metadata::{self, Verdict},
    transport::parse_address,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// The least time between refreshes, and the first pause while a partition has no leader.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest pause while a partition has no leader.
const MAX_QUICK: Duration = Duration::from_secs(1);
/// How long after one broker did not know a topic another is asked: what a new topic takes to be known everywhere.
const SECOND_ASK: Duration = Duration::from_millis(50);
/// How long an unknown topic is remembered.
const REMEMBER_UNKNOWN: Duration = Duration::from_secs(1);
/// How many unknown topics are remembered at most.
const MAX_UNKNOWN: usize = 4096;
/// Topics that nobody used for this long leave the snapshot.
const MAX_UNUSED: Duration = Duration::from_mins(10);
/// A broker's time to connect and answer where another may do as well, at first; doubled by each round in which nobody
/// answered.
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// The same where brokers want a login, which may have to fetch its credentials first.
const FIRST_LOGIN_LIMIT: Duration = Duration::from_secs(5);

/// What applies to these settings.
pub(super) fn first_limit(config: &Config) -> Duration {
    if config.sasl.is_some() { FIRST_LOGIN_LIMIT } else { FIRST_LIMIT }
}

/// How long a bootstrap server may take before the next one is asked too.
const STAGGER: Duration = Duration::from_secs(1);

/// What is wanted from the refresher.
#[derive(Debug, Default)]
pub(super) struct Asks {
    refresh: bool,
    lookups: HashMap<Arc<str>, Lookup>,
    /// Names that were answered with an error, and until when that holds.
    refused: HashMap<Arc<str>, (Instant, TopicError)>,
    /// Why the last round of asking failed; `None` after a good one.
    failure: Option<Error>,
}

/// A name that somebody waits for.
#[derive(Debug)]
struct Lookup {
    waiters: Vec<oneshot::Sender<Result<Arc<TopicInfo>, TopicError>>>,
    /// Not asked for before this.
    not_before: Instant,
    /// A broker has answered that it does not know it.
    unknown_once: bool,
}

impl Core {
    pub(super) async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>, TopicError> {
        {
            let snapshot = self.snapshot.load();
            if let Some(topic) = snapshot.metadata.topics.get(name) {
                if let Some(last_used) = snapshot.last_used.get(name) {
                    last_used.store(self.now_ms(), Relaxed);
                }
                return Ok(topic.clone());
            }
        }
        if !metadata::is_topic_name(name) {
            return Err(TopicError::InvalidName);
        }
        let answer = {
            let mut asks = lock(&self.asks);
            let now = Instant::now();
            match asks.refused.get(name) {
                Some((until, error)) if *until > now => return Err(error.clone()),
                _ => {}
            }
            let lookup = asks.lookups.entry(name.into()).or_insert_with(|| Lookup {
                waiters: Vec::new(),
                not_before: now,
                unknown_once: false,
            });
            // Callers that gave up make room for this one.
            lookup.waiters.retain(|waiter| !waiter.is_closed());
            let (waiter, answer) = oneshot::channel();
            lookup.waiters.push(waiter);
            answer
        };
        self.wake.notify_one();
        match timeout(self.config().request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Err(TopicError::Unavailable(Arc::new(self.last_failure()))),
        }
    }

    pub(super) fn request_refresh(&self) {
        lock(&self.asks).refresh = true;
        self.wake.notify_one();
    }

    /// Forgets that `name` was unknown.
    pub(super) fn forget_refusal(&self, name: &str) {
        lock(&self.asks).refused.remove(name);
    }

    /// Why the cluster does not answer.
    pub(super) fn last_failure(&self) -> Error {
        let failure = lock(&self.asks).failure.clone();
        failure.unwrap_or(Error::NoBroker("no broker has answered yet"))
    }
}

/// Ends with the last handle, which aborts it.
pub(super) async fn run(core: Arc<Core>) {
    let mut refresher = Refresher {
        next_full: Instant::now(),
        last_full: None,
        quick_rounds: 0,
        failed_rounds: 0,
        not_before: Instant::now(),
        last_asked: None,
        core,
    };
    loop {
        let wake_at = refresher.due();
        if wake_at > Instant::now() {
            tokio::select! {
                biased;
                () = sleep_until(wake_at) => {}
                () = refresher.core.wake.notified() => {}
            }
            continue;
        }
        refresher.round().await;
    }
}

struct Refresher {
    core: Arc<Core>,
    /// When all topics are asked for again.
    next_full: Instant,
    last_full: Option<Instant>,
    /// Refreshes in a row that found a partition without a leader.
    quick_rounds: u32,
    /// Rounds in a row in which nobody answered, and the pause after them.
    failed_rounds: u32,
    not_before: Instant,
    /// The broker that answered last; another one is asked for confirmation.
    last_asked: Option<i32>,
}

/// One round's question.
struct Question {
    names: BTreeSet<Arc<str>>,
    full: bool,
    confirms: bool,
}

impl Refresher {
    /// When there is something to do next.
    fn due(&self) -> Instant {
        let asks = lock(&self.core.asks);
        let mut due = self.next_full;
        if asks.refresh {
            due = due.min(self.earliest_full());
        }
        for lookup in asks.lookups.values() {
            due = due.min(lookup.not_before);
        }
        due.max(self.not_before)
    }

    fn earliest_full(&self) -> Instant {
        self.last_full.map_or(self.next_full, |last| last + MIN_INTERVAL)
    }

    async fn round(&mut self) {
        let question = self.question();
        match self.ask(&question).await {
            Ok(answer) => {
                self.failed_rounds = 0;
                self.take(&question, answer);
            }
            Err(error) => {
                let config = self.core.config();
                let (first, max) = match error {
                    Error::Authentication { .. } => (config.login_backoff, config.login_backoff_max),
                    _ => (config.reconnect_backoff, config.reconnect_backoff_max),
                };
                let pause = backoff(first, max, self.failed_rounds);
                if self.failed_rounds == 0 {
                    tracing::warn!(%error, "no broker answers; asking on");
                }
                self.failed_rounds += 1;
                self.not_before = Instant::now() + pause;
                let mut asks = lock(&self.core.asks);
                asks.failure = Some(error);
                // Who wanted a refresh has not got it: nobody need ask again.
                asks.refresh |= question.full;
                // Nobody waits for what everybody gave up on.
                asks.lookups.retain(|_, lookup| lookup.waiters.iter().any(|w| !w.is_closed()));
            }
        }
    }

    /// What to ask for now.
    fn question(&mut self) -> Question {
        let now = Instant::now();
        let mut asks = lock(&self.core.asks);
        let full = now >= self.next_full || (asks.refresh && now >= self.earliest_full());
        let mut names = BTreeSet::new();
        if full {
            asks.refresh = false;
            let oldest = self.core.now_ms().saturating_sub(u64::try_from(MAX_UNUSED.as_millis()).unwrap_or(u64::MAX));
            let snapshot = self.core.snapshot.load();
            names.extend(
                snapshot
                    .last_used
                    .iter()
                    .filter(|(_, used)| used.load(Relaxed) >= oldest)
                    .map(|(name, _)| name.clone()),
            );
        }
        let mut confirms = full && self.quick_rounds > 0;
        for (name, lookup) in &asks.lookups {
            if lookup.not_before <= now {
                confirms |= lookup.unknown_once;
                names.insert(name.clone());
            }
        }
        Question { names, full, confirms }
    }

    /// Asks one broker after the other until one answers.
    async fn ask(&mut self, question: &Question) -> Result<MetadataResponse, Error> {
        let core = self.core.clone();
        let request = MetadataRequest { topics: Some(question.names.iter().cloned().collect()) };
        let config = core.config();
        let limit = first_limit(config).saturating_mul(1 << self.failed_rounds.min(6)).min(config.request_timeout);
        let avoid = self.last_asked.filter(|_| question.confirms);
        let mut failure = Error::NoBroker("no bootstrap server is configured");
        let known = core.metadata();
        for broker in core.brokers.in_order(&known.brokers, avoid) {
            let attempt = async { answer(&core.brokers.control(&broker).await?, &request).await };
            match timeout(limit, attempt).await {
                Ok(Ok(answer)) => {
                    self.last_asked = Some(broker.id);
                    return Ok(answer);
                }
                Ok(Err(error)) => failure = error,
                Err(_) => {
                    failure = Error::TimedOut { maybe_sent: true, after: limit };
                }
            }
            tracing::debug!(broker = broker.id, error = %failure, "no metadata from this broker");
            core.brokers.suspect(broker.id);
        }
        let answer = ask_bootstrap(&core, &request, failure).await?;
        self.last_asked = None;
        Ok(answer)
    }

    /// Makes the answer the snapshot and answers who waits.
    fn take(&mut self, question: &Question, answer: MetadataResponse) {
        let core = self.core.clone();
        let now = Instant::now();
        let (next, unconfirmed) = {
            let mut doubts = lock(&core.doubts);
            let (mut next, verdicts) = metadata::merge(&core.metadata(), answer, &mut doubts);
            let mut unconfirmed = false;
            for (name, verdict) in &verdicts {
                match verdict {
                    Verdict::Missing => {
                        unconfirmed |= !metadata::confirm_missing(&mut next, name, &mut doubts);
                    }
                    Verdict::Failed(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                        next.topics.remove(name);
                    }
                    Verdict::Found(_) | Verdict::Failed(_) => {}
                }
            }
            if question.full {
                // Not asked for any more: unused.
                next.topics.retain(|name, _| question.names.contains(name));
            }
            core.publish(next);
            self.answer_lookups(question, verdicts, now);
            (core.metadata(), unconfirmed)
        };
        core.brokers.forget_gone(&next.brokers);
        let config = core.config();
        let leaderless = next.topics.values().any(|topic| topic.is_leaderless());
        if question.full {
            self.last_full = Some(now);
        }
        let pause = if unconfirmed {
            SECOND_ASK
        } else if leaderless {
            backoff(MIN_INTERVAL, MAX_QUICK, self.quick_rounds)
        } else {
            // With jitter: clients that started together do not ask together for ever.
            backoff(config.metadata_max_age, config.metadata_max_age, 0)
        };
        if question.full {
            self.next_full = now + pause;
            self.quick_rounds = if unconfirmed || leaderless { self.quick_rounds + 1 } else { 0 };
        } else {
            // Lookups do not put off what is due.
            self.next_full = self.next_full.min(now + pause);
        }
    }

    fn answer_lookups(&self, question: &Question, verdicts: Vec<(Arc<str>, Verdict)>, now: Instant) {
        let mut asks = lock(&self.core.asks);
        let asks = &mut *asks;
        asks.failure = None;
        for (name, verdict) in verdicts {
            let Some(lookup) = asks.lookups.get_mut(&name) else {
                continue;
            };
            let refused = match verdict {
                Verdict::Found(topic) => {
                    if let Some(lookup) = asks.lookups.remove(&name) {
                        lookup.answer(&Ok(topic));
                    }
                    continue;
                }
                Verdict::Missing if !lookup.unknown_once => {
                    lookup.unknown_once = true;
                    lookup.not_before = now + SECOND_ASK;
                    continue;
                }
                Verdict::Missing => TopicError::Unknown,
                Verdict::Failed(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => TopicError::Denied,
                Verdict::Failed(ErrorCode::INVALID_TOPIC_EXCEPTION) => TopicError::InvalidName,
                Verdict::Failed(code) => {
                    asks.failure = Some(Error::broker(MetadataRequest::API.name, code, None));
                    lookup.not_before = now + MIN_INTERVAL;
                    continue;
                }
            };
            if let Some(lookup) = asks.lookups.remove(&name) {
                lookup.answer(&Err(refused.clone()));
            }
            if asks.refused.len() >= MAX_UNKNOWN {
                asks.refused.retain(|_, (until, _)| *until > now);
            }
            if asks.refused.len() < MAX_UNKNOWN {
                asks.refused.insert(name, (now + REMEMBER_UNKNOWN, refused));
            }
        }
        // What an answer should have named and did not is asked for again, but not at once.
        for name in &question.names {
            if let Some(lookup) = asks.lookups.get_mut(name) {
                lookup.not_before = lookup.not_before.max(now + SECOND_ASK);
            }
        }
        asks.lookups.retain(|_, lookup| lookup.waiters.iter().any(|w| !w.is_closed()));
    }
}

impl Lookup {
    fn answer(self, answer: &Result<Arc<TopicInfo>, TopicError>) {
        for waiter in self.waiters {
            // Who gave up does not mind.
            let _ = waiter.send(answer.clone());
        }
    }
}

/// Asks every bootstrap server, the next one as soon as one fails or takes [`STAGGER`], and takes the first answer.
/// `failure`: what to say if there is none to ask.
async fn ask_bootstrap(
    core: &Arc<Core>,
    request: &MetadataRequest,
    mut failure: Error,
) -> Result<MetadataResponse, Error> {
    // Dropped with the first answer, which ends the other attempts.
    let mut attempts = JoinSet::new();
    let mut servers = core.config().bootstrap_servers.iter();
    let mut next = servers.next();
    while next.is_some() || !attempts.is_empty() {
        if let Some(server) = next {
            attempts.spawn(bootstrap_attempt(core.clone(), server.clone(), request.clone()));
            next = servers.next();
        }
        let result = tokio::select! {
            biased;
            Some(result) = attempts.join_next() => result,
            () = sleep(STAGGER), if next.is_some() => continue,
        };
        match result.unwrap_or(Err(Error::ShutDown)) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
        tracing::debug!(error = %failure, "no metadata from a bootstrap server");
    }
    Err(failure)
}

async fn bootstrap_attempt(
    core: Arc<Core>,
    server: String,
    request: MetadataRequest,
) -> Result<MetadataResponse, Error> {
    let (host, port) = parse_address(&server).ok_or(Error::InvalidRequest("a bootstrap server is not host:port"))?;
    let connection = core.brokers.dial_bootstrap(host, port).await?;
    answer(&connection, &request).await
}

/// Metadata from one broker. One that is only starting up knows no brokers; one whose cluster has moved says so
/// (KIP-1102).
async fn answer(connection: &Connection, request: &MetadataRequest) -> Result<MetadataResponse, Error> {
    let answer = connection.call(request, i16::MAX, Duration::ZERO).await?;
    if let Err(code) = answer.error.ok() {
        return Err(Error::broker(MetadataRequest::API.name, code, None));
    }
    if answer.brokers.is_empty() {
        return Err(Error::NoBroker("the broker that was asked knows no brokers"));
    }
    Ok(answer)
}
