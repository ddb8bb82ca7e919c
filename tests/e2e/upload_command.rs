//! `penstock upload`: files into a topic, through cuts and restarts.

use std::{
    fs,
    io::{BufWriter, Write},
    process::{Command, Output, Stdio},
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings, binary},
    eventually,
    shared::{bridge, one_broker, three_brokers},
    temp_dir,
    tls::certificates,
    tools::{compressed, file, with_input},
};

use crate::{
    large::{NumberedLines, large_bytes},
    support::{assert_topic_is_log, log_lines, values},
};

fn upload(bridge: &Bridge, topic: &str) -> Command {
    let mut command = Command::new(binary());
    command.args(["upload", "--url", &bridge.url(""), "--topic", topic]).arg("--ca").arg(&certificates().ca);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn files_of_every_kind_are_uploaded_in_their_order() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("files", 1);
    let plain = file("0.ndjson", &log_lines(0, 1_000));
    let gzip = file("1.ndjson.gz", &compressed("gzip", &log_lines(1_000, 1_000)));
    let zstd = file("2.ndjson.zst", &compressed("zstd", &log_lines(2_000, 1_000)));
    let output = run(upload(bridge, &topic).args([&plain, &gzip, &zstd]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for file in [&plain, &gzip, &zstd] {
        assert!(said(&output).contains(&format!("{file}: 1000 lines, 1000 written")), "{}", said(&output));
    }
    let output = with_input(upload(bridge, &topic).arg("-"), &log_lines(3_000, 1_000));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 4_000);
}

#[test]
fn the_exit_status_tells_whether_everything_was_written() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("status", 1);
    // One line that is too long: the others are written, the status is 1.
    let body = [b"first\n".as_slice(), &vec![b'x'; (1 << 20) + 1], b"\nthird\n"].concat();
    let output = run(upload(bridge, &topic).arg(file("long.ndjson", &body)));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"first", b"third"]);
    // No such topic, no such file: nothing was written.
    let output = run(upload(bridge, "no-such-topic").arg(file("a.ndjson", b"a\n")));
    assert!(!output.status.success());
    assert!(said(&output).contains("no-such-topic"), "{}", said(&output));
    let output = run(upload(bridge, &topic).arg("/nonexistent/file.ndjson"));
    assert!(!output.status.success());
    assert!(said(&output).contains("/nonexistent/file.ndjson"), "{}", said(&output));
    assert_eq!(values(&cluster.bootstrap(), &topic).len(), 2);
}

#[test]
fn a_bridge_that_is_killed_in_the_middle_costs_no_line() {
    let cluster = one_broker();
    let mut bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("runtime.workers", "0"));
    let topic = cluster.create_topic("killed", 3);
    let lines = NumberedLines::new(large_bytes(), 1_024);
    let path = temp_dir("large").join("large.ndjson");
    let mut out = BufWriter::new(fs::File::create(&path).expect("the temporary folder can be written"));
    lines.write(0, lines.count, &mut out).expect("there is room for the file");
    out.flush().expect("there is room for the file");

    let upload = upload(&bridge, &topic)
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Killed twice, each time somewhere in the middle: a third of the lines later.
    for _ in 0..2 {
        eventually("a third is written", Duration::from_secs(120), || {
            let written = bridge.metric("penstock_records_total", &["outcome=\"written\""]);
            (written >= lines.count as f64 / 3.5).then_some(())
        });
        bridge.kill();
        bridge.start_again();
    }
    let output = upload.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    fs::remove_file(&path).expect("it is ours");
    // What was on its way when the bridge died is sent again: lines may be there twice, none is missing.
    lines.assert_in_topic(cluster, &topic, true);
}
