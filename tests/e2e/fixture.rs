//! The fixture itself: what every other test stands on.

use std::{fs, time::Duration};

use penstock_tests::{
    distribution::Version,
    eventually,
    kafka::Cluster,
    process::Process,
    shared::three_brokers,
    tools::{console_consumer, kcat_read, kcat_write},
};

#[test]
fn records_that_kcat_writes_are_read_back_on_every_version() {
    for version in [Version::V4_1_1, Version::V3_9_2, Version::V2_2_1] {
        let cluster = Cluster::start(version, 1, &[]);
        let topic = cluster.create_topic("fixture", 2);
        kcat_write(&cluster.bootstrap(), &topic, &["-p", "1", "-K", "=", "-H", "a=b"], "k=v\n");
        let records = kcat_read(&cluster.bootstrap(), &topic);
        assert_eq!(records.len(), 1, "{version}");
        assert_eq!((records[0].partition, records[0].offset), (1, 0));
        assert_eq!(records[0].key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(records[0].text(), "v");
        assert_eq!(records[0].headers, "a=b");
    }
}

#[test]
fn a_node_comes_back_on_its_port_with_its_data() {
    let cluster = Cluster::start(Version::V4_1_1, 1, &[]);
    let topic = cluster.create_topic("fixture", 1);
    kcat_write(&cluster.bootstrap(), &topic, &[], "before\n");
    cluster.restart(0);
    kcat_write(&cluster.bootstrap(), &topic, &[], "after\n");
    assert_eq!(console_consumer(&cluster.bootstrap(), &topic, 2), b"before\nafter\n");
}

#[test]
fn three_brokers_share_a_topic_s_leaders() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("fixture", 3);
    let mut leaders: Vec<_> = (0..3).map(|partition| cluster.leader(0, &topic, partition)).collect();
    leaders.sort_unstable();
    assert_eq!(leaders, [Some(0), Some(1), Some(2)]);
}

#[test]
fn a_child_process_dies_with_the_pipe_that_watches_it() {
    let mut process = Process::spawn("sleeper", "sleep", ["600"], &[]);
    let stat = format!("/proc/{}/stat", process.pid());
    assert!(fs::exists(&stat).expect("/proc can be read") && process.is_running());
    process.kill();
    assert!(!process.is_running());
    eventually("the process is gone", Duration::from_secs(10), || (!fs::exists(&stat).ok()?).then_some(()));
}

#[test]
fn a_child_process_s_output_and_status_are_seen() {
    let mut process = Process::spawn("speaker", "sh", ["-c", "echo one; echo two >&2; exit 7"], &[]);
    process.wait_for_line("two", Duration::from_secs(10), |line| line == "two");
    assert_eq!(process.wait_for_exit(Duration::from_secs(10)), 7);
    assert_eq!(process.output(), ["one", "two"]);
}
