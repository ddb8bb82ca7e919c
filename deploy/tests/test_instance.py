"""What happens on an instance: its user data, run in a folder of its own, writes files that the real binary takes; what
changes is fetched; metrics and logs leave; the drain ends before the instance does.

`aws` and `systemctl` are stubs. Everything else is what it is on an instance.
"""

import datetime
import http.server
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import stat
import subprocess
import threading

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import DEPLOY

PENSTOCK = os.environ["PENSTOCK_BIN"]
RULES = '[[access]]\nidentity = "vpce-0123"\ntopics = ["orders"]\nallow = ["produce"]\n'
FLEET_SECRET = "k" * 64 + "\n"

AWS = """#!/bin/bash
# Answers from a folder of files, and writes down what it was asked.
echo "aws $*" >> "$STUBS/calls"
case "$1 $2" in
  "s3 cp")
    source=${*: -2:1} target=${*: -1}
    [ ! -e "$STUBS/s3-fails" ] || exit 1
    case $source in
      s3://*) cp "$STUBS/s3/$(basename "$source")" "$target" ;;
      *) cp "$source" "$STUBS/shipped-$(basename "$target")" ;;
    esac ;;
  "secretsmanager get-secret-value") cat "$STUBS/secret-$(basename "$4")" ;;
  "ssm get-parameter") cat "$STUBS/rules" ;;
  "ssm describe-instance-information")
    case "$4" in *Values=i-0abc,i-0def) cat "$STUBS/addresses" ;; *) exit 1 ;; esac ;;
  "cloudwatch put-metric-data") cp "${6#file://}" "$STUBS/metrics.json" ;;
  "autoscaling describe-auto-scaling-instances")
    case "$*" in
      *AutoScalingInstances\\[0\\]*) echo the-group ;;
      *'[].[InstanceId,AutoScalingGroupName]'*) printf '%s\\n' 'i-0def the-group' 'i-0123 another' 'i-0abc the-group' ;;
      *) exit 1 ;;
    esac ;;
  "autoscaling complete-lifecycle-action") ;;
  *) echo "nobody answers aws $*" >&2; exit 1 ;;
esac
"""

# Starts what runs once as systemd would: with its environment file, and waits for it.
SYSTEMCTL = """#!/bin/bash
echo "systemctl $*" >> "$STUBS/calls"
[ "$1" = start ] || exit 0
unit=$PENSTOCK_ROOT/etc/systemd/system/$2
grep -q '^Type=oneshot' "$unit" || exit 0
set -a
. "$PENSTOCK_ROOT$(sed -n 's/^EnvironmentFile=//p' "$unit")"
STATE_DIRECTORY=$PENSTOCK_ROOT/var/lib/$(sed -n 's/^StateDirectory=//p' "$unit")
mkdir -p "$STATE_DIRECTORY"
exec "$PENSTOCK_ROOT$(sed -n 's/^ExecStart=//p' "$unit")"
"""


class Metadata(http.server.BaseHTTPRequestHandler):
    """The instance's metadata service, version 2."""

    answers = {"placement/availability-zone-id": "usw2-az1", "instance-id": "i-0abc", "local-ipv4": "10.80.0.11", "autoscaling/target-lifecycle-state": "InService"}

    def do_PUT(self):
        self.reply(200, "a-token")

    def do_GET(self):
        if self.headers["X-aws-ec2-metadata-token"] != "a-token":
            return self.reply(401, "")
        found = self.answers.get(self.path.removeprefix("/latest/meta-data/"))
        return self.reply(200 if found else 404, found or "")

    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def served(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def certificate(name, days=30):
    """A PEM of certificate and key, as the secret holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made.public_bytes(text[0]).decode() + key.private_bytes(*text).decode()


class Instance:
    """A folder that stands for an instance's disk, and stubs of what is not there."""

    def __init__(self, folder, metadata):
        self.root, self.stubs = folder / "root", folder / "stubs"
        for made in (self.root, self.stubs / "s3", self.stubs / "bin"):
            made.mkdir(parents=True)
        for name, text in (("aws", AWS), ("systemctl", SYSTEMCTL)):
            path = self.stubs / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        self.environment = {
            "PATH": f"{self.stubs / 'bin'}:{os.environ['PATH']}",
            "STUBS": str(self.stubs),
            "PENSTOCK_ROOT": str(self.root),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata,
        }

    def bash(self, text, expect=0, **more):
        ran = subprocess.run(
            ["bash", "-c", text], env={**self.environment, **more}, cwd=self.root, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == expect, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def start(self, unit, expect=0):
        return self.bash(f"systemctl start {unit}", expect)

    def calls(self):
        return (self.stubs / "calls").read_text().splitlines()

    def check(self):
        return self.bash(f"{self.root}/opt/penstock/bin/penstock check --config {self.root}/var/lib/penstock/penstock.toml")


def user_data(template, launch_template, values):
    """The user data of a template, with CloudFormation's `Fn::Sub` done for these values."""

    class Loader(yaml.SafeLoader):
        pass

    def tagged(loader, tag, node):
        kind = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence, yaml.MappingNode: loader.construct_mapping}
        inner = kind[type(node)](node, deep=True) if type(node) is not yaml.ScalarNode else kind[type(node)](node)
        return {tag: inner}

    Loader.add_multi_constructor("!", tagged)
    text = (DEPLOY / template).read_text()
    data = yaml.load(text, Loader)["Resources"][launch_template]["Properties"]["LaunchTemplateData"]["UserData"]
    script = data["Fn::Base64"]["Sub"]
    script = script[0] if isinstance(script, list) else script
    for name, value in values.items():
        script = script.replace("${" + name + "}", value)
    script = script.replace("${!", "\0")
    assert "${" not in script, script
    return script.replace("\0", "${")


def values(release, **more):
    sums = (release.parent / (release.name + ".sha256")).read_text().strip()
    return {
        "AWS::Region": "us-west-2",
        "AWS::StackName": "msk-penstock-bridge",
        "BootstrapServers": "b-1.example:9098,b-2.example:9098",
        "KafkaAuthentication": "iam",
        "ScramSecretArn": "",
        "TlsSecretArn": "arn/tls",
        "FleetSecret": "arn/fleet",
        "ProxyTrusted": "10.80.0.0/20,10.80.16.0/20",
        "Bucket": "bucket",
        "ArtifactS3Uri": f"s3://bucket/releases/{release.name}",
        "ArtifactSha256": sums,
        **more,
    }


@pytest.fixture
def metadata():
    server, url = served(Metadata)
    yield url
    server.shutdown()


@pytest.fixture
def instance(tmp_path, metadata, dist):
    instance = Instance(tmp_path, metadata)
    for archive in dist.glob("*.tar.gz"):
        shutil.copy(archive, instance.stubs / "s3")
    (instance.stubs / "secret-tls").write_text(certificate("penstock.internal.example"))
    (instance.stubs / "rules").write_text(RULES)
    (instance.stubs / "secret-fleet").write_text(FLEET_SECRET)
    (instance.stubs / "addresses").write_text("10.80.0.11\t10.80.16.7\n")
    return instance


@pytest.fixture
def release(dist):
    return next(dist.glob("penstock-*.tar.gz"))


@pytest.fixture
def booted(instance, release):
    instance.bash(user_data("bridge.yaml", "LaunchTemplate", values(release)))
    return instance


def test_user_data_makes_a_configuration_that_the_bridge_takes(booted):
    said = booted.check()
    assert said.startswith("OK: https://0.0.0.0:8443 for 1 access rule(s), management on 0.0.0.0:8081, Kafka at b-1.example:9098")
    text = (booted.root / "var/lib/penstock/penstock.toml").read_text()
    for line in (
        'proxy_protocol = "required"',
        'proxy_trusted = ["10.80.0.0/20", "10.80.16.0/20"]',
        'bootstrap_servers = ["b-1.example:9098", "b-2.example:9098"]',
        'security = "sasl_tls"',
        'mechanism = "AWS_MSK_IAM"',
        'region = "us-west-2"',
        'rack = "usw2-az1"',
        'advertised = "10.80.0.11:8444"',
        'peers = ["10.80.0.11:8444", "10.80.16.7:8444"]',
        'identity = "vpce-0123"',
    ):
        assert line in text.splitlines(), line
    # The units are there, and are started: the certificate first.
    started = [call for call in booted.calls() if call.startswith("systemctl")]
    assert started[1] == "systemctl start penstock-refresh.service"
    assert "penstock.service" in started[2] and "penstock-lifecycle.service" in started[2] and "penstock-refresh.timer" in started[2]
    for unit in started[2].split()[3:]:
        assert (booted.root / "etc/systemd/system" / unit).is_file()
    # There is a user for them, and what is secret is nobody else's.
    assert "penstock:" in (booted.root / "etc/passwd").read_text()
    for secret in ("tls/server.key", "tls/server.pem", "fleet-secret", "penstock.toml"):
        assert stat.S_IMODE((booted.root / "var/lib/penstock" / secret).stat().st_mode) == 0o600


def test_a_release_with_another_checksum_is_not_unpacked(instance, release):
    said = instance.bash(user_data("bridge.yaml", "LaunchTemplate", values(release, ArtifactSha256="0" * 64)), expect=1)
    assert "checksum did NOT match" in said
    assert not (instance.root / "opt/penstock/libexec").exists()


def test_scram_has_its_password_in_a_file(instance, release):
    (instance.stubs / "secret-scram").write_text('{"username":"penstock","password":"s3cret"}')
    instance.bash(user_data("bridge.yaml", "LaunchTemplate", values(release, KafkaAuthentication="scram", ScramSecretArn="arn/scram")))
    instance.check()
    text = (instance.root / "var/lib/penstock/penstock.toml").read_text()
    assert 'mechanism = "SCRAM-SHA-512"' in text and 'username = "penstock"' in text
    password = instance.root / "var/lib/penstock/kafka-password"
    assert password.read_text() == "s3cret\n" and stat.S_IMODE(password.stat().st_mode) == 0o600
    assert "s3cret" not in text


def test_a_new_certificate_takes_the_place_of_the_old_and_of_both_files_at_once(booted):
    state = booted.root / "var/lib/penstock"
    old = os.readlink(state / "tls")
    assert booted.start("penstock-refresh.service") == ""
    assert os.readlink(state / "tls") == old
    (booted.stubs / "secret-tls").write_text(certificate("renewed.example"))
    assert "a new certificate" in booted.start("penstock-refresh.service")
    assert os.readlink(state / "tls") != old and not (state / old).exists()
    assert "renewed.example" in booted.bash(f"openssl x509 -in {state}/tls/server.pem -noout -subject")
    booted.check()
    assert not list(state.glob(".fetched*"))


def test_what_is_wrong_with_a_secret_keeps_the_certificate(booted):
    state = booted.root / "var/lib/penstock"
    good, kept = (booted.stubs / "secret-tls").read_text(), os.readlink(state / "tls")
    expired = certificate("expired.example", days=-2)
    other_key = certificate("a.example").split("-----BEGIN PRIVATE KEY")[0] + good[good.index("-----BEGIN PRIVATE KEY") :]
    for pem, why in (
        (expired, "has expired"),
        ("no PEM at all", "is none, or has expired"),
        (other_key, "does not belong to its key"),
        (good.split("-----BEGIN PRIVATE KEY")[0] + "\n", "has no private key"),
    ):
        (booted.stubs / "secret-tls").write_text(pem)
        assert why in booted.start("penstock-refresh.service", expect=1), why
        assert os.readlink(state / "tls") == kept
    booted.check()


def test_new_rules_are_taken_and_wrong_ones_are_not(booted):
    state = booted.root / "var/lib/penstock/penstock.toml"
    (booted.stubs / "rules").write_text(RULES.replace("vpce-0123", "vpce-0456"))
    assert "a new configuration" in booted.start("penstock-refresh.service")
    assert 'identity = "vpce-0456"' in state.read_text()
    before = state.read_text()
    (booted.stubs / "rules").write_text(RULES.replace("allow", "alow"))
    assert "alow" in booted.start("penstock-refresh.service", expect=1)
    assert state.read_text() == before


def test_peers_follow_the_group_and_stay_when_nobody_tells(booted):
    state = booted.root / "var/lib/penstock"
    configuration, addresses = state / "penstock.toml", booted.stubs / "addresses"
    # An instance whose agent has not said where it is yet.
    addresses.write_text("10.80.16.7\tNone\t10.80.32.3\n")
    assert "a new configuration" in booted.start("penstock-refresh.service")
    after = 'peers = ["10.80.0.11:8444", "10.80.16.7:8444", "10.80.32.3:8444"]'
    assert after in configuration.read_text().splitlines()
    addresses.write_text("10.80.32.3\n10.80.16.7\n")
    assert booted.start("penstock-refresh.service") == "", "the same in another order is no change"
    fetched = (state / "refreshed").stat().st_mtime_ns
    addresses.unlink()
    assert "addresses are not known" in booted.start("penstock-refresh.service", expect=1)
    assert after in configuration.read_text().splitlines()
    assert (state / "refreshed").stat().st_mtime_ns == fetched, "the alarm sees it"


def test_an_instance_that_cannot_learn_its_peers_serves_without(instance, release):
    (instance.stubs / "addresses").unlink()
    instance.bash(user_data("bridge.yaml", "LaunchTemplate", values(release)), REFRESH_RETRY_SECONDS="0")
    instance.check()
    assert 'peers = ["10.80.0.11:8444"]' in (instance.root / "var/lib/penstock/penstock.toml").read_text().splitlines()
    assert any("penstock.service" in call for call in instance.calls() if call.startswith("systemctl enable"))


def test_an_instance_without_a_certificate_does_not_start(instance, release):
    (instance.stubs / "secret-tls").unlink()
    instance.bash(user_data("bridge.yaml", "LaunchTemplate", values(release)), expect=1, REFRESH_RETRY_SECONDS="0")
    assert not any(call.startswith("systemctl enable") for call in instance.calls())


def test_a_new_secret_of_the_fleet_is_taken_and_a_short_one_is_not(booted):
    kept = booted.root / "var/lib/penstock/fleet-secret"
    assert kept.read_text() == FLEET_SECRET
    two = FLEET_SECRET + "n" * 32 + "\n"
    (booted.stubs / "secret-fleet").write_text(two)
    assert "a new secret of the fleet" in booted.start("penstock-refresh.service")
    for wrong in (FLEET_SECRET + "short\n", ""):
        (booted.stubs / "secret-fleet").write_text(wrong)
        assert "less than 32 characters" in booted.start("penstock-refresh.service", expect=1)
    (booted.stubs / "secret-fleet").unlink()
    assert "cannot be fetched" in booted.start("penstock-refresh.service", expect=1)
    assert kept.read_text() == two
    booted.check()


def test_certificates_and_rules_do_not_keep_each_other_back(booted):
    (booted.stubs / "secret-tls").write_text("nothing")
    (booted.stubs / "rules").write_text(RULES.replace("vpce-0123", "vpce-0789"))
    booted.start("penstock-refresh.service", expect=1)
    assert "vpce-0789" in (booted.root / "var/lib/penstock/penstock.toml").read_text()


def test_the_drain_ends_before_the_instance_does(booted, monkeypatch):
    monkeypatch.setitem(Metadata.answers, "autoscaling/target-lifecycle-state", "Terminated")
    said = booted.bash(f"set -a; . {booted.root}/etc/penstock/instance.env; {booted.root}/opt/penstock/libexec/lifecycle")
    assert "drained" in said
    calls = booted.calls()
    stop = calls.index("systemctl stop penstock.service")
    told = next(i for i, call in enumerate(calls) if call.startswith("aws autoscaling complete-lifecycle-action"))
    assert stop < told
    for part in ("--auto-scaling-group-name the-group", "--lifecycle-hook-name drain", "--instance-id i-0abc", "CONTINUE"):
        assert part in calls[told]


def test_the_drain_begins_only_when_the_group_says_so(booted):
    waiting = subprocess.Popen(
        ["bash", "-c", f"set -a; . {booted.root}/etc/penstock/instance.env; exec {booted.root}/opt/penstock/libexec/lifecycle"],
        env={**booted.environment, "LIFECYCLE_POLL_SECONDS": "0.1"},
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    assert "systemctl stop penstock.service" not in booted.calls()
    waiting.kill()
    waiting.wait()


def test_logs_are_shipped_once(booted):
    journal = booted.stubs / "bin" / "journalctl"
    journal.write_text('#!/bin/bash\nfor word; do case $word in --cursor-file=*) file=${word#*=} ;; esac; done\n[ -s "$file" ] || echo "a line"\necho cursor > "$file"\n')
    journal.chmod(0o755)
    booted.start("penstock-logs.service")
    shipped = [call for call in booted.calls() if "s3://bucket/logs/msk-penstock-bridge/" in call]
    assert len(shipped) == 1 and "i-0abc-" in shipped[0]
    booted.start("penstock-logs.service")
    assert len([call for call in booted.calls() if "s3://bucket/logs/" in call]) == 1


def test_a_log_that_did_not_arrive_is_shipped_again(booted):
    journal = booted.stubs / "bin" / "journalctl"
    journal.write_text('#!/bin/bash\nfor word; do case $word in --cursor-file=*) file=${word#*=} ;; esac; done\n[ -s "$file" ] || echo "a line"\necho cursor > "$file"\n')
    journal.chmod(0o755)
    (booted.stubs / "s3-fails").touch()
    booted.start("penstock-logs.service", expect=1)
    (booted.stubs / "s3-fails").unlink()
    booted.start("penstock-logs.service")
    assert list(booted.stubs.glob("shipped-*"))


def publisher():
    loader = importlib.machinery.SourceFileLoader("publish_metrics", str(DEPLOY / "instance/libexec/publish-metrics"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("publish_metrics", loader))
    loader.exec_module(module)
    return module


def exposition(started, requests, failed, fast, slow):
    return f"""# TYPE penstock_http_requests counter
penstock_http_requests_total{{route="produce",status="200"}} {requests}
penstock_http_requests_total{{route="produce",status="503"}} {failed}
penstock_records_total{{outcome="written"}} {requests}
penstock_http_connections{{worker="0"}} 3
penstock_http_connections{{worker="1"}} 4
penstock_reload_failing{{what="tls"}} 1
penstock_reload_failing{{what="rules"}} 0
penstock_tls_certificate_expiry_seconds 2591999
penstock_memory_used_bytes 25
penstock_memory_limit_bytes 100
penstock_produce_ack_seconds_bucket{{le="0.001"}} {fast}
penstock_produce_ack_seconds_bucket{{le="0.5"}} {fast + slow}
penstock_produce_ack_seconds_bucket{{le="+Inf"}} {fast + slow + 1}
process_start_time_seconds {started}
"""


def test_counters_are_sent_as_their_growth_and_histograms_as_values():
    publish = publisher()
    first = publish.parse(exposition(1, 100, 0, 10, 1))
    by_name = lambda data: {metric["MetricName"]: metric for metric in data}  # noqa: E731
    sent = by_name(publish.metrics(first, None, 90))
    # What counters have grown by is not known yet.
    assert set(sent) == {"Up", "Connections", "Draining", "ReloadsFailing", "MemoryUsedPercent", "CertificateDays", "RefreshMinutes"}
    assert (sent["Connections"]["Value"], sent["MemoryUsedPercent"]["Value"]) == (7, 25)
    assert (sent["ReloadsFailing"]["Value"], sent["CertificateDays"]["Value"], sent["RefreshMinutes"]["Value"]) == (1, 29, 90)

    last = json.loads(json.dumps(publish.remembered(first)))
    sent = by_name(publish.metrics(publish.parse(exposition(1, 150, 2, 12, 4)), last, None))
    assert (sent["Requests"]["Value"], sent["Requests5xx"]["Value"], sent["RecordsWritten"]["Value"]) == (52, 2, 50)
    assert (sent["AckSeconds"]["Values"], sent["AckSeconds"]["Counts"]) == ([0.001, 0.5], [2, 3])
    assert "RefreshMinutes" not in sent

    # After a restart everything counts from zero.
    sent = by_name(publish.metrics(publish.parse(exposition(2, 7, 1, 3, 0)), last, None))
    assert (sent["Requests"]["Value"], sent["AckSeconds"]["Values"], sent["AckSeconds"]["Counts"]) == (8, [0.001, 0.5], [3, 1])


def test_every_metric_that_is_published_is_one_of_the_bridge(booted):
    """The names are those that docs/http-api.md lists."""
    publish = publisher()
    documented = (DEPLOY.parent / "docs/http-api.md").read_text()
    of_labels = [name for name, _ in (publish.COUNTERS | publish.EXPIRIES).values()]
    for name in [*of_labels, *publish.GAUGES.values(), *publish.HISTOGRAMS.values()]:
        # The table shortens names that share their beginning.
        short = name.replace("penstock_http_connections", "…") if "connections_refused" in name else name
        assert f"`{short}`" in documented, name


def test_metrics_go_to_cloudwatch(booted):
    class Exposition(Metadata):
        def do_GET(self):
            self.reply(200, exposition(1, 5, 0, 1, 1))

    server, url = served(Exposition)
    booted.bash(f"set -a; . {booted.root}/etc/penstock/instance.env; METRICS_URL={url}/metrics; systemctl start penstock-metrics.service")
    server.shutdown()
    sent = {metric["MetricName"]: metric for metric in json.loads((booted.stubs / "metrics.json").read_text())}
    assert sent["Up"]["Dimensions"] == [{"Name": "Fleet", "Value": "msk-penstock-bridge"}]
    assert sent["CertificateDays"]["Value"] == 29
    # The certificate and the rules were fetched just now.
    assert sent["RefreshMinutes"]["Value"] == 0


def test_a_refresh_that_fails_is_told_by_its_age(booted):
    refreshed = booted.root / "var/lib/penstock/refreshed"
    hour_ago = refreshed.stat().st_mtime - 3600
    os.utime(refreshed, (hour_ago, hour_ago))
    (booted.stubs / "rules").write_text(RULES.replace("allow", "alow"))
    booted.start("penstock-refresh.service", expect=1)
    assert publisher().minutes_since(refreshed) >= 60
    (booted.stubs / "rules").write_text(RULES)
    booted.start("penstock-refresh.service")
    assert publisher().minutes_since(refreshed) == 0


@pytest.mark.parametrize(
    "template, launch_template, role",
    [
        ("tc.yaml", "LaunchTemplate", "topic-creator"),
        ("client.yaml", "LaunchTemplate", "client"),
        ("client.yaml", "ProducerTemplate", "producer"),
        ("client.yaml", "ConsumerTemplate", "consumer"),
    ],
)
def test_other_instances(instance, dist, release, template, launch_template, role):
    tools = dist / "kafka-tools-4.1.1.tar.gz"
    (instance.stubs / "s3" / "ca.pem").write_text("the authority")
    more = {
        "KafkaToolsS3Uri": f"s3://bucket/releases/{tools.name}",
        "KafkaToolsSha256": (tools.parent / (tools.name + ".sha256")).read_text().strip(),
        "BridgeUrl": "https://penstock.internal.example",
        "BridgeCaS3Uri": "s3://bucket/trust/ca.pem",
        "PoolTopic": "pool",
        "PoolGroup": "readers",
        "RecordsASecond": "10",
    }
    instance.bash(user_data(template, launch_template, values(release, **more)))
    assert (instance.root / "opt/kafka/libs/kafka-tools.jar").is_file()
    assert "IAMLoginModule" in (instance.root / "etc/penstock/client.properties").read_text()
    for script in ("create-topic.sh", "produce-native.sh", "consume-native.sh", "produce-bridge.sh", "consume-bridge.sh", "smoke-bridge.sh"):
        assert os.access(instance.root / "opt/penstock/bin" / script, os.X_OK)
    settings = (instance.root / "etc/penstock/instance.env").read_text()
    assert "KAFKA_BOOTSTRAP_SERVERS=b-1.example:9098,b-2.example:9098\n" in settings
    if role != "topic-creator":
        assert "PENSTOCK_URL=https://penstock.internal.example\n" in settings and "PENSTOCK_CA=/etc/penstock/bridge-ca.pem\n" in settings
        assert (instance.root / "etc/penstock/bridge-ca.pem").read_text() == "the authority"
    if role == "consumer":
        # The binary takes what the unit gives it; of several options, help is what it does.
        unit = (instance.root / "opt/penstock/systemd/penstock-pool-consumer.service").read_text()
        command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
        ran = instance.bash(f"set -a; . etc/penstock/instance.env; set -x; {instance.root}{command} --help 2>&1")
        assert "tail --url https://penstock.internal.example --ca=/etc/penstock/bridge-ca.pem --topic pool --group readers --help" in ran
    enabled = [call for call in (instance.calls()) if call.startswith("systemctl enable")]
    assert enabled == ([f"systemctl enable --now penstock-pool-{role}.service"] if role in ("producer", "consumer") else [])


def test_units_are_well_formed_and_hardened(instance, release):
    """systemd's own opinion; the exposure levels stand in docs/operations.md."""
    instance.bash(f"mkdir -p opt/penstock && tar -xzf {release} --strip-components=1 -C opt/penstock")
    units = pathlib.Path(instance.root / "etc/systemd/system")
    units.mkdir(parents=True)
    for unit in (DEPLOY / "instance/systemd").iterdir():
        # The programs that units name are looked for.
        text = unit.read_text().replace("/opt/penstock", f"{instance.root}/opt/penstock")
        (units / unit.name).write_text(text)
    for unit in sorted(units.iterdir()):
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True)
        assert verified.returncode == 0 and str(unit.name) not in verified.stderr, verified.stderr
    documented = (DEPLOY.parent / "docs/operations.md").read_text()
    for unit in ("penstock", "penstock-refresh", "penstock-metrics", "penstock-logs", "penstock-lifecycle"):
        rated = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", units / f"{unit}.service"], capture_output=True, text=True
        )
        assert rated.returncode == 0, rated.stdout
        level = rated.stdout.strip().rsplit("service: ", 1)[1].split()[0]
        assert f"| `{unit}.service` | {level} |" in documented, f"{unit}: {level}"
