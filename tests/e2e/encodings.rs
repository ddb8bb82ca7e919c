//! Compressed request bodies, and what a hostile one may cost.

use std::process::{Command, Stdio};

use penstock_tests::{
    bridge::Bridge,
    shared::{bridge, one_broker, three_brokers},
    tools::{Answer, compressed, curl_answer, curl_command, curl_with_input},
};

use crate::support::{assert_counts, assert_topic_is_log, log_lines, values};

fn post(bridge: &Bridge, topic: &str, encoding: &str, body: &[u8]) -> Answer {
    let encoding = format!("Content-Encoding: {encoding}");
    let arguments = ["-H", "Content-Type: application/x-ndjson", "-H", &encoding, "--data-binary", "@-"];
    curl_with_input(bridge, &format!("/v1/topics/{topic}/records"), &arguments, body)
}

#[test]
fn compressed_bodies_are_the_lines_that_were_compressed() {
    let (cluster, bridge) = (three_brokers(), bridge());
    for program in ["gzip", "zstd"] {
        let topic = cluster.create_topic("encoded", 1);
        let answer = post(bridge, &topic, program, &compressed(program, &log_lines(0, 5_000))).expect(200);
        assert_counts(&answer.json(), 5_000, 5_000, 0, 0);
        // Files that were joined (`cat a.gz b.gz`) are one body.
        let joined =
            [compressed(program, &log_lines(5_000, 1_000)), compressed(program, &log_lines(6_000, 1_000))].concat();
        assert_counts(&post(bridge, &topic, program, &joined).expect(200).json(), 2_000, 2_000, 0, 0);
        assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 7_000);
    }
}

#[test]
fn a_compressed_body_that_ends_early_is_a_bad_request_that_says_what_was_written() {
    let (cluster, bridge) = (three_brokers(), bridge());
    for program in ["gzip", "zstd"] {
        let topic = cluster.create_topic("truncated", 1);
        let whole = compressed(program, &log_lines(0, 5_000));
        let answer = post(bridge, &topic, program, &whole[..whole.len() / 2]).expect(400);
        let written = answer.json()["written"].as_u64().expect("the summary's members");
        assert!(written < 5_000);
        assert_topic_is_log(&cluster.bootstrap(), &topic, 0, written);

        let answer = post(bridge, &topic, program, b"this was never compressed").expect(400);
        assert_eq!(answer.json()["error_code"], 400);
        assert_topic_is_log(&cluster.bootstrap(), &topic, 0, written);
    }
}

#[test]
fn an_encoding_that_is_not_served_is_told_as_415() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("unserved", 1);
    for encoding in ["br", "deflate", "gzip, gzip"] {
        assert_eq!(post(bridge, &topic, encoding, b"x\n").expect(415).json()["error_code"], 415, "{encoding}");
    }
    post(bridge, &topic, "identity", b"x\n").expect(200);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"x"]);
}

#[test]
fn a_bomb_costs_time_and_no_memory() {
    let cluster = one_broker();
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("bomb", 1);
    // As bombs come: 1,000 and 30,000 times their size. Smaller than the 256 KiB that the bridge still reads of a body
    // which it refuses, or curl would sometimes meet the closed connection before the answer.
    for (program, bytes, kind) in [
        ("zstd", "1G", "application/x-ndjson"),
        ("gzip", "200M", "application/x-ndjson"),
        ("zstd", "1G", "application/octet-stream"),
        ("gzip", "200M", "application/octet-stream"),
    ] {
        let mut zeros = Command::new("head")
            .args(["-c", bytes, "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("head is there");
        let bomb = Command::new(program)
            .args(["-c", "-9"])
            .stdin(zeros.stdout.take().expect("it is piped"))
            .output()
            .expect("tests/run installs it");
        zeros.wait().expect("it is our child");
        let bomb = penstock_tests::tools::file("bomb", &bomb.stdout);

        let mut curl = curl_command(&bridge, &format!("/v1/topics/{topic}/records"));
        curl.args(["-H", &format!("Content-Type: {kind}"), "-H", &format!("Content-Encoding: {program}")]);
        curl.args(["--data-binary", &format!("@{bomb}")]);
        let answer = curl_answer(curl.output().expect("curl is there")).expect(413);
        assert_eq!(answer.json()["error_code"], 413);
    }
    assert!(values(&cluster.bootstrap(), &topic).is_empty());
    let peak = bridge.peak_resident_bytes();
    assert!(peak < 200 << 20, "{} MiB resident", peak >> 20);
}
