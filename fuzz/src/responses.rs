//! A broker's answer to any request at any version.

use bytes::Bytes;
use kafka_client::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, Request, SaslAuthenticateRequest,
    SaslHandshakeRequest, decode_answer,
};

/// The first byte says to which request, the second at which version; the rest is the answer. No bytes make a decoder panic
/// or allocate more than a small multiple of their length.
pub fn run(data: &[u8]) {
    let [api, version, answer @ ..] = data else { return };
    let answer = Bytes::copy_from_slice(answer);
    match api % 11 {
        0 => decode::<ApiVersionsRequest>(*version, answer),
        1 => decode::<MetadataRequest>(*version, answer),
        2 => decode::<InitProducerIdRequest>(*version, answer),
        3 => decode::<ProduceRequest>(*version, answer),
        4 => decode::<FetchRequest>(*version, answer),
        5 => decode::<ListOffsetsRequest>(*version, answer),
        6 => decode::<CreateTopicsRequest>(*version, answer),
        7 => decode::<DeleteTopicsRequest>(*version, answer),
        8 => decode::<DescribeConfigsRequest>(*version, answer),
        9 => decode::<SaslHandshakeRequest>(*version, answer),
        _ => decode::<SaslAuthenticateRequest>(*version, answer),
    }
}

fn decode<R: Request>(version: u8, answer: Bytes) {
    let versions = R::API.max - R::API.min + 1;
    let version = R::API.min + i16::from(version) % versions;
    let _ = decode_answer::<R>(version, answer);
}
