//! `penstock check`, what `serve` makes of a bad configuration, and access rules.

use std::{
    fs,
    process::Output,
    time::{Duration, SystemTime},
};

use penstock_tests::{
    bridge::{Bridge, Settings, binary, penstock},
    shared::one_broker,
    tls::self_signed,
    tools::{curl, curl_ndjson, file},
};

use crate::support::values;

fn check(settings: &Settings) -> Output {
    penstock(["check".as_ref(), "--config".as_ref(), settings.write().as_os_str()])
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn settings() -> Settings {
    Settings::new("127.0.0.1:9092")
}

#[test]
fn a_good_configuration_is_accepted() {
    let output = check(&settings());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn every_mistake_is_told_with_key_value_and_bound() {
    let settings = settings()
        .set("producer.linger", "\"11s\"")
        .set("producer.compression", "\"zip\"")
        .set("limits.head_bytes", "17")
        .set("listen.adress", "\"127.0.0.1:1\"");
    let output = check(&settings);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "producer.linger",
        "11s",
        "10s",
        "producer.compression",
        "zip",
        "lz4",
        "limits.head_bytes",
        "17",
        "listen.adress",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    // `serve` says the same and serves nothing.
    let served = penstock(["serve".as_ref(), "--config".as_ref(), settings.write().as_os_str()]);
    assert_eq!(served.status.code(), Some(2));
}

#[test]
fn what_cannot_be_read_is_a_mistake_too() {
    let missing = penstock(["check", "--config", "/nonexistent/penstock.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(said(&missing).contains("/nonexistent/penstock.toml"));
    let broken = penstock(["check", "--config", &file("penstock.toml", b"[listen\n")]);
    assert_eq!(broken.status.code(), Some(2), "{}", said(&broken));
    let no_certificate = check(&settings().set("tls.certificate", "\"/nonexistent/server.pem\""));
    assert_eq!(no_certificate.status.code(), Some(2));
    assert!(said(&no_certificate).contains("/nonexistent/server.pem"), "{}", said(&no_certificate));
}

#[test]
fn what_has_expired_is_refused_and_what_soon_will_is_warned_of() {
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    let check = |section: &str, until: SystemTime| {
        let (certificate, key) = self_signed(until);
        let path = |name, pem: String| format!("{:?}", file(name, pem.as_bytes()));
        let settings = settings()
            .set("kafka.security", "\"tls\"")
            .set(&format!("{section}.certificate"), &path("own.pem", certificate))
            .set(&format!("{section}.key"), &path("own.key", key));
        let output = check(&settings);
        (output.status.code(), said(&output))
    };
    for section in ["tls", "kafka"] {
        let (status, said) = check(section, now - day * 3);
        let found =
            said.contains(&format!("{section}.certificate = ")) && said.contains("own.pem\": expired 3 days ago");
        assert!(status == Some(2) && found, "{said}");
        let (status, said) = check(section, now + day * 5 + day / 2);
        let found = said.contains(&format!("warning: {section}.certificate = ")) && said.contains("expires in 5 days");
        assert!(status == Some(0) && found, "{said}");
        let (status, said) = check(section, now + day * 30);
        assert!(status == Some(0) && !said.contains("expire"), "{said}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let config = settings().write();
    let check = |name: &str, value: &str| {
        let mut command = std::process::Command::new(binary());
        let output = command.arg("check").arg("--config").arg(&config).env(name, value).output().expect("it starts");
        (output.status.code(), said(&output))
    };
    assert_eq!(check("PENSTOCK_PRODUCER__COMPRESSION", "lz4").0, Some(0));
    let (status, said) = check("PENSTOCK_PRODUCER__COMPRESSION", "zip");
    assert_eq!(status, Some(2));
    assert!(said.contains("zip"), "{said}");
    let (status, said) = check("PENSTOCK_NO__SUCH_KEY", "1");
    assert_eq!(status, Some(2));
    assert!(said.to_lowercase().contains("no.such_key") || said.contains("PENSTOCK_NO__SUCH_KEY"), "{said}");
}

#[test]
fn an_open_listener_needs_access_rules() {
    let output = check(&settings().set("listen.address", "\"0.0.0.0:8443\"").without_access());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("[[access]]") && said.contains("anyone"), "the lines to add are named:\n{said}");
    assert_eq!(check(&settings().set("listen.address", "\"0.0.0.0:8443\"")).status.code(), Some(0));
}

#[test]
fn a_loopback_listener_without_rules_serves_everyone() {
    let cluster = one_broker();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).without_access());
    let topic = cluster.create_topic("loopback", 1);
    curl_ndjson(&bridge, &format!("/v1/topics/{topic}/records"), b"x\n").expect(200);
}

#[test]
fn what_no_rule_allows_is_refused() {
    let cluster = one_broker();
    let topic = cluster.create_topic("rules", 1);
    let rule = "identity = \"anyone\"\ntopics = [\"other\", \"logs-*\"]\nallow = [\"produce\"]\n";
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).with_access(rule));
    let records = format!("/v1/topics/{topic}/records");
    assert_eq!(curl_ndjson(&bridge, &records, b"x\n").expect(403).json()["error_code"], 40301);
    let allowed = cluster.create_topic("logs", 1);
    curl_ndjson(&bridge, &format!("/v1/topics/{allowed}/records"), b"x\n").expect(200);
    // The verb counts too.
    let read = curl(&bridge, &format!("/v1/topics/{allowed}/partitions/0/records"), &[]).expect(403);
    assert_eq!(read.json()["error_code"], 40301);
    curl(&bridge, &format!("/v1/topics/{allowed}"), &["-X", "DELETE"]).expect(403);
    // A topic that is not there is no secret to find out by a different answer.
    curl_ndjson(&bridge, "/v1/topics/no-such-topic/records", b"x\n").expect(403);
    curl(&bridge, "/healthz", &[]).expect(200);
    assert!(values(&cluster.bootstrap(), &topic).is_empty());
    assert_eq!(values(&cluster.bootstrap(), &allowed), [b"x"]);
}

#[test]
fn a_configuration_of_the_fixture_holds_no_more_than_it_says() {
    // The fixture's own promise: one table each, so that a test's `set` really replaces.
    let text = fs::read_to_string(settings().set("drain.notice", "\"1s\"").write()).expect("it was written");
    assert_eq!(text.matches("notice").count(), 1);
}
