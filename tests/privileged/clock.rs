//! A clock that jumps: timers do not care, timestamps follow it.

use std::{fs, time::Duration};

use penstock_tests::{
    bridge::{Bridge, Settings},
    shared::one_broker,
    temp_dir,
    tools::{curl_ndjson, kcat_read},
};

const HOUR_MS: i64 = 3_600_000;

/// Debian's libfaketime, for each of the architectures it may lie under.
fn library() -> String {
    let found = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.is_file().then(|| path.display().to_string())
    });
    found.min().expect("libfaketime is installed: apt-get install faketime")
}

#[test]
fn a_clock_that_goes_back_an_hour_holds_nothing_up() {
    let cluster = one_broker();
    let topic = cluster.create_topic("clock", 1);
    let offset = temp_dir("clock").join("offset");
    fs::write(&offset, "+0\n").expect("the temporary folder can be written");
    let prefix = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let settings = Settings::new(&cluster.bootstrap()).set("producer.linger", "\"100ms\"");
    let mut bridge = Bridge::start_under(&prefix, &settings);
    let path = format!("/v1/topics/{topic}/records");
    curl_ndjson(&bridge, &path, b"before\n").expect(200);
    fs::write(&offset, "-3600\n").expect("the temporary folder can be written");
    curl_ndjson(&bridge, &path, b"back\n").expect(200);
    fs::write(&offset, "+3600\n").expect("the temporary folder can be written");
    curl_ndjson(&bridge, &path, b"ahead\n").expect(200);
    let records = kcat_read(&cluster.bootstrap(), &topic);
    let texts: Vec<_> = records.iter().map(penstock_tests::tools::Record::text).collect();
    assert_eq!(texts, ["before", "back", "ahead"]);
    let jump = |from: usize, to: usize| records[to].timestamp - records[from].timestamp;
    assert!((-HOUR_MS..-HOUR_MS / 2).contains(&jump(0, 1)), "the clock did go back: {}", jump(0, 1));
    assert!((HOUR_MS..3 * HOUR_MS).contains(&jump(1, 2)), "and ahead: {}", jump(1, 2));
    bridge.signal("TERM");
    assert_eq!(bridge.wait_for_exit(Duration::from_secs(60)), 0);
}
