//! The messages of administration.

use super::*;

// ---- settings ----

fn describe_configs_response(version: i16) -> theirs::DescribeConfigsResponse {
    use theirs::describe_configs_response as t;
    let synonym =
        t::DescribeConfigsSynonym::default().with_name(text("log.retention.ms")).with_value(None).with_source(4);
    let mut entry = t::DescribeConfigsResourceResult::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("5")))
        .with_config_source(1)
        .with_synonyms(vec![synonym]);
    if version >= 3 {
        entry.config_type = 5;
        entry.documentation = Some(text("doc"));
    }
    let secret = t::DescribeConfigsResourceResult::default()
        .with_name(text("secret"))
        .with_value(None)
        .with_config_source(5)
        .with_is_sensitive(true)
        .with_read_only(true);
    let result = t::DescribeConfigsResult::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![entry, secret]);
    theirs::DescribeConfigsResponse::default().with_results(vec![result])
}

#[test]
fn describe_configs_is_the_same_message_at_every_version() {
    let resources = vec![ConfigResource::Topic("t".into()), ConfigResource::Broker(7), ConfigResource::BrokerDefaults];
    for version in versions::<DescribeConfigsRequest>() {
        let request = DescribeConfigsRequest { resources: resources.clone(), synonyms: true };
        let read: theirs::DescribeConfigsRequest = read_by_theirs(&request, version);
        let named: Vec<_> = read.resources.iter().map(|r| (r.resource_type, &*r.resource_name)).collect();
        assert_eq!(named, [(2, "t"), (4, "7"), (4, "")]);
        assert!(read.resources.iter().all(|resource| resource.configuration_keys.is_none()));
        assert!(read.include_synonyms);
        let response = written_by_theirs::<DescribeConfigsRequest>(&describe_configs_response(version), version);
        let entries = &response.resources[0].entries;
        assert_eq!((&*entries[0].name, entries[0].value.as_deref()), ("retention.ms", Some("5")));
        assert_eq!((entries[0].source, entries[0].source.name()), (ConfigSource::TOPIC, "DYNAMIC_TOPIC_CONFIG"));
        let synonym = ConfigSynonym { name: "log.retention.ms".into(), value: None, source: ConfigSource(4) };
        assert_eq!(entries[0].synonyms, [synonym]);
        assert_eq!((&entries[1].value, entries[1].source), (&None, ConfigSource::DEFAULT));
        assert!(entries[1].sensitive && entries[1].read_only);
    }
}

fn incremental_alter_configs_response() -> theirs::IncrementalAlterConfigsResponse {
    use theirs::incremental_alter_configs_response as t;
    let result = t::AlterConfigsResourceResponse::default()
        .with_error_code(40)
        .with_error_message(Some(text("no such setting")))
        .with_resource_type(4)
        .with_resource_name(text("7"));
    theirs::IncrementalAlterConfigsResponse::default().with_throttle_time_ms(3).with_responses(vec![result])
}

#[test]
fn incremental_alter_configs_is_the_same_message_at_every_version() {
    let change = |name: &str, value: Option<&str>| ConfigChange { name: name.into(), value: value.map(Into::into) };
    let request = IncrementalAlterConfigsRequest {
        resource: ConfigResource::Broker(7),
        changes: vec![change("a", Some("1")), change("b", None)],
        validate_only: true,
    };
    for version in versions::<IncrementalAlterConfigsRequest>() {
        let read: theirs::IncrementalAlterConfigsRequest = read_by_theirs(&request, version);
        assert!(read.validate_only);
        assert_eq!((read.resources[0].resource_type, &*read.resources[0].resource_name), (4, "7"));
        let changes = read.resources[0].configs.iter().map(|c| (&*c.name, c.config_operation, c.value.as_deref()));
        assert_eq!(changes.collect::<Vec<_>>(), [("a", 0, Some("1")), ("b", 1, None)]);
        let response =
            written_by_theirs::<IncrementalAlterConfigsRequest>(&incremental_alter_configs_response(), version);
        assert_eq!(response.results, [(ErrorCode::INVALID_CONFIG, Some("no such setting".into()))]);
    }
}

// ---- partitions ----

fn create_partitions_response() -> theirs::CreatePartitionsResponse {
    use theirs::create_partitions_response as t;
    let result = t::CreatePartitionsTopicResult::default()
        .with_name(text("t").into())
        .with_error_code(37)
        .with_error_message(Some(text("fewer")));
    theirs::CreatePartitionsResponse::default().with_results(vec![result])
}

#[test]
fn create_partitions_is_the_same_message_at_every_version() {
    let request = CreatePartitionsRequest { name: "t".into(), count: 9, timeout: Duration::from_secs(30) };
    for version in versions::<CreatePartitionsRequest>() {
        let read: theirs::CreatePartitionsRequest = read_by_theirs(&request, version);
        assert_eq!((&**read.topics[0].name, read.topics[0].count), ("t", 9));
        assert_eq!(read.topics[0].assignments, None);
        assert_eq!((read.timeout_ms, read.validate_only), (30_000, false));
        let response = written_by_theirs::<CreatePartitionsRequest>(&create_partitions_response(), version);
        assert_eq!(response.topics[0].error, ErrorCode::INVALID_PARTITIONS);
        assert_eq!(response.topics[0].message.as_deref(), Some("fewer"));
    }
}

fn list_reassignments_response() -> theirs::ListPartitionReassignmentsResponse {
    use theirs::list_partition_reassignments_response as t;
    let ids = |ids: &[i32]| ids.iter().map(|id| (*id).into()).collect::<Vec<_>>();
    let partition = t::OngoingPartitionReassignment::default()
        .with_partition_index(2)
        .with_replicas(ids(&[1, 2, 3]))
        .with_adding_replicas(ids(&[3]))
        .with_removing_replicas(ids(&[1]));
    let topic = t::OngoingTopicReassignment::default().with_name(text("t").into()).with_partitions(vec![partition]);
    theirs::ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(vec![topic])
}

#[test]
fn list_partition_reassignments_is_the_same_message() {
    let timeout = Duration::from_secs(30);
    let some = ListPartitionReassignmentsRequest { of: Some(("t".into(), vec![0, 2])), timeout };
    let read: theirs::ListPartitionReassignmentsRequest = read_by_theirs(&some, 0);
    let topics = read.topics.expect("one topic");
    assert_eq!((&**topics[0].name, &*topics[0].partition_indexes), ("t", &[0, 2][..]));
    let all = ListPartitionReassignmentsRequest { of: None, timeout };
    let read: theirs::ListPartitionReassignmentsRequest = read_by_theirs(&all, 0);
    assert_eq!((read.topics, read.timeout_ms), (None, 30_000));
    let response = written_by_theirs::<ListPartitionReassignmentsRequest>(&list_reassignments_response(), 0);
    let moved = Reassignment { partition: 2, replicas: vec![1, 2, 3], adding: vec![3], removing: vec![1] };
    assert_eq!(response.topics, [("t".into(), vec![moved])]);
}

// ---- access rules ----

fn acl(name: &str, principal: &str) -> Acl {
    Acl {
        resource_type: AclResourceType(2),
        resource_name: name.into(),
        pattern_type: AclPatternType(4),
        principal: principal.into(),
        host: "*".into(),
        operation: AclOperation(3),
        permission: AclPermission(3),
    }
}

fn filter() -> AclFilter {
    AclFilter {
        resource_type: AclResourceType::ANY,
        resource_name: Some("orders".into()),
        pattern_type: AclPatternType::MATCH,
        principal: None,
        host: Some("*".into()),
        operation: AclOperation::ANY,
        permission: AclPermission(2),
    }
}

fn describe_acls_response() -> theirs::DescribeAclsResponse {
    use theirs::describe_acls_response as t;
    let rule = |principal| {
        t::AclDescription::default()
            .with_principal(text(principal))
            .with_host(text("*"))
            .with_operation(3)
            .with_permission_type(3)
    };
    let resource = t::DescribeAclsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_pattern_type(4)
        .with_acls(vec![rule("User:a"), rule("User:b")]);
    theirs::DescribeAclsResponse::default().with_error_message(None).with_resources(vec![resource])
}

fn create_acls_response() -> theirs::CreateAclsResponse {
    use theirs::create_acls_response as t;
    let result = |code| t::AclCreationResult::default().with_error_code(code).with_error_message(None);
    theirs::CreateAclsResponse::default().with_results(vec![result(0), result(42)])
}

fn delete_acls_response() -> theirs::DeleteAclsResponse {
    use theirs::delete_acls_response as t;
    let rule = t::DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_pattern_type(4)
        .with_principal(text("User:a"))
        .with_host(text("*"))
        .with_operation(3)
        .with_permission_type(3);
    let result = t::DeleteAclsFilterResult::default().with_error_message(None).with_matching_acls(vec![rule]);
    theirs::DeleteAclsResponse::default().with_filter_results(vec![result])
}

#[test]
fn access_rules_are_the_same_messages_at_every_version() {
    for version in versions::<DescribeAclsRequest>() {
        let read: theirs::DescribeAclsRequest = read_by_theirs(&DescribeAclsRequest { filter: filter() }, version);
        assert_eq!((read.resource_type_filter, read.pattern_type_filter), (1, 2));
        assert_eq!((read.resource_name_filter.as_deref(), &read.principal_filter), (Some("orders"), &None));
        assert_eq!((read.host_filter.as_deref(), read.operation, read.permission_type), (Some("*"), 1, 2));
        let response = written_by_theirs::<DescribeAclsRequest>(&describe_acls_response(), version);
        assert_eq!(response.acls, [acl("orders", "User:a"), acl("orders", "User:b")]);
    }
    for version in versions::<CreateAclsRequest>() {
        let request = CreateAclsRequest { acls: vec![acl("orders", "User:a"), acl("logs-", "User:b")] };
        let read: theirs::CreateAclsRequest = read_by_theirs(&request, version);
        let second = &read.creations[1];
        assert_eq!((second.resource_type, &*second.resource_name, second.resource_pattern_type), (2, "logs-", 4));
        assert_eq!((&*second.principal, &*second.host), ("User:b", "*"));
        assert_eq!((second.operation, second.permission_type), (3, 3));
        let response = written_by_theirs::<CreateAclsRequest>(&create_acls_response(), version);
        assert_eq!(response.results, [(ErrorCode::NONE, None), (ErrorCode::INVALID_REQUEST, None)]);
    }
    for version in versions::<DeleteAclsRequest>() {
        let read: theirs::DeleteAclsRequest = read_by_theirs(&DeleteAclsRequest { filter: filter() }, version);
        assert_eq!((read.filters[0].pattern_type_filter, read.filters[0].permission_type), (2, 2));
        assert_eq!(read.filters[0].resource_name_filter.as_deref(), Some("orders"));
        let response = written_by_theirs::<DeleteAclsRequest>(&delete_acls_response(), version);
        assert_eq!(response.results[0].acls, [(ErrorCode::NONE, acl("orders", "User:a"))]);
    }
}

#[test]
fn kafka_s_numbers_have_names() {
    assert_eq!(AclOperation::named("describe_configs"), Some(AclOperation(10)));
    assert_eq!((AclOperation(10).name(), AclOperation(99).name()), ("DESCRIBE_CONFIGS", "UNKNOWN"));
    assert_eq!(AclResourceType::named("TOPICS"), None);
    assert_eq!((ConfigSource(2).name(), ConfigSource(-3).name()), ("DYNAMIC_BROKER_CONFIG", "UNKNOWN"));
}

// ---- groups ----

fn list_groups_response(version: i16) -> theirs::ListGroupsResponse {
    use theirs::list_groups_response as t;
    let mut group = t::ListedGroup::default().with_group_id(text("g").into()).with_protocol_type(text("consumer"));
    if version >= 4 {
        group.group_state = text("Stable");
    }
    if version >= 5 {
        group.group_type = text("classic");
    }
    theirs::ListGroupsResponse::default().with_groups(vec![group])
}

fn describe_groups_response(version: i16) -> theirs::DescribeGroupsResponse {
    use theirs::describe_groups_response as t;
    let mut member = t::DescribedGroupMember::default()
        .with_member_id(text("m-1"))
        .with_client_id(text("c"))
        .with_client_host(text("/127.0.0.1"))
        .with_member_metadata(Bytes::from_static(b"subscription"))
        .with_member_assignment(Bytes::from_static(b"assignment"));
    if version >= 4 {
        member.group_instance_id = Some(text("i"));
    }
    let mut group = t::DescribedGroup::default()
        .with_group_id(text("g").into())
        .with_group_state(text("Stable"))
        .with_protocol_type(text("consumer"))
        .with_protocol_data(text("range"))
        .with_members(vec![member]);
    if version >= 6 {
        group.error_message = Some(text("m"));
    }
    theirs::DescribeGroupsResponse::default().with_groups(vec![group])
}

#[test]
fn groups_are_the_same_messages_at_every_version() {
    for version in versions::<ListGroupsRequest>() {
        let read: theirs::ListGroupsRequest = read_by_theirs(&ListGroupsRequest, version);
        assert!(read.states_filter.is_empty() && read.types_filter.is_empty());
        let response = written_by_theirs::<ListGroupsRequest>(&list_groups_response(version), version);
        let kind = (version >= 5).then(|| "classic".into());
        assert_eq!(response.groups, [ListedGroup { id: "g".into(), protocol_type: "consumer".into(), kind }]);
    }
    for version in versions::<DescribeGroupsRequest>() {
        let request = DescribeGroupsRequest { groups: vec!["g".into(), "h".into()] };
        let read: theirs::DescribeGroupsRequest = read_by_theirs(&request, version);
        assert_eq!((read.groups.len(), &**read.groups[1], read.include_authorized_operations), (2, "h", false));
        let response = written_by_theirs::<DescribeGroupsRequest>(&describe_groups_response(version), version);
        let group = &response.groups[0];
        assert_eq!((&*group.id, &*group.state, &*group.protocol), ("g", "Stable", "range"));
        assert_eq!(group.message.is_some(), version >= 6);
        let member = &group.members[0];
        assert_eq!((&*member.id, &*member.client_id, &*member.host), ("m-1", "c", "/127.0.0.1"));
        assert_eq!((member.instance_id.is_some(), &member.assignment[..]), (version >= 4, &b"assignment"[..]));
    }
}

#[test]
fn a_member_s_assignment_is_read_as_the_other_implementation_writes_it() {
    use theirs::consumer_protocol_assignment as t;
    let topic = t::TopicPartition::default().with_topic(text("t").into()).with_partitions(vec![0, 3]);
    let theirs = theirs::ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    theirs.encode(&mut bytes, 1).expect("theirs");
    let member = |assignment: Bytes| DescribedMember {
        id: "m".into(),
        instance_id: None,
        client_id: "c".into(),
        host: "h".into(),
        assignment,
    };
    let whole = bytes.freeze();
    assert_eq!(member(whole.clone()).assigned(), Ok(vec![("t".into(), vec![0, 3])]));
    assert_eq!(member(Bytes::new()).assigned(), Ok(Vec::new()));
    for end in 1..whole.len() - 4 {
        assert!(member(whole.slice(..end)).assigned().is_err(), "cut at {end}");
    }
    assert!(member(Bytes::from_static(b"\0\0\x7f\xff\xff\xff")).assigned().is_err());
}

// ---- hostile bytes ----

/// Every decoder here at every version.
pub(super) fn decode_all(bytes: &Bytes) {
    fn decode<R: Request>(bytes: &Bytes) {
        for version in versions::<R>() {
            let _ = decode_answer::<R>(version, bytes.clone());
        }
    }
    decode::<DescribeConfigsRequest>(bytes);
    decode::<IncrementalAlterConfigsRequest>(bytes);
    decode::<CreatePartitionsRequest>(bytes);
    decode::<ListPartitionReassignmentsRequest>(bytes);
    decode::<DescribeAclsRequest>(bytes);
    decode::<CreateAclsRequest>(bytes);
    decode::<DeleteAclsRequest>(bytes);
    decode::<ListGroupsRequest>(bytes);
    decode::<DescribeGroupsRequest>(bytes);
}

/// Valid answers in the oldest or the newest version.
pub(super) fn valid_answers(old: bool) -> Vec<Bytes> {
    fn answer<R: Request, T: Encodable>(old: bool, theirs: impl Fn(i16) -> T) -> Bytes {
        let version = if old { R::API.min } else { R::API.max };
        answer_of_theirs::<R>(&theirs(version), version)
    }
    vec![
        answer::<DescribeConfigsRequest, _>(old, describe_configs_response),
        answer::<IncrementalAlterConfigsRequest, _>(old, |_| incremental_alter_configs_response()),
        answer::<CreatePartitionsRequest, _>(old, |_| create_partitions_response()),
        answer::<ListPartitionReassignmentsRequest, _>(old, |_| list_reassignments_response()),
        answer::<DescribeAclsRequest, _>(old, |_| describe_acls_response()),
        answer::<CreateAclsRequest, _>(old, |_| create_acls_response()),
        answer::<DeleteAclsRequest, _>(old, |_| delete_acls_response()),
        answer::<ListGroupsRequest, _>(old, list_groups_response),
        answer::<DescribeGroupsRequest, _>(old, describe_groups_response),
    ]
}
