//! The messages of consumer groups.

use super::*;

fn find_coordinator_response(version: i16) -> theirs::FindCoordinatorResponse {
    use theirs::find_coordinator_response as t;
    let response = theirs::FindCoordinatorResponse::default().with_throttle_time_ms(7);
    if version < 4 {
        return response.with_error_code(0).with_node_id(3.into()).with_host(text("b-3")).with_port(9092);
    }
    let coordinator = t::Coordinator::default()
        .with_key(text("g"))
        .with_node_id(3.into())
        .with_host(text("b-3"))
        .with_port(9092)
        .with_error_message(None);
    response.with_coordinators(vec![coordinator])
}

#[test]
fn find_coordinator_is_the_same_message_at_every_version() {
    for version in versions::<FindCoordinatorRequest>() {
        let read: theirs::FindCoordinatorRequest =
            read_by_theirs(&FindCoordinatorRequest { group: "g".into() }, version);
        assert_eq!(read.key_type, 0);
        if version < 4 {
            assert_eq!(&*read.key, "g");
        } else {
            assert_eq!(read.coordinator_keys, [text("g")]);
        }
        let response = written_by_theirs::<FindCoordinatorRequest>(&find_coordinator_response(version), version);
        let expected = Broker { id: 3, host: "b-3".into(), port: 9092, rack: None };
        assert_eq!((response.throttle, response.error), (Duration::from_millis(7), ErrorCode::NONE));
        assert_eq!(response.coordinator, Some(expected));
        let refusal = if version < 4 {
            theirs::FindCoordinatorResponse::default().with_error_code(15).with_port(-1)
        } else {
            let mut refusal = find_coordinator_response(version);
            refusal.coordinators[0].error_code = 15;
            refusal.coordinators[0].port = -1;
            refusal
        };
        let response = written_by_theirs::<FindCoordinatorRequest>(&refusal, version);
        assert_eq!((response.error, response.coordinator), (ErrorCode::COORDINATOR_NOT_AVAILABLE, None));
    }
}

fn join_group_response(version: i16) -> theirs::JoinGroupResponse {
    use theirs::join_group_response as t;
    let mut member = t::JoinGroupResponseMember::default()
        .with_member_id(text("m-1"))
        .with_metadata(Bytes::from_static(b"subscription"));
    member.group_instance_id = (version >= 5).then(|| text("i-1"));
    let mut response = theirs::JoinGroupResponse::default()
        .with_throttle_time_ms(1)
        .with_error_code(79)
        .with_generation_id(8)
        .with_protocol_name(Some(text("range")))
        .with_leader(text("m-1"))
        .with_member_id(text("m-2"))
        .with_members(vec![member]);
    response.protocol_type = (version >= 7).then(|| text("consumer"));
    response.skip_assignment = version >= 9;
    response
}

#[test]
fn join_group_is_the_same_message_at_every_version() {
    let request = JoinGroupRequest {
        group: "g".into(),
        session_timeout: Duration::from_secs(45),
        rebalance_timeout: Duration::from_secs(300),
        member: "m".into(),
        instance: Some("i".into()),
        protocols: vec![("range", Bytes::from_static(b"abc")), ("cooperative-sticky", Bytes::from_static(b"de"))],
        reason: Some("why".into()),
    };
    for version in versions::<JoinGroupRequest>() {
        let read: theirs::JoinGroupRequest = read_by_theirs(&request, version);
        assert_eq!((&**read.group_id, &*read.member_id, &*read.protocol_type), ("g", "m", "consumer"));
        assert_eq!((read.session_timeout_ms, read.rebalance_timeout_ms), (45_000, 300_000));
        assert_eq!(read.group_instance_id.as_deref(), (version >= 5).then_some("i"));
        assert_eq!(read.reason.as_deref(), (version >= 8).then_some("why"));
        let protocols: Vec<_> = read.protocols.iter().map(|p| (&*p.name, &p.metadata[..])).collect();
        assert_eq!(protocols, [("range", &b"abc"[..]), ("cooperative-sticky", b"de")]);
        let response = written_by_theirs::<JoinGroupRequest>(&join_group_response(version), version);
        let expected = JoinGroupResponse {
            throttle: Duration::from_millis(1),
            error: ErrorCode::MEMBER_ID_REQUIRED,
            generation: 8,
            protocol: Some("range".into()),
            leader: "m-1".into(),
            skip_assignment: version >= 9,
            member: "m-2".into(),
            members: vec![JoinedMember {
                id: "m-1".into(),
                instance: (version >= 5).then(|| "i-1".into()),
                subscription: Bytes::from_static(b"subscription"),
            }],
        };
        assert_eq!(response, expected);
    }
}

fn sync_group_response(version: i16) -> theirs::SyncGroupResponse {
    let mut response = theirs::SyncGroupResponse::default()
        .with_throttle_time_ms(1)
        .with_error_code(27)
        .with_assignment(Bytes::from_static(b"assignment"));
    if version >= 5 {
        response.protocol_type = Some(text("consumer"));
        response.protocol_name = Some(text("range"));
    }
    response
}

fn heartbeat_response() -> theirs::HeartbeatResponse {
    theirs::HeartbeatResponse::default().with_throttle_time_ms(1).with_error_code(27)
}

fn leave_group_response(version: i16) -> theirs::LeaveGroupResponse {
    use theirs::leave_group_response as t;
    let response = theirs::LeaveGroupResponse::default().with_throttle_time_ms(1);
    if version < 3 {
        return response.with_error_code(25);
    }
    response.with_members(vec![t::MemberResponse::default().with_member_id(text("m")).with_error_code(25)])
}

#[test]
fn a_member_s_requests_are_the_same_messages_at_every_version() {
    let request = SyncGroupRequest {
        group: "g".into(),
        generation: 8,
        member: "m".into(),
        instance: Some("i".into()),
        protocol: "range".into(),
        assignments: vec![("m".into(), Bytes::from_static(b"one")), ("n".into(), Bytes::from_static(b"two"))],
    };
    for version in versions::<SyncGroupRequest>() {
        let read: theirs::SyncGroupRequest = read_by_theirs(&request, version);
        assert_eq!((&**read.group_id, &*read.member_id, read.generation_id), ("g", "m", 8));
        assert_eq!(read.group_instance_id.as_deref(), (version >= 3).then_some("i"));
        assert_eq!(read.protocol_name.as_deref(), (version >= 5).then_some("range"));
        assert_eq!(read.protocol_type.as_deref(), (version >= 5).then_some("consumer"));
        let assignments: Vec<_> = read.assignments.iter().map(|a| (&*a.member_id, &a.assignment[..])).collect();
        assert_eq!(assignments, [("m", &b"one"[..]), ("n", b"two")]);
        let response = written_by_theirs::<SyncGroupRequest>(&sync_group_response(version), version);
        assert_eq!((response.error, &response.assignment[..]), (ErrorCode::REBALANCE_IN_PROGRESS, &b"assignment"[..]));
    }
    let request = HeartbeatRequest { group: "g".into(), generation: 8, member: "m".into(), instance: Some("i".into()) };
    for version in versions::<HeartbeatRequest>() {
        let read: theirs::HeartbeatRequest = read_by_theirs(&request, version);
        assert_eq!((&**read.group_id, &*read.member_id, read.generation_id), ("g", "m", 8));
        assert_eq!(read.group_instance_id.as_deref(), (version >= 3).then_some("i"));
        let response = written_by_theirs::<HeartbeatRequest>(&heartbeat_response(), version);
        assert_eq!(response.error, ErrorCode::REBALANCE_IN_PROGRESS);
    }
    let request = LeaveGroupRequest {
        group: "g".into(),
        member: "m".into(),
        instance: Some("i".into()),
        reason: Some("closed".into()),
    };
    for version in versions::<LeaveGroupRequest>() {
        let read: theirs::LeaveGroupRequest = read_by_theirs(&request, version);
        assert_eq!(&**read.group_id, "g");
        if version < 3 {
            assert_eq!(&*read.member_id, "m");
        } else {
            let member = &read.members[0];
            assert_eq!((&*member.member_id, member.group_instance_id.as_deref()), ("m", Some("i")));
            assert_eq!(member.reason.as_deref(), (version >= 5).then_some("closed"));
        }
        let response = written_by_theirs::<LeaveGroupRequest>(&leave_group_response(version), version);
        assert_eq!(response.error, ErrorCode::UNKNOWN_MEMBER_ID);
    }
}

fn offset_commit_response() -> theirs::OffsetCommitResponse {
    use theirs::offset_commit_response as t;
    let partition = t::OffsetCommitResponsePartition::default().with_partition_index(3).with_error_code(22);
    let topic = t::OffsetCommitResponseTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
    theirs::OffsetCommitResponse::default().with_throttle_time_ms(1).with_topics(vec![topic])
}

fn committed() -> CommittedOffset {
    CommittedOffset { partition: 3, offset: 77, leader_epoch: 5, metadata: Some("note".into()) }
}

#[test]
fn offset_commit_is_the_same_message_at_every_version() {
    let request = OffsetCommitRequest {
        group: "g".into(),
        generation: 8,
        member: "m".into(),
        instance: Some("i".into()),
        topics: vec![("t".into(), vec![committed()])],
    };
    for version in versions::<OffsetCommitRequest>() {
        let read: theirs::OffsetCommitRequest = read_by_theirs(&request, version);
        assert_eq!((&**read.group_id, &*read.member_id, read.generation_id_or_member_epoch), ("g", "m", 8));
        assert_eq!(read.group_instance_id.as_deref(), (version >= 7).then_some("i"));
        let partition = &read.topics[0].partitions[0];
        assert_eq!((&**read.topics[0].name, partition.partition_index), ("t", 3));
        assert_eq!((partition.committed_offset, partition.committed_leader_epoch), (77, 5));
        assert_eq!(partition.committed_metadata.as_deref(), Some("note"));
        let response = written_by_theirs::<OffsetCommitRequest>(&offset_commit_response(), version);
        assert_eq!(response.topics, [("t".into(), vec![(3, ErrorCode::ILLEGAL_GENERATION)])]);
    }
}

fn offset_fetch_response(version: i16) -> theirs::OffsetFetchResponse {
    use theirs::offset_fetch_response as t;
    let response = theirs::OffsetFetchResponse::default().with_throttle_time_ms(1);
    if version < 8 {
        let partition = t::OffsetFetchResponsePartition::default()
            .with_partition_index(3)
            .with_committed_offset(77)
            .with_committed_leader_epoch(5)
            .with_metadata(Some(text("note")))
            .with_error_code(88);
        let topic = t::OffsetFetchResponseTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
        return response.with_topics(vec![topic]).with_error_code(14);
    }
    let partition = t::OffsetFetchResponsePartitions::default()
        .with_partition_index(3)
        .with_committed_offset(77)
        .with_committed_leader_epoch(5)
        .with_metadata(Some(text("note")))
        .with_error_code(88);
    let topic = t::OffsetFetchResponseTopics::default().with_name(text("t").into()).with_partitions(vec![partition]);
    let group = t::OffsetFetchResponseGroup::default()
        .with_group_id(text("g").into())
        .with_topics(vec![topic])
        .with_error_code(14);
    response.with_groups(vec![group])
}

#[test]
fn offset_fetch_is_the_same_message_at_every_version() {
    let some =
        OffsetFetchRequest { group: "g".into(), topics: Some(vec![("t".into(), vec![3, 4])]), require_stable: true };
    let all = OffsetFetchRequest { topics: None, ..some.clone() };
    for version in versions::<OffsetFetchRequest>() {
        let read: theirs::OffsetFetchRequest = read_by_theirs(&some, version);
        let read_all: theirs::OffsetFetchRequest = read_by_theirs(&all, version);
        assert_eq!(read.require_stable, version >= 7);
        if version < 8 {
            let topics = read.topics.expect("some");
            assert_eq!((&**read.group_id, &**topics[0].name), ("g", "t"));
            assert_eq!(topics[0].partition_indexes, [3, 4]);
            assert_eq!(read_all.topics, None);
        } else {
            let group = &read.groups[0];
            let topics = group.topics.as_ref().expect("some");
            assert_eq!((&**group.group_id, &**topics[0].name), ("g", "t"));
            assert_eq!(topics[0].partition_indexes, [3, 4]);
            assert_eq!(read_all.groups[0].topics, None);
        }
        let response = written_by_theirs::<OffsetFetchRequest>(&offset_fetch_response(version), version);
        assert_eq!(response.error, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        assert_eq!(response.topics, [("t".into(), vec![(committed(), ErrorCode::UNSTABLE_OFFSET_COMMIT)])]);
    }
}

/// Every decoder at every version.
pub(super) fn decode_all(bytes: &Bytes) {
    fn decode<R: Request>(bytes: &Bytes) {
        for version in versions::<R>() {
            let _ = decode_answer::<R>(version, bytes.clone());
        }
    }
    decode::<FindCoordinatorRequest>(bytes);
    decode::<JoinGroupRequest>(bytes);
    decode::<SyncGroupRequest>(bytes);
    decode::<HeartbeatRequest>(bytes);
    decode::<LeaveGroupRequest>(bytes);
    decode::<OffsetCommitRequest>(bytes);
    decode::<OffsetFetchRequest>(bytes);
}

/// Valid answers to mutate.
pub(super) fn valid_answers(v: impl Fn(Api) -> i16) -> Vec<Bytes> {
    let (find, join) = (v(FindCoordinatorRequest::API), v(JoinGroupRequest::API));
    let (sync, leave) = (v(SyncGroupRequest::API), v(LeaveGroupRequest::API));
    let (commit, fetch) = (v(OffsetCommitRequest::API), v(OffsetFetchRequest::API));
    vec![
        answer_of_theirs::<FindCoordinatorRequest>(&find_coordinator_response(find), find),
        answer_of_theirs::<JoinGroupRequest>(&join_group_response(join), join),
        answer_of_theirs::<SyncGroupRequest>(&sync_group_response(sync), sync),
        answer_of_theirs::<HeartbeatRequest>(&heartbeat_response(), v(HeartbeatRequest::API)),
        answer_of_theirs::<LeaveGroupRequest>(&leave_group_response(leave), leave),
        answer_of_theirs::<OffsetCommitRequest>(&offset_commit_response(), commit),
        answer_of_theirs::<OffsetFetchRequest>(&offset_fetch_response(fetch), fetch),
    ]
}
