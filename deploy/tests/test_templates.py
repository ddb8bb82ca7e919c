"""Templates: cfn-lint, rules of our own for what it does not see, in Guard's language and in Python, checkov; and that the rules
find what they are for."""

import copy
import json
import os
import re
import subprocess

import pytest
import yaml

import rules
from conftest import DEPLOY, REGION
from test_instance import publisher

TEMPLATES = sorted(DEPLOY.glob("*.yaml"))


def published():
    """Names of the metrics that the bridge's instances send."""
    module = publisher()
    return {*module.COUNTERS, *module.GAUGES, *module.EXPIRIES, *module.HISTOGRAMS, "Up", "MemoryUsedPercent", "RefreshMinutes"}


def load(path):
    class Loader(yaml.SafeLoader):
        pass

    def tagged(loader, tag, node):
        if isinstance(node, yaml.ScalarNode):
            return {tag: loader.construct_scalar(node)}
        return {tag: loader.construct_sequence(node, deep=True)}

    Loader.add_multi_constructor("!", tagged)
    return yaml.load(path.read_text(), Loader)


def test_all_templates_are_here():
    assert [path.name for path in TEMPLATES] == [
        "artifacts.yaml", "bridge.yaml", "client.yaml", "consumer.yaml", "msk.yaml", "observability.yaml", "tc.yaml",
    ]  # fmt: skip


def test_cfn_lint():
    linted = subprocess.run(["cfn-lint", "-r", REGION, "us-east-1", "eu-central-1", "-t", *TEMPLATES], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_our_rules(path):
    assert rules.check(load(path), published()) == []


def guard(template):
    """What Guard says of a template: the rules that hold, and those that do not with why."""
    command = ["cfn-guard", "validate", "--rules", DEPLOY / "tests/deployment.guard"]
    structured = ["--structured", "--output-format", "json", "--show-summary", "none"]
    ran = subprocess.run([*command, *structured], input=json.dumps(template), capture_output=True, text=True)
    # 19: a rule does not hold.
    assert ran.returncode in (0, 19), ran.stdout + ran.stderr
    [answer] = json.loads(ran.stdout)
    return set(answer["compliant"]), json.dumps(answer["not_compliant"]) if answer["not_compliant"] else ""


def test_guard():
    held = set()
    for path in TEMPLATES:
        holds, wrong = guard(load(path))
        assert wrong == "", path.name
        held |= holds
    # A rule about what no template has any more would never be asked.
    assert held == set(re.findall(r"^rule (\w+)", (DEPLOY / "tests/deployment.guard").read_text(), re.MULTILINE))


def broken(name, change):
    template = copy.deepcopy(load(DEPLOY / name))
    change(template["Resources"], template.get("Parameters", {}))
    return template


def attribute(resources, resource, kind, index, key):
    resources[resource]["Properties"][kind][index]["Key"] = key


@pytest.mark.parametrize(
    "name, change, found",
    [
        ("msk.yaml", lambda r, p: p["KafkaVersion"].update(Default="2.2.1"), "MSK makes no clusters of this version"),
        ("msk.yaml", lambda r, p: p["InstanceType"].update(Default="kafka.m7g.small"), "there is no such type of broker"),
        ("msk.yaml", lambda r, p: p["NumberOfBrokerNodes"].update(Default=4), "no multiple of the three zones"),
        ("msk.yaml", lambda r, p: r["Cluster"]["Properties"]["EncryptionInfo"]["EncryptionInTransit"].update(ClientBroker="TLS_PLAINTEXT"), "clients must use TLS"),
        ("msk.yaml", lambda r, p: r["Cluster"]["Properties"]["ClientAuthentication"].pop("Unauthenticated"), "do not log in"),
        ("bridge.yaml", lambda r, p: attribute(r, "Targets", "TargetGroupAttributes", 0, "proxy_protocol.v2.enabled"), "no such attribute of a target group"),
        ("bridge.yaml", lambda r, p: r["Targets"]["Properties"]["TargetGroupAttributes"].pop(0), "proxy_protocol_v2.enabled must be true"),
        ("bridge.yaml", lambda r, p: r["Targets"]["Properties"].update(HealthCheckTimeoutSeconds=6), "takes longer than until the next"),
        ("bridge.yaml", lambda r, p: r["Targets"]["Properties"].update(UnhealthyThresholdCount=5), "would be noticed too late"),
        ("bridge.yaml", lambda r, p: r["Targets"]["Properties"].update(HealthCheckPath="/healthz"), "at /readyz"),
        ("bridge.yaml", lambda r, p: r["Group"]["Properties"]["LifecycleHookSpecificationList"][0].update(HeartbeatTimeout=60), "ends before a drain"),
        ("bridge.yaml", lambda r, p: r["Listener"]["Properties"].pop("ListenerAttributes"), "tcp.idle_timeout.seconds must be 350"),
    ],
)  # fmt: skip
def test_guard_finds(name, change, found):
    _, wrong = guard(broken(name, change))
    assert found in wrong, wrong


@pytest.mark.parametrize(
    "name, change, found",
    [
        ("bridge.yaml", lambda r, p: r["Role"]["Properties"].update(RoleName="penstock"), "CAPABILITY_IAM"),
        ("bridge.yaml", lambda r, p: r["KafkaByIam"]["Properties"]["PolicyDocument"]["Statement"][0].update(Action="kafka-cluster:*"), "more than one action"),
        ("bridge.yaml", lambda r, p: r["KafkaByIam"]["Properties"]["PolicyDocument"]["Statement"][0].update(Resource="*"), "on everything"),
        ("observability.yaml", lambda r, p: r["KafkaController"]["Properties"].update(MetricName="ActiveControllers"), "no metric ActiveControllers in AWS/Kafka"),
        ("observability.yaml", lambda r, p: r["RecordsUnknown"]["Properties"].update(MetricName="RecordsLost"), "no metric RecordsLost in Penstock"),
        ("observability.yaml", lambda r, p: r["KafkaDisk"]["Properties"]["Metrics"][0].update(Expression='SELECT MAX(Disk) FROM "AWS/Kafka"'), "no metric Disk in AWS/Kafka"),
    ],
)  # fmt: skip
def test_our_rules_find(name, change, found):
    sentences = rules.check(broken(name, change), published())
    assert any(found in sentence for sentence in sentences), sentences


def test_every_alarm_is_in_the_operators_guide():
    alarms = [name for name, one in load(DEPLOY / "observability.yaml")["Resources"].items() if one["Type"] == "AWS::CloudWatch::Alarm"]
    guide = (DEPLOY.parent / "docs/operations.md").read_text()
    assert [name for name in alarms if f"| `{name}` |" not in guide] == []


def test_rules_and_alerts_of_prometheus():
    checked = subprocess.run([DEPLOY / "prometheus/check"], capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count("SUCCESS") == 2, checked.stdout + checked.stderr


def test_every_alert_of_prometheus_says_what_to_do():
    groups = yaml.safe_load((DEPLOY / "prometheus/penstock.rules.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    guide = (DEPLOY.parent / "docs/observability.md").read_text()
    assert re.findall(r"^\| `(Penstock\w+)` \|", guide, re.MULTILINE) == alerts


def test_checkov():
    """Every suppression is in a template, beside what it is about, with its reason."""
    checked = subprocess.run(
        [os.environ["CHECKOV"], "--directory", DEPLOY, "--framework", "cloudformation", "--compact", "--output", "json", "--skip-download"],
        capture_output=True,
        text=True,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
    )
    results = json.loads(checked.stdout)
    failed = [(one["check_id"], one["check_name"], one["file_path"], one["resource"]) for one in results["results"]["failed_checks"]]
    assert failed == []
    assert results["summary"]["passed"] > 60
    assert all(one["check_result"].get("suppress_comment") for one in results["results"]["skipped_checks"])
