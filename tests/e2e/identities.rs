//! Callers who prove who they are: curl with a certificate or a password, `penstock upload`, a reload by signal.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings, binary, penstock},
    eventually,
    shared::three_brokers,
    temp_dir,
    tls::certificates,
    tools::{curl, file, with_input},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const RULES: &str = "identity = \"cert:orders\"\ntopics = [\"*\"]\nallow = [\"produce\"]\n\
                     [[access]]\nidentity = \"user:alice\"\ntopics = [\"*\"]\nallow = [\"produce\"]\n";

/// An authority of clients, and a certificate and key of `orders` in one file, as curl takes it.
fn client(folder: &Path) -> (PathBuf, PathBuf) {
    let mut authority = CertificateParams::new([]).expect("no names");
    authority.distinguished_name.push(DnType::CommonName, "Clients of tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let ca = authority.self_signed(&key).expect("the authority signs itself").pem();
    let issuer = Issuer::new(authority, key);
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "orders");
    let own = KeyPair::generate().expect("a key can be made");
    let certificate = params.signed_by(&own, &issuer).expect("the authority signs").pem();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).expect("the temporary folder can be written");
        path
    };
    (write("ca.pem", ca), write("orders.pem", certificate + &own.serialize_pem()))
}

fn bridge(folder: &Path, ca: &Path) -> (Bridge, PathBuf) {
    let mut hash = std::process::Command::new(binary());
    let line = with_input(hash.args(["hash-password", "alice"]), b"open sesame\n");
    assert!(line.status.success(), "{line:?}");
    let users = folder.join("users");
    fs::write(&users, line.stdout).expect("the temporary folder can be written");
    let path = |path: &Path| format!("{:?}", path.display().to_string());
    let settings = Settings::new(&three_brokers().bootstrap())
        .set("tls.client_auth", "\"optional\"")
        .set("tls.client_ca", &path(ca))
        .set("auth.users_file", &path(&users))
        .with_access(RULES);
    (Bridge::start_with(&settings), users)
}

#[test]
fn a_certificate_or_a_password_opens_the_door_and_a_signal_changes_the_lock() {
    let folder = temp_dir("identities");
    let (ca, orders) = client(&folder);
    let (bridge, users) = bridge(&folder, &ca);
    let topic = three_brokers().create_topic("identities", 1);
    let path = format!("/v1/topics/{topic}/records");
    let post = |arguments: &[&str]| curl(&bridge, &path, &[arguments, &["-d", "a record"]].concat());

    let nobody = post(&[]).expect(401);
    assert_eq!(nobody.json()["error_code"], 40101);
    assert_eq!(nobody.header("www-authenticate"), Some("Basic realm=\"penstock\", charset=\"UTF-8\""));
    post(&["--cert", &orders.display().to_string()]).expect(200);
    post(&["--user", "alice:open sesame"]).expect(200);
    post(&["--anyauth", "--user", "alice:open sesame"]).expect(200);
    post(&["--user", "alice:open says me"]).expect(401);

    let lines = file("lines.ndjson", b"{\"n\":1}\n{\"n\":2}\n");
    let password = file("password", b"open sesame\n");
    let ca = certificates().ca.display().to_string();
    let url = bridge.url("");
    let upload = |more: &[&str]| {
        let arguments = ["upload", "--url", &url, "--topic", &topic, "--ca", &ca, "--json"];
        penstock([&arguments[..], more, &[&lines]].concat())
    };
    let done = upload(&["--user", "alice", "--password-file", &password]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let orders = orders.display().to_string();
    let done = upload(&["--cert", &orders, "--cert-key", &orders]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(upload(&[]).status.code(), Some(3));

    // Another user, and none of before.
    let text = fs::read_to_string(&users).expect("written above").replace("alice:", "bob:");
    fs::write(&users, text).expect("the temporary folder can be written");
    let rules = fs::read_to_string(&bridge.config).expect("it runs with it").replace("user:alice", "user:bob");
    fs::write(&bridge.config, rules).expect("the temporary folder can be written");
    bridge.signal("HUP");
    eventually("the lock has changed", Duration::from_secs(60), || {
        (post(&["--user", "bob:open sesame"]).status == 200).then_some(())
    });
    post(&["--user", "alice:open sesame"]).expect(401);
    post(&["--cert", &orders]).expect(200);
}
