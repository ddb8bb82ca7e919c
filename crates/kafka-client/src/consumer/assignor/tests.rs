use super::*;
use proptest::prelude::*;

fn member(id: &str, topics: &[&str], owned: &[(&str, &[i32])], generation: i32) -> Member {
    Member {
        id: id.into(),
        instance: None,
        subscription: Subscription {
            topics: topics.iter().map(|topic| (*topic).into()).collect(),
            owned: owned.iter().map(|(topic, partitions)| ((*topic).into(), partitions.to_vec())).collect(),
            generation,
            ..Subscription::default()
        },
    }
}

fn counts(topics: &[(&str, i32)]) -> PartitionCounts {
    topics.iter().map(|(topic, count)| ((*topic).into(), *count)).collect()
}

fn told(assignor: Assignor, members: &[Member], topics: &[(&str, i32)]) -> Vec<String> {
    let mut told: Vec<_> = assign(assignor, members, &counts(topics))
        .into_iter()
        .map(|(member, assignment)| {
            let parts: Vec<_> =
                assignment.partitions.iter().map(|(topic, partitions)| format!("{topic}{partitions:?}")).collect();
            format!("{member}: {}", parts.join(" "))
        })
        .collect();
    told.sort();
    told
}

#[test]
fn ranges_go_to_members_in_their_order() {
    // The example in the documentation of Java's RangeAssignor.
    let two = [member("c1", &["t1", "t0"], &[], -1), member("c0", &["t0", "t1"], &[], -1)];
    assert_eq!(told(Assignor::Range, &two, &[("t0", 3), ("t1", 3)]), ["c0: t0[0, 1] t1[0, 1]", "c1: t0[2] t1[2]"]);
    // A static member comes before the others.
    let mut last = member("z", &["t0"], &[], -1);
    last.instance = Some("zz".into());
    let members = [last, member("a", &["t0"], &[], -1)];
    assert_eq!(told(Assignor::Range, &members, &[("t0", 3)]), ["a: t0[2]", "z: t0[0, 1]"]);
    let more = [member("a", &["t"], &[], -1), member("b", &["t"], &[], -1), member("c", &["t", "gone"], &[], -1)];
    assert_eq!(told(Assignor::Range, &more, &[("t", 2)]), ["a: t[0]", "b: t[1]", "c: "]);
}

#[test]
fn a_partition_moves_in_two_phases() {
    let topics = [("t", 4)];
    let old = member("old", &["t"], &[("t", &[0, 1, 2, 3])], 5);
    // The new member gets nothing yet: the old one still reads.
    let first = told(Assignor::CooperativeSticky, &[old, member("new", &["t"], &[], -1)], &topics);
    assert_eq!(first[0], "new: ");
    assert_eq!(first[1].matches(',').count(), 1, "two are left to it: {first:?}");
    let old = member("old", &["t"], &[("t", &[2, 3])], 6);
    let second = told(Assignor::CooperativeSticky, &[old, member("new", &["t"], &[], 6)], &topics);
    assert_eq!(second, ["new: t[0, 1]", "old: t[2, 3]"]);
}

#[test]
fn the_newest_claim_counts() {
    let topics = [("t", 2)];
    let zombie = member("a", &["t"], &[("t", &[0, 1])], 3);
    let owner = member("b", &["t"], &[("t", &[0, 1])], 7);
    // The zombie is told to give up what is not its own; nothing of it moves before.
    assert_eq!(told(Assignor::CooperativeSticky, &[zombie, owner], &topics), ["a: ", "b: t[1]"]);
    // Generations before version 2 of the format are in the user data.
    let mut old_format = member("c", &["t"], &[("t", &[1])], -1);
    old_format.subscription.user_data = Some(bytes::Bytes::from_static(&[0, 0, 0, 9]));
    let other = member("d", &["t"], &[("t", &[1, 0])], 8);
    let result = told(Assignor::CooperativeSticky, &[old_format, other], &topics);
    assert_eq!(result, ["c: t[1]", "d: t[0]"]);
}

fn arbitrary_members() -> impl Strategy<Value = Vec<Member>> {
    let topics = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
    let owned = proptest::collection::vec((prop::sample::select(vec!["a", "b", "x"]), -1..12_i32), 0..12);
    let one = (topics, owned, -1..4_i32).prop_map(|(topics, owned, generation)| {
        let mut member = member("", &topics, &[], generation);
        for (topic, partition) in owned {
            member.subscription.owned.push((topic.into(), vec![partition]));
        }
        member
    });
    proptest::collection::vec(one, 1..7).prop_map(|mut members| {
        for (index, member) in members.iter_mut().enumerate() {
            member.id = format!("m{index}").into();
        }
        members
    })
}

/// All partitions that a member of `members` wants.
fn wanted_partitions(members: &[Member], counts: &PartitionCounts) -> BTreeSet<(Arc<str>, i32)> {
    let topics: BTreeSet<_> = members.iter().flat_map(|member| member.subscription.topics.clone()).collect();
    topics
        .into_iter()
        .flat_map(|topic| (0..counts.get(&topic).copied().unwrap_or(0)).map(move |p| (topic.clone(), p)))
        .collect()
}

/// No partition twice, none that its reader does not want; what there is.
fn checked(members: &[Member], assignments: &[(Arc<str>, Assignment)]) -> BTreeSet<(Arc<str>, i32)> {
    let mut all = BTreeSet::new();
    for (id, assignment) in assignments {
        let member = members.iter().find(|member| member.id == *id).expect("a member");
        for (topic, partitions) in &assignment.partitions {
            assert!(member.subscription.topics.contains(topic));
            for partition in partitions {
                assert!(all.insert((topic.clone(), *partition)), "twice: {topic} {partition}");
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn every_partition_has_one_reader_when_the_rebalances_are_over(members in arbitrary_members()) {
        let counts = counts(&[("a", 7), ("b", 3), ("c", 1)]);
        let ranges = assign(Assignor::Range, &members, &counts);
        prop_assert_eq!(checked(&members, &ranges), wanted_partitions(&members, &counts));

        let mut members = members;
        // Members give up what was not assigned and join again.
        for round in 0..6_i32 {
            let shares = assign(Assignor::CooperativeSticky, &members, &counts);
            let all = checked(&members, &shares);
            let mut revoked = false;
            for (id, share) in &shares {
                let member = members.iter_mut().find(|member| member.id == *id).expect("a member");
                let kept: BTreeSet<_> = share
                    .partitions.iter().flat_map(|(t, ps)| ps.iter().map(move |p| (t.clone(), *p))).collect();
                revoked |= owned(member).any(|(topic, partition)| !kept.contains(&(topic.clone(), partition)));
                member.subscription.owned = share.partitions.clone();
                member.subscription.generation = 10 + round;
            }
            if !revoked {
                prop_assert_eq!(all, wanted_partitions(&members, &counts));
                return Ok(());
            }
            prop_assert!(round < 5, "it does not settle");
        }
    }

    #[test]
    fn members_that_want_the_same_get_as_much(count in 0..40_i32, readers in 1..8_usize) {
        let members: Vec<_> = (0..readers).map(|i| member(&format!("m{i}"), &["t"], &[], -1)).collect();
        let shares = assign(Assignor::CooperativeSticky, &members, &counts(&[("t", count)]));
        let sizes: Vec<usize> = shares.iter().map(|(_, share)| share.partitions.iter().map(|(_, p)| p.len()).sum()).collect();
        prop_assert!(sizes.iter().max().expect("some") - sizes.iter().min().expect("some") <= 1, "{:?}", sizes);
    }
}
