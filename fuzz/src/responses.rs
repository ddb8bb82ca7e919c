//! A broker's answer to any request at any version.

use bytes::Bytes;
use kafka_client::messages::{
    ApiVersionsRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest,
    DeleteTopicsRequest, DescribeAclsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, Request, SaslAuthenticateRequest, SaslHandshakeRequest,
    SyncGroupRequest, decode_answer,
};

/// The first byte says to which request, the second at which version; the rest is the answer. No bytes make a decoder panic
/// or allocate more than a small multiple of their length.
pub fn run(data: &[u8]) {
    let [api, version, answer @ ..] = data else { return };
    let answer = Bytes::copy_from_slice(answer);
    match api % 26 {
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
        10 => decode::<SaslAuthenticateRequest>(*version, answer),
        11 => decode::<IncrementalAlterConfigsRequest>(*version, answer),
        12 => decode::<CreatePartitionsRequest>(*version, answer),
        13 => decode::<ListPartitionReassignmentsRequest>(*version, answer),
        14 => decode::<DescribeAclsRequest>(*version, answer),
        15 => decode::<CreateAclsRequest>(*version, answer),
        16 => decode::<DeleteAclsRequest>(*version, answer),
        17 => decode::<ListGroupsRequest>(*version, answer),
        18 => decode::<DescribeGroupsRequest>(*version, answer),
        19 => decode::<FindCoordinatorRequest>(*version, answer),
        20 => decode::<JoinGroupRequest>(*version, answer),
        21 => decode::<SyncGroupRequest>(*version, answer),
        22 => decode::<HeartbeatRequest>(*version, answer),
        23 => decode::<LeaveGroupRequest>(*version, answer),
        24 => decode::<OffsetCommitRequest>(*version, answer),
        _ => decode::<OffsetFetchRequest>(*version, answer),
    }
}

fn decode<R: Request>(version: u8, answer: Bytes) {
    let versions = R::API.max - R::API.min + 1;
    let version = R::API.min + i16::from(version) % versions;
    let _ = decode_answer::<R>(version, answer);
}
