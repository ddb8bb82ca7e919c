//! `penstock tail`: records as they come.

use std::time::Duration;

use penstock_tests::{
    bridge::binary,
    process::Process,
    shared::{bridge, three_brokers},
    tls::certificates,
    tools::curl_ndjson,
};

#[test]
fn records_are_printed_as_they_come() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("tailed", 3);
    let program = binary().display().to_string();
    let ca = certificates().ca.display().to_string();
    let url = bridge.url("");
    let arguments = ["tail", "--url", &url, "--topic", &topic, "--ca", &ca];
    let mut tail = Process::spawn("penstock tail", &program, arguments, &[]);
    // It may begin at the end of the topic: write until it has seen one, then everything must be seen.
    let path = format!("/v1/topics/{topic}/records");
    penstock_tests::eventually("the tail has begun", Duration::from_secs(60), || {
        assert!(tail.is_running(), "{}", tail.tail(20));
        curl_ndjson(bridge, &path, b"{\"n\":\"begun\"}\n").expect(200);
        tail.output().iter().any(|line| line.contains("begun")).then_some(())
    });
    for partition in 0..3 {
        let body = format!("{{\"n\":\"partition {partition}\"}}\n");
        curl_ndjson(bridge, &format!("{path}?partition={partition}"), body.as_bytes()).expect(200);
        let expected = format!("partition {partition}");
        tail.wait_for_line(&expected, Duration::from_secs(60), |line| line.contains(&expected));
    }
    tail.signal("INT");
    assert_eq!(tail.wait_for_exit(Duration::from_secs(30)), 0);
}
