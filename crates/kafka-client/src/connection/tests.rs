//! A scripted peer over an in-memory stream.

use super::*;
use crate::{
    ProducePartition, ProduceTopic, TopicId,
    messages::{InitProducerIdRequest, MetadataRequest},
    transport::Io,
};
use bytes::{BufMut, BytesMut};
use std::future::poll_fn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::sleep,
};

mod login;

/// The broker's end.
struct Peer(DuplexStream);

/// A request as the peer sees it.
struct Seen {
    key: i16,
    version: i16,
    id: i32,
    rest: Vec<u8>,
}

impl Peer {
    async fn read(&mut self) -> Seen {
        self.try_read().await.expect("a request")
    }

    async fn try_read(&mut self) -> Option<Seen> {
        let length = self.0.read_i32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.0.read_exact(&mut frame).await.ok()?;
        let rest = frame.split_off(8);
        let mut head = &frame[..];
        let (key, version, id) =
            (bytes::Buf::get_i16(&mut head), bytes::Buf::get_i16(&mut head), bytes::Buf::get_i32(&mut head));
        Some(Seen { key, version, id, rest })
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the client reads");
    }

    /// An answer as it goes onto the wire.
    fn frame(id: i32, body: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        frame.put_i32(body.len() as i32 + 4);
        frame.put_i32(id);
        frame.put_slice(body);
        frame.to_vec()
    }

    async fn answer(&mut self, id: i32, body: &[u8]) {
        self.write(&Self::frame(id, body)).await;
    }

    /// Produce 0–7 and InitProducerId 0–1, in version 0: nothing is flexible, answers are easily written.
    async fn negotiate(&mut self) {
        let seen = self.read().await;
        assert_eq!((seen.key, seen.version), (18, 3));
        self.answer(seen.id, &api_versions(3, 0, &[(0, 0, 7), (22, 0, 1)])).await;
    }
}

fn api_versions(version: i16, error: i16, apis: &[(i16, i16, i16)]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_i16(error);
    let flexible = version >= 3;
    if flexible {
        body.put_u8(apis.len() as u8 + 1);
    } else {
        body.put_i32(apis.len() as i32);
    }
    for (key, min, max) in apis {
        for field in [key, min, max] {
            body.put_i16(*field);
        }
        body.put_slice(&[0][..usize::from(flexible)]);
    }
    if version >= 1 {
        body.put_i32(0);
    }
    body.put_slice(&[0][..usize::from(flexible)]);
    body.to_vec()
}

/// A Produce answer, version 7: no topics.
fn produced(throttle_ms: i32) -> Vec<u8> {
    [0_i32.to_be_bytes(), throttle_ms.to_be_bytes()].concat()
}

fn settings() -> Settings {
    Settings {
        client_id: "c".into(),
        request_timeout: Duration::from_secs(30),
        max_frame_bytes: 1 << 20,
        traffic: Arc::default(),
    }
}

/// A connection and its peer, `buffer` bytes between them.
async fn connected_by(buffer: usize) -> (Connection, Peer) {
    let (ours, theirs) = duplex(buffer);
    let mut peer = Peer(theirs);
    let negotiating: JoinHandle<Peer> = tokio::spawn(async move {
        peer.negotiate().await;
        peer
    });
    let io: Box<dyn Io> = Box::new(ours);
    let connection = Connection::open(io, settings(), None).await.expect("a connection");
    (connection, negotiating.await.expect("the peer"))
}

async fn connected() -> (Connection, Peer) {
    connected_by(1 << 20).await
}

fn request(bytes: usize) -> ProduceRequest {
    ProduceRequest {
        timeout: Duration::from_secs(20),
        topics: vec![ProduceTopic {
            name: "t".into(),
            id: TopicId::ZERO,
            partitions: vec![ProducePartition { index: 0, records: vec![7; bytes].into() }],
        }],
    }
}

fn assert_disconnected(result: Result<ProduceResponse, Error>, sent: bool) {
    match result {
        Err(Error::Disconnected { maybe_sent, .. }) => assert_eq!(maybe_sent, sent),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let (connection, mut peer) = connected().await;
    let pending: Vec<_> = (0..5).map(|_| connection.produce(request(10))).collect();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(peer.read().await);
    }
    for (i, request) in seen.iter().enumerate() {
        assert_eq!((request.key, request.version), (0, 7));
        assert!(request.rest.ends_with(&[7; 10]));
        // A throttle of one millisecond more each time tells the answers apart.
        peer.answer(request.id, &produced(i as i32)).await;
    }
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.expect("an answer").throttle, Duration::from_millis(i as u64));
    }
}

#[tokio::test]
async fn frames_survive_a_socket_that_takes_a_few_bytes_at_a_time() {
    let (connection, mut peer) = connected_by(7).await;
    let pending: Vec<_> = (0..20).map(|i| connection.produce(request(100 * i))).collect();
    let serving = tokio::spawn(async move {
        for i in 0..20 {
            let request = peer.read().await;
            assert!(request.rest.ends_with(&vec![7; 100 * i]));
            peer.answer(request.id, &produced(0)).await;
        }
        peer
    });
    for pending in pending {
        pending.await.expect("an answer");
    }
    serving.await.expect("whole frames");
}

#[tokio::test]
async fn a_dropped_call_neither_tears_its_frame_nor_disturbs_the_others() {
    let (connection, mut peer) = connected_by(16).await;
    let first = connection.produce(request(1000));
    drop(connection.produce(request(2000)));
    let third = connection.produce(request(3000));
    // Half of a frame is written; its caller goes away.
    drop(first);
    let serving = tokio::spawn(async move {
        for bytes in [1000, 2000, 3000] {
            let request = peer.read().await;
            assert!(request.rest.ends_with(&vec![7; bytes]));
            peer.answer(request.id, &produced(0)).await;
        }
        peer
    });
    third.await.expect("an answer");
    assert!(!connection.is_closed());
    serving.await.expect("whole frames");
}

#[tokio::test]
async fn an_answer_to_another_request_poisons_the_connection() {
    let (connection, mut peer) = connected().await;
    let (first, second) = (connection.produce(request(1)), connection.produce(request(1)));
    peer.read().await;
    let later = peer.read().await;
    peer.answer(later.id, &produced(0)).await;
    assert_disconnected(first.await, true);
    assert_disconnected(second.await, true);
    connection.closed().await;
    assert!(connection.is_closed());
    assert_disconnected(connection.produce(request(1)).await, false);
    assert!(peer.try_read().await.is_none(), "the socket is closed");
}

#[tokio::test]
async fn an_answer_nobody_asked_for_poisons_the_connection() {
    let (connection, mut peer) = connected().await;
    peer.answer(5, &produced(0)).await;
    connection.closed().await;
}

#[tokio::test]
async fn hostile_lengths_poison_the_connection_before_anything_is_read() {
    for length in [-1_i32, i32::MIN, 0, 3, (16 << 20) + 1, i32::MAX] {
        let (connection, mut peer) = connected().await;
        let pending = connection.produce(request(1));
        peer.read().await;
        peer.write(&length.to_be_bytes()).await;
        assert_disconnected(pending.await, true);
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_malformed_answer_fails_its_caller_and_everything_behind_it() {
    for body in [&[][..], &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], &[0; 9], &[0xff; 40]] {
        let (connection, mut peer) = connected().await;
        let (first, second) = (connection.produce(request(1)), connection.produce(request(1)));
        let id = peer.read().await.id;
        peer.answer(id, body).await;
        let error = first.await.expect_err("malformed");
        assert!(matches!(error, Error::Malformed { api: "Produce", .. }), "{error}");
        assert!(error.maybe_sent());
        assert_disconnected(second.await, true);
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_frame_cut_by_the_end_of_the_stream_is_no_answer() {
    let (connection, mut peer) = connected().await;
    let pending = connection.produce(request(1));
    let id = peer.read().await.id;
    let frame = Peer::frame(id, &produced(0));
    peer.write(&frame[..frame.len() - 1]).await;
    drop(peer);
    assert_disconnected(pending.await, true);
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    let (connection, mut peer) = connected().await;
    let pending = connection.produce(request(1));
    let id = peer.read().await.id;
    for byte in Peer::frame(id, &produced(9)) {
        peer.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(pending.await.expect("an answer").throttle, Duration::from_millis(9));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_request_s_timeout_poisons_the_connection() {
    let (connection, mut peer) = connected().await;
    let first = connection.produce(request(1));
    peer.read().await;
    sleep(Duration::from_secs(20)).await;
    let second = connection.produce(request(1));
    let error = first.await.expect_err("too late");
    assert!(
        matches!(error, Error::TimedOut { maybe_sent: true, after } if after == Duration::from_secs(30)),
        "{error}"
    );
    assert!(matches!(second.await, Err(Error::TimedOut { maybe_sent: true, .. })));
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_the_socket_did_not_take_was_not_sent() {
    // The first frame fills the stream; of the second no byte is taken.
    let (connection, peer) = connected_by(64).await;
    let (first, second) = (connection.produce(request(1000)), connection.produce(request(1)));
    let first = first.await.expect_err("nobody reads");
    assert!(matches!(first, Error::TimedOut { maybe_sent: true, .. }), "{first}");
    let second = second.await.expect_err("nobody reads");
    assert!(matches!(second, Error::TimedOut { maybe_sent: false, .. }), "{second}");
    assert!(!second.maybe_sent());
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_connection_sends_nothing_and_its_requests_do_not_expire() {
    let (connection, mut peer) = connected().await;
    let (first, in_flight) = (connection.produce(request(1)), connection.produce(request(1)));
    let first_id = peer.read().await.id;
    let in_flight_id = peer.read().await.id;
    peer.answer(first_id, &produced(50_000)).await;
    first.await.expect("an answer");
    let until = connection.throttled_until().expect("throttled");
    assert!(until > Instant::now() + Duration::from_secs(49));
    let held = connection.produce(request(1));
    // Longer than the request timeout; the broker reads nothing of this connection until then.
    let read = tokio::time::timeout(Duration::from_secs(49), peer.read());
    assert!(read.await.is_err(), "sent while throttled");
    assert!(!connection.is_closed());
    peer.answer(in_flight_id, &produced(0)).await;
    in_flight.await.expect("not expired");
    let id = peer.read().await.id;
    assert!(Instant::now() >= until - Duration::from_millis(1));
    peer.answer(id, &produced(0)).await;
    held.await.expect("an answer");
    assert_eq!(connection.throttled_until(), None);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_without_end_is_cut_short() {
    let (connection, mut peer) = connected().await;
    let first = connection.produce(request(1));
    let id = peer.read().await.id;
    peer.answer(id, &produced(i32::MAX)).await;
    first.await.expect("an answer");
    let until = connection.throttled_until().expect("throttled");
    assert!(until <= Instant::now() + Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_before_the_broker_does() {
    let (connection, peer) = connected().await;
    let opened = Instant::now();
    connection.closed().await;
    assert!(opened.elapsed() >= Duration::from_secs(530) && opened.elapsed() < Duration::from_secs(600));
    assert_disconnected(connection.produce(request(1)).await, false);
    drop(peer);
}

#[tokio::test]
async fn dropping_every_handle_finishes_what_was_queued_and_closes() {
    let (connection, mut peer) = connected().await;
    let pending = connection.produce(request(1));
    let traffic = connection.channel.shared.settings.traffic.clone();
    drop(connection);
    let id = peer.read().await.id;
    assert_eq!(traffic.open.load(Relaxed), 1);
    peer.answer(id, &produced(0)).await;
    pending.await.expect("an answer");
    assert!(peer.try_read().await.is_none(), "closed");
    assert_eq!(traffic.open.load(Relaxed), 0);
}

#[tokio::test]
async fn an_api_without_a_common_version_is_refused_unsent() {
    let (connection, _peer) = connected().await;
    let error =
        connection.call(&MetadataRequest { topics: None }, i16::MAX, Duration::ZERO).await.expect_err("no Metadata");
    assert!(matches!(error, Error::Unsupported { api: "Metadata" }) && !error.maybe_sent());
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_field_that_does_not_fit_is_refused_unsent() {
    let (connection, _peer) = connected().await;
    let mut request = request(1);
    request.topics[0].name = "x".repeat(40_000).into();
    let error = connection.produce(request).await.expect_err("too long");
    assert!(matches!(error, Error::InvalidRequest(_)) && !error.maybe_sent());
}

/// Which version of ApiVersions the client asks again in after this refusal.
async fn second_ask(refusal: &[(i16, i16, i16)]) -> i16 {
    let (ours, theirs) = duplex(1 << 16);
    let mut peer = Peer(theirs);
    let opening = tokio::spawn(Connection::open(Box::new(ours), settings(), None));
    let first = peer.read().await;
    assert_eq!(first.version, 3);
    peer.answer(first.id, &api_versions(0, 35, refusal)).await;
    let second = peer.read().await;
    peer.answer(second.id, &api_versions(second.version, 0, &[(0, 0, 7), (22, 0, 1)])).await;
    let connection = opening.await.expect("no panic").expect("a connection");
    assert_eq!(connection.produce_version(), 7);
    second.version
}

#[tokio::test]
async fn a_refused_api_versions_is_asked_again_in_an_older_version() {
    // Kafka 2.2 refuses with an empty list; later ones say what they speak (KIP-511).
    assert_eq!(second_ask(&[]).await, 0);
    assert_eq!(second_ask(&[(18, 0, 2)]).await, 2);
    // A broker that contradicts itself does not make us ask for ever.
    assert_eq!(second_ask(&[(18, 0, 3)]).await, 2);
}

#[tokio::test]
async fn a_broker_that_hangs_up_or_talks_nonsense_is_no_connection() {
    let nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    for reply in [&b""[..], nonsense] {
        let (ours, theirs) = duplex(1 << 16);
        let mut peer = Peer(theirs);
        let opening = tokio::spawn(Connection::open(Box::new(ours), settings(), None));
        peer.read().await;
        peer.write(reply).await;
        drop(peer);
        let error = opening.await.expect("no panic").expect_err("no broker");
        assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_abandoned_handshake_closes_the_socket() {
    let (ours, theirs) = duplex(1 << 16);
    let mut peer = Peer(theirs);
    let mut opening = Box::pin(Connection::open(Box::new(ours), settings(), None));
    poll_fn(|cx| {
        assert!(opening.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    peer.read().await;
    drop(opening);
    assert!(peer.try_read().await.is_none());
}

#[tokio::test]
async fn a_topic_without_an_id_is_named_by_name() {
    let (ours, theirs) = duplex(1 << 16);
    let mut peer = Peer(theirs);
    let opening = tokio::spawn(Connection::open(Box::new(ours), settings(), None));
    let seen = peer.read().await;
    peer.answer(seen.id, &api_versions(3, 0, &[(0, 0, 13)])).await;
    let connection = opening.await.expect("no panic").expect("a connection");
    assert_eq!(connection.produce_version(), 13);
    let _by_name = connection.produce(request(1));
    assert_eq!(peer.read().await.version, 12);
    let mut with_id = request(1);
    with_id.topics[0].id = TopicId([1; 16]);
    let _by_id = connection.produce(with_id);
    assert_eq!(peer.read().await.version, 13);
}

#[tokio::test]
async fn a_runtime_that_ends_fails_the_calls_of_others() {
    let (connection, mut peer) = connected().await;
    let pending = connection.call(&InitProducerIdRequest, i16::MAX, Duration::ZERO);
    peer.read().await;
    let (ours, _theirs) = duplex(64);
    // The same on a runtime of its own, which goes away with the request queued.
    let (error, sent) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (queue, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            settings: settings(),
            next_correlation_id: AtomicI32::new(0),
            opened: Instant::now(),
            throttled_ms: AtomicU64::new(0),
        });
        let driver = runtime.block_on(async { Driver::new(Box::new(ours), requests, shared.clone()) });
        let pending = Channel { queue, shared }.send(&InitProducerIdRequest, 1, Duration::from_secs(1));
        drop(driver);
        drop(runtime);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let error = runtime.block_on(pending).expect_err("no answer");
        let sent = error.maybe_sent();
        (error, sent)
    })
    .join()
    .expect("no panic");
    assert!(!sent, "{error}");
    drop(peer);
    assert!(pending.await.is_err());
}
