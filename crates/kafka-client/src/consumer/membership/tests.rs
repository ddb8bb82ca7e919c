use super::*;

const SESSION: Duration = Duration::from_secs(45);
const HEARTBEAT: Duration = Duration::from_secs(3);

fn settings(assignors: &[Assignor]) -> Settings {
    Settings {
        group: "g".into(),
        instance: None,
        rack: None,
        assignors: assignors.to_vec(),
        session_timeout: SESSION,
        rebalance_timeout: Duration::from_secs(300),
        heartbeat_interval: HEARTBEAT,
    }
}

fn parts(partitions: &[i32]) -> Vec<Partition> {
    partitions.iter().map(|partition| ("t".into(), *partition)).collect()
}

fn joined(generation: i32, protocol: &str, leader: &str) -> Result<JoinGroupResponse, Error> {
    Ok(JoinGroupResponse {
        throttle: Duration::ZERO,
        error: ErrorCode::NONE,
        generation,
        protocol: Some(protocol.into()),
        leader: leader.into(),
        skip_assignment: false,
        member: "me".into(),
        members: Vec::new(),
    })
}

fn refused(error: ErrorCode) -> Result<JoinGroupResponse, Error> {
    let answer = joined(-1, "", "").expect("an answer");
    Ok(JoinGroupResponse { error, ..answer })
}

fn synced(partitions: &[i32]) -> Result<SyncGroupResponse, Error> {
    let assignment = Assignment { partitions: vec![("t".into(), partitions.to_vec())] }.encode();
    Ok(SyncGroupResponse { throttle: Duration::ZERO, error: ErrorCode::NONE, assignment })
}

/// Takes a follower through one rebalance: what it was told to revoke before it joined, and the request it joined with.
fn rebalance(
    m: &mut Membership,
    generation: i32,
    protocol: &str,
    partitions: &[i32],
    now: Instant,
) -> JoinGroupRequest {
    if let Step::Revoke(revoked) = m.step(now) {
        m.handle_revoke(&revoked);
    }
    let Step::Join(request) = m.step(now) else { panic!("{:?}", m.step(now)) };
    m.handle_join(joined(generation, protocol, "other"), now);
    let Step::Sync(sync) = m.step(now) else { panic!("{:?}", m.step(now)) };
    assert!(sync.assignments.is_empty(), "it does not lead");
    assert_eq!((sync.generation, &*sync.member, &*sync.protocol), (generation, "me", protocol));
    m.handle_sync(synced(partitions), now);
    request
}

fn start(assignors: &[Assignor], partitions: &[i32], now: Instant) -> Membership {
    let mut m = Membership::new(settings(assignors), now);
    assert_eq!(m.step(now), Step::Wait(None));
    m.handle_topics(vec!["t".into()]);
    let Step::Join(first) = m.step(now) else { panic!("it joins") };
    assert_eq!(&*first.member, "");
    m.handle_join(refused(ErrorCode::MEMBER_ID_REQUIRED), now);
    let Step::Join(second) = m.step(now) else { panic!("it joins again") };
    assert_eq!(&*second.member, "me", "with the id that it was given (KIP-394)");
    let request = rebalance(&mut m, 1, assignors[0].name(), partitions, now);
    assert_eq!(&*request.member, "me");
    assert_eq!(m.step(now), Step::Assign(parts(partitions)));
    m.handle_assign(parts(partitions));
    assert_eq!(m.step(now), Step::Wait(Some(now + HEARTBEAT)));
    m
}

fn heartbeat(m: &mut Membership, code: ErrorCode, now: Instant) {
    assert!(matches!(m.step(now), Step::Heartbeat(_)), "{:?}", m.step(now));
    m.handle_heartbeat(Ok(code), now);
}

#[tokio::test(start_paused = true)]
async fn an_eager_member_gives_up_everything_before_it_joins_again() {
    let now = Instant::now();
    let mut m = start(&[Assignor::Range, Assignor::CooperativeSticky], &[0, 1], now);
    let now = now + HEARTBEAT;
    heartbeat(&mut m, ErrorCode::NONE, now);
    assert_eq!(m.step(now), Step::Wait(Some(now + HEARTBEAT)));
    let now = now + HEARTBEAT;
    heartbeat(&mut m, ErrorCode::REBALANCE_IN_PROGRESS, now);
    assert_eq!(m.step(now), Step::Revoke(parts(&[0, 1])));
    assert_eq!(m.credentials().expect("to commit with").generation, 1);
    let request = rebalance(&mut m, 2, "range", &[1], now);
    assert_eq!(request.protocols.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["range", "cooperative-sticky"]);
    let told = Subscription::decode(request.protocols[1].1.clone()).expect("ours");
    assert_eq!((told.owned, told.generation), (vec![], 1));
    assert_eq!(m.step(now), Step::Assign(parts(&[1])));
}

#[tokio::test(start_paused = true)]
async fn a_cooperative_member_keeps_what_it_is_left_and_joins_once_more() {
    let now = Instant::now();
    let mut m = start(&[Assignor::CooperativeSticky], &[0, 1, 2], now);
    let now = now + HEARTBEAT;
    heartbeat(&mut m, ErrorCode::REBALANCE_IN_PROGRESS, now);
    let request = rebalance(&mut m, 2, "cooperative-sticky", &[1, 2], now);
    let told = Subscription::decode(request.protocols[0].1.clone()).expect("ours");
    assert_eq!(told.owned, [("t".into(), vec![0, 1, 2])]);
    assert_eq!((told.generation, told.user_data.as_deref()), (1, Some(&[0, 0, 0, 1][..])));
    assert_eq!(m.step(now), Step::Revoke(parts(&[0])));
    m.handle_revoke(&parts(&[0]));
    let request = rebalance(&mut m, 3, "cooperative-sticky", &[1, 2], now);
    let told = Subscription::decode(request.protocols[0].1.clone()).expect("ours");
    assert_eq!((told.owned, told.generation), (vec![("t".into(), vec![1, 2])], 2));
    assert_eq!(m.step(now), Step::Wait(Some(now + HEARTBEAT)));
}

#[tokio::test(start_paused = true)]
async fn the_leader_assigns_for_everybody() {
    let now = Instant::now();
    let mut m = Membership::new(settings(&[Assignor::Range]), now);
    m.handle_topics(vec!["t".into()]);
    m.step(now);
    let member = |id: &str, topics: &[&str]| {
        let topics = topics.iter().map(|topic| (*topic).into()).collect();
        let subscription = Subscription { topics, ..Subscription::default() }.encode();
        crate::messages::JoinedMember { id: id.into(), instance: None, subscription }
    };
    let broken = crate::messages::JoinedMember { subscription: Bytes::from_static(b"?"), ..member("broken", &[]) };
    let answer = joined(1, "range", "me").expect("an answer");
    let members = vec![member("me", &["t"]), member("java", &["t", "u"]), broken];
    m.handle_join(Ok(JoinGroupResponse { members, ..answer }), now);
    assert_eq!(m.step(now), Step::Count(vec!["t".into(), "u".into()]));
    m.handle_count(&[("t".into(), 3), ("u".into(), 1)].into());
    let Step::Sync(sync) = m.step(now) else { panic!("it syncs") };
    let told: Vec<_> =
        sync.assignments.into_iter().map(|(id, bytes)| (id, Assignment::decode(bytes).expect("ours"))).collect();
    assert_eq!(
        told[0],
        ("java".into(), Assignment { partitions: vec![("t".into(), vec![0, 1]), ("u".into(), vec![0])] })
    );
    assert_eq!(told[1], ("me".into(), Assignment { partitions: vec![("t".into(), vec![2])] }));
    assert_eq!(m.led_topics(), ["t".into(), "u".into()]);
}

#[tokio::test(start_paused = true)]
async fn who_is_out_loses_its_partitions_without_a_commit_and_joins_again() {
    for (code, member) in [(ErrorCode::UNKNOWN_MEMBER_ID, ""), (ErrorCode::ILLEGAL_GENERATION, "me")] {
        let now = Instant::now();
        let mut m = start(&[Assignor::Range], &[0, 1], now);
        let now = now + HEARTBEAT;
        heartbeat(&mut m, code, now);
        assert_eq!(m.step(now), Step::Lose(parts(&[0, 1])));
        assert_eq!(m.credentials(), None, "nothing to commit with");
        m.handle_lose();
        let Step::Join(request) = m.step(now) else { panic!("it joins") };
        assert_eq!(&*request.member, member);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_an_answer_is_over() {
    let began = Instant::now();
    let mut m = start(&[Assignor::CooperativeSticky], &[0], began);
    let mut now = began;
    let failure = || Err(Error::TimedOut { maybe_sent: true, after: HEARTBEAT });
    while now < began + SESSION {
        assert!(!matches!(m.step(now), Step::Lose(_)), "not before its time");
        m.handle_heartbeat(failure(), now);
        now += HEARTBEAT;
    }
    assert_eq!(m.step(now), Step::Lose(parts(&[0])));
    // The same while it tries to join.
    let mut m = start(&[Assignor::CooperativeSticky], &[0], now);
    m.handle_changed_counts();
    assert!(matches!(m.step(now), Step::Join(_)), "it keeps what it has");
    m.handle_join(Err(Error::NoBroker("none")), now + HEARTBEAT);
    assert!(matches!(m.step(now), Step::Join(_)));
    m.handle_join(Err(Error::NoBroker("none")), now + SESSION);
    assert_eq!(m.step(now + SESSION), Step::Lose(parts(&[0])));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_pass_is_final() {
    let now = Instant::now();
    let fenced = |error: &Error| error.code() == Some(ErrorCode::FENCED_INSTANCE_ID);
    let mut m = start(&[Assignor::Range], &[0], now);
    heartbeat(&mut m, ErrorCode::FENCED_INSTANCE_ID, now + HEARTBEAT);
    assert_eq!(m.step(now), Step::Fail);
    assert!(m.failure().is_some_and(fenced));
    let mut m = Membership::new(settings(&[Assignor::Range]), now);
    m.handle_topics(vec!["t".into()]);
    m.step(now);
    m.handle_join(refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL), now);
    assert_eq!(m.step(now), Step::Fail);
    // An assignor that was not offered.
    let mut m = Membership::new(settings(&[Assignor::Range]), now);
    m.handle_topics(vec!["t".into()]);
    m.step(now);
    m.handle_join(joined(1, "sticky", "other"), now);
    assert!(matches!(m.failure(), Some(Error::InvalidRequest(_))));
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_during_the_sync_begins_again() {
    let now = Instant::now();
    let mut m = start(&[Assignor::Range], &[0], now);
    m.handle_topics(vec!["t".into(), "u".into()]);
    let Step::Revoke(revoked) = m.step(now) else { panic!("it is eager") };
    m.handle_revoke(&revoked);
    assert!(matches!(m.step(now), Step::Join(_)));
    m.handle_join(joined(2, "range", "other"), now);
    assert!(matches!(m.step(now), Step::Sync(_)));
    let answer = synced(&[]).expect("an answer");
    m.handle_sync(Ok(SyncGroupResponse { error: ErrorCode::REBALANCE_IN_PROGRESS, ..answer }), now);
    let Step::Join(request) = m.step(now) else { panic!("it joins again") };
    assert_eq!(&*request.member, "me");
}
