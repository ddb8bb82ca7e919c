//! The model cluster's brokers on the wire: byte streams, requests, answers, and what goes wrong between them.

use crate::cluster::{Cluster, State};
use crate::log::Incoming;
use bytes::{Bytes, BytesMut};
use kafka_client::{Connecting, Connector, ErrorCode, Io};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, InitProducerIdResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader,
    api_versions_response::ApiVersion,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
    },
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

/// Broker `n` listens here; its host name is of no importance.
pub(crate) const FIRST_PORT: u16 = 9092;

/// How long a dial takes that leads nowhere.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Values that begin like this do not pass the broker's validation (KIP-467).
pub(crate) const INVALID: char = '!';

impl Connector for Cluster {
    fn connect<'a>(&'a self, _host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let broker = usize::from(port - FIRST_PORT);
            let (up, frozen, bytes, slow) = {
                let mut state = self.state();
                let slow = if state.chance(0.1) { state.between(Duration::ZERO, DIAL_TIMEOUT) } else { Duration::ZERO };
                let Some(known) = state.brokers.get(broker) else {
                    return Err(io::ErrorKind::HostUnreachable.into());
                };
                (known.up, known.frozen, state.scenario.stream_bytes, slow)
            };
            sleep(Duration::from_micros(200) + slow).await;
            if frozen {
                sleep(DIAL_TIMEOUT).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !up {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = duplex(bytes);
            // Ends with the stream, or when the broker crashes.
            let serving = tokio::spawn(serve(self.clone(), broker, theirs));
            self.state().brokers[broker].connections.push(serving.abort_handle());
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// It is answered, so many bytes at a time.
    Answered(usize),
    /// The connection ends before it is looked at.
    CutBefore,
    /// The connection ends after it was carried out.
    CutAfter,
    /// Nothing is ever answered on this connection again; it is not carried out.
    SilentBefore,
    /// The same, but it is carried out.
    SilentAfter,
    /// It is carried out so much later, when the connection is gone.
    Late(Duration),
    /// It is answered, and the connection ends.
    CutAnswered,
    /// The connection ends within the answer.
    Torn,
    /// The answer is no answer.
    Garbage,
}

async fn serve(cluster: Cluster, broker: usize, mut stream: DuplexStream) {
    while let Ok(length) = stream.read_i32().await {
        let mut frame = vec![0; usize::try_from(length).expect("a request has a length")];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let frame = Bytes::from(frame);
        let (delay, fate, throttle) = {
            let mut state = cluster.state();
            state.requests += 1;
            let delay = match state.rng.u32(..20) {
                0 if !state.healed => state.between(Duration::ZERO, Duration::from_secs(3)),
                1..4 => state.between(Duration::ZERO, Duration::from_millis(40)),
                _ => state.between(Duration::from_micros(100), Duration::from_millis(2)),
            };
            let fate = draw_fate(&mut state, frame[1]);
            let throttle = if state.chance(0.02) { state.rng.i32(1..3_000) } else { 0 };
            state.note(&("request", broker, frame[1], fate, delay));
            (delay, fate, throttle)
        };
        sleep(delay).await;
        while cluster.state().brokers[broker].frozen {
            sleep(Duration::from_millis(25)).await;
        }
        let chunk = match fate {
            Fate::CutBefore => return,
            Fate::SilentBefore => return be_silent(stream).await,
            Fate::CutAfter => {
                answer(&cluster, broker, frame, throttle);
                return;
            }
            Fate::SilentAfter => {
                answer(&cluster, broker, frame, throttle);
                return be_silent(stream).await;
            }
            Fate::Late(after) => {
                // Not on this connection's task: what the broker has read it carries out, connected or not.
                tokio::spawn(async move {
                    sleep(after).await;
                    answer(&cluster, broker, frame, 0);
                });
                return;
            }
            Fate::CutAnswered => {
                let answer = answer(&cluster, broker, frame, throttle);
                let _ = stream.write_all(&answer).await;
                return;
            }
            Fate::Torn => {
                let answer = answer(&cluster, broker, frame, throttle);
                let _ = stream.write_all(&answer[..answer.len() / 2]).await;
                return;
            }
            Fate::Garbage => {
                answer(&cluster, broker, frame, throttle);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                return;
            }
            Fate::Answered(chunk) => chunk,
        };
        for part in answer(&cluster, broker, frame, throttle).chunks(chunk) {
            if stream.write_all(part).await.is_err() {
                return;
            }
        }
        // A broker reads nothing of a connection that it throttles (KIP-219).
        sleep(Duration::from_millis(throttle as u64)).await;
    }
}

/// `api`: the request's key, which is below 256 for every API.
fn draw_fate(state: &mut State, api: u8) -> Fate {
    if let Some(Step::Request(_, fate)) =
        state.script.pop_front_if(|step| matches!(step, Step::Request(of, _) if *of as i16 == i16::from(api)))
    {
        return fate;
    }
    let chunk = if state.rng.u32(..8) == 0 { state.rng.usize(1..9) } else { usize::MAX };
    let rate = state.scenario.fault_rate / 2.0;
    if !state.chance(rate) {
        return Fate::Answered(chunk);
    }
    let late = state.between(Duration::ZERO, Duration::from_secs(8));
    match state.rng.u32(..13) {
        0 | 1 => Fate::CutBefore,
        2 | 3 => Fate::CutAfter,
        4 => Fate::SilentBefore,
        5 => Fate::SilentAfter,
        6..9 => Fate::Late(late),
        9 => Fate::Torn,
        10 => Fate::Garbage,
        _ => Fate::CutAnswered,
    }
}

/// Reads until the other side gives up.
async fn be_silent(mut stream: DuplexStream) {
    let mut sink = [0; 4096];
    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
}

/// Carries a request out. The answer's frame.
fn answer(cluster: &Cluster, broker: usize, mut frame: Bytes, throttle: i32) -> Vec<u8> {
    let mut state = cluster.state();
    let header = decode_request_header_from_buffer(&mut frame).expect("a request header");
    let version = header.request_api_version;
    match ApiKey::try_from(header.request_api_key).expect("an API of Kafka's") {
        ApiKey::ApiVersions => api_versions(&state, &header),
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut frame, version).expect("a Metadata request");
            encode(&header, version, &metadata(&mut state, broker, &request, throttle))
        }
        ApiKey::InitProducerId => {
            let mut response = InitProducerIdResponse::default().with_throttle_time_ms(throttle);
            let rate = state.scenario.fault_rate;
            if state.chance(rate) {
                response.error_code = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0;
            } else {
                response.producer_id = state.new_producer_id().into();
            }
            encode(&header, version, &response)
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut frame, version).expect("a Produce request");
            assert_eq!(request.acks, -1);
            encode(&header, version, &produce(&mut state, broker, version, request, throttle))
        }
        other => panic!("{other:?} is not asked here"),
    }
}

fn encode<R: Encodable + HeaderVersion>(request: &RequestHeader, version: i16, response: &R) -> Vec<u8> {
    let mut frame = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(request.correlation_id);
    header.encode(&mut frame, R::header_version(version)).expect("a header");
    response.encode(&mut frame, version).expect("a response");
    let length = i32::try_from(frame.len()).expect("short").to_be_bytes();
    [&length[..], &frame].concat()
}

fn api_versions(state: &State, header: &RequestHeader) -> Vec<u8> {
    let versions = state.scenario.versions;
    if versions.refuses_api_versions && header.request_api_version > 2 {
        let refusal = ApiVersionsResponse::default().with_error_code(ErrorCode::UNSUPPORTED_VERSION.0);
        return encode(header, 0, &refusal);
    }
    let speaks =
        |key: ApiKey, max| ApiVersion::default().with_api_key(key as i16).with_min_version(0).with_max_version(max);
    let keys = vec![
        speaks(ApiKey::Produce, versions.produce),
        speaks(ApiKey::Metadata, versions.metadata),
        speaks(ApiKey::InitProducerId, 1),
        speaks(ApiKey::ApiVersions, 3),
    ];
    encode(header, header.request_api_version, &ApiVersionsResponse::default().with_api_keys(keys))
}

fn metadata(state: &mut State, broker: usize, request: &MetadataRequest, throttle: i32) -> MetadataResponse {
    let image = state.image(broker);
    let brokers = image.brokers.iter().map(|id| {
        MetadataResponseBroker::default()
            .with_node_id((*id as i32).into())
            .with_host(host(*id))
            .with_port(i32::from(FIRST_PORT) + *id as i32)
    });
    let names = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
    let rate = state.scenario.fault_rate / 10.0;
    let topics = names.map(|name| {
        let answer = MetadataResponseTopic::default().with_name(Some(name.clone()));
        if state.chance(rate) {
            let codes = [
                ErrorCode::LEADER_NOT_AVAILABLE,
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                ErrorCode::UNKNOWN_SERVER_ERROR,
            ];
            return answer.with_error_code(state.rng.choice(codes).expect("not empty").0);
        }
        let Some((id, leaders)) = image.topics.get(name.as_str()) else {
            return answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
        };
        let partitions = leaders.iter().enumerate().map(|(index, (leader, epoch))| {
            let code = if leader.is_some() { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE };
            MetadataResponsePartition::default()
                .with_error_code(code.0)
                .with_partition_index(index as i32)
                .with_leader_id(leader.map_or(-1, |leader| leader as i32).into())
                .with_leader_epoch(*epoch)
        });
        answer.with_topic_id(uuid(*id)).with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    MetadataResponse::default()
        .with_throttle_time_ms(throttle)
        .with_cluster_id(Some(StrBytes::from_static_str("model")))
        .with_controller_id(0.into())
        .with_brokers(brokers.collect())
        .with_topics(topics)
}

/// What goes wrong with one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Twist {
    None,
    /// Refused with this code; told with an offset, as if it had been appended and was truncated when the leader changed.
    Refused(ErrorCode, bool),
    /// Appended, and answered with this code.
    Appended(ErrorCode),
    /// Appended or not, and left out of the answer.
    LeftOut(bool),
}

/// What a scripted scenario wants to happen, in this order: each step waits for the next request of its kind, or the
/// next batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Request(ApiKey, Fate),
    Batch(Twist),
}

fn draw_twist(state: &mut State) -> Twist {
    if let Some(Step::Batch(twist)) = state.script.pop_front_if(|step| matches!(step, Step::Batch(_))) {
        return twist;
    }
    let rate = state.scenario.fault_rate / 2.0;
    if !state.chance(rate) {
        return Twist::None;
    }
    let refusals = [
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::FENCED_LEADER_EPOCH,
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::THROTTLING_QUOTA_EXCEEDED,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ];
    // What a leader may say that appended and then waited for its replicas in vain.
    let after_append = [
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
    ];
    match state.rng.u32(..10) {
        0..5 => Twist::Refused(state.rng.choice(refusals).expect("not empty"), false),
        5 => Twist::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER, true),
        6..9 => Twist::Appended(state.rng.choice(after_append).expect("not empty")),
        _ => Twist::LeftOut(state.rng.bool()),
    }
}

fn produce(state: &mut State, broker: usize, version: i16, request: ProduceRequest, throttle: i32) -> ProduceResponse {
    let mut endpoints = Vec::new();
    let mut responses = Vec::new();
    for data in request.topic_data {
        let topic =
            if version >= 13 { state.by_id(data.topic_id.as_u128()) } else { state.by_name(data.name.as_str()) };
        let mut answers = Vec::new();
        for partition in data.partition_data {
            let twist = draw_twist(state);
            let left_out = matches!(twist, Twist::LeftOut(_));
            let records = partition.records.unwrap_or_default();
            if state.scripted {
                state.arrivals.push((partition.index, records.clone()));
            }
            let answer = PartitionProduceResponse::default().with_index(partition.index).with_base_offset(-1);
            let answer = match topic {
                None if version >= 13 => answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0),
                None => answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0),
                Some(topic) => {
                    let hint = state.rng.bool().then_some(&mut endpoints).filter(|_| version >= 10);
                    append(state, broker, topic, records, twist, answer, hint)
                }
            };
            state.note(&("answer", topic, answer.index, answer.error_code, answer.base_offset, left_out));
            if !left_out {
                answers.push(answer);
            }
        }
        responses.push(
            TopicProduceResponse::default()
                .with_name(data.name)
                .with_topic_id(data.topic_id)
                .with_partition_responses(answers),
        );
    }
    ProduceResponse::default().with_responses(responses).with_throttle_time_ms(throttle).with_node_endpoints(endpoints)
}

/// One partition's batch. `hint`: where to name the new leader's address, if the broker is so kind (KIP-951).
fn append(
    state: &mut State,
    broker: usize,
    topic: usize,
    records: Bytes,
    twist: Twist,
    answer: PartitionProduceResponse,
    hint: Option<&mut Vec<NodeEndpoint>>,
) -> PartitionProduceResponse {
    let index = answer.index as usize;
    let max_message_bytes = state.topics[topic].max_message_bytes;
    let Some(partition) = state.topics[topic].partitions.get(index) else {
        return answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    };
    if partition.leader != Some(broker) {
        let answer = answer.with_error_code(ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
        let (Some(leader), Some(endpoints)) = (partition.leader, hint) else { return answer };
        endpoints.push(
            NodeEndpoint::default()
                .with_node_id((leader as i32).into())
                .with_host(host(leader))
                .with_port(i32::from(FIRST_PORT) + leader as i32),
        );
        let leader =
            LeaderIdAndEpoch::default().with_leader_id((leader as i32).into()).with_leader_epoch(partition.epoch);
        return answer.with_current_leader(leader);
    }
    if partition.starved {
        return answer.with_error_code(ErrorCode::NOT_ENOUGH_REPLICAS.0);
    }
    if let Twist::Refused(code, truncated) = twist {
        return answer.with_error_code(code.0).with_base_offset(if truncated { 1_000_000 } else { -1 });
    }
    if records.len() > max_message_bytes {
        return answer.with_error_code(ErrorCode::MESSAGE_TOO_LARGE.0);
    }
    let (batch, values) = read_batch(records);
    let invalid: Vec<_> = (0..values.len()).filter(|i| values[*i].starts_with(INVALID)).collect();
    if !invalid.is_empty() {
        let errors = invalid.iter().map(|i| BatchIndexAndErrorMessage::default().with_batch_index(*i as i32));
        return answer.with_error_code(ErrorCode::INVALID_RECORD.0).with_record_errors(errors.collect());
    }
    if matches!(twist, Twist::LeftOut(false)) {
        return answer;
    }
    match state.append(topic, index, &Incoming::new(&batch, values)) {
        Err(code) => answer.with_error_code(code.0),
        Ok(offset) => match twist {
            Twist::Appended(ErrorCode::DUPLICATE_SEQUENCE_NUMBER) => {
                state.offset_not_told.push((topic, index, offset));
                answer.with_error_code(ErrorCode::DUPLICATE_SEQUENCE_NUMBER.0)
            }
            // These two are what a broker says when it does not know itself what it has done.
            Twist::Appended(code @ (ErrorCode::KAFKA_STORAGE_ERROR | ErrorCode::UNKNOWN_SERVER_ERROR)) => {
                answer.with_error_code(code.0)
            }
            Twist::Appended(code) => answer.with_error_code(code.0).with_base_offset(offset),
            _ => answer.with_base_offset(offset),
        },
    }
}

/// The one batch of a partition's records field, and its values.
fn read_batch(records: Bytes) -> (kafka_records::Batch, Vec<String>) {
    let mut batches = kafka_records::batches(records);
    let batch = batches.next().expect("a batch").expect("a sound one");
    assert!(batches.next().is_none(), "one batch per partition and request");
    let values: Vec<_> = batch
        .records(usize::MAX)
        .expect("readable")
        .map(|record| {
            let value = record.expect("sound").value.expect("not a tombstone");
            String::from_utf8(value.to_vec()).expect("text")
        })
        .collect();
    (batch, values)
}

fn host(broker: usize) -> StrBytes {
    StrBytes::from_string(format!("broker-{broker}"))
}

/// The type is in a crate that is not ours to name.
fn uuid<T: std::str::FromStr>(id: u128) -> T {
    let Ok(uuid) = format!("{id:032x}").parse() else { unreachable!("32 hexadecimal digits") };
    uuid
}
