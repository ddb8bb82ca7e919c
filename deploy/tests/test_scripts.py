"""Scripts: shellcheck, what they say with --help and --dry-run, and the release that build.sh packs."""

import os
import re
import subprocess
import tarfile

import pytest

from conftest import DEPLOY

SCRIPTS = sorted(path.name for path in DEPLOY.glob("*.sh") if os.access(path, os.X_OK))
ON_INSTANCES = sorted(path for path in (DEPLOY / "instance").glob("*.sh")) + sorted((DEPLOY / "instance/libexec").iterdir())


def run(*command, expect=0, **environment):
    # No AWS is reached: there is none at that address, and no credentials.
    nothing = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
    ran = subprocess.run(
        [str(part) for part in command], env={"PATH": os.environ["PATH"], **nothing, **environment}, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == expect, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout, ran.stderr


def test_shellcheck():
    bash = [path for path in ON_INSTANCES if "python" not in path.read_text().split("\n", 1)[0]]
    run("shellcheck", "-x", *DEPLOY.glob("*.sh"), *bash, DEPLOY / "tests/run")


def test_hadolint():
    run("hadolint", DEPLOY / "Dockerfile")


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_says_what_it_is_for(name):
    said, _ = run(DEPLOY / name, "--help")
    assert len(said.splitlines()) > 2 and "--dry-run" in said
    assert "set -" not in said


@pytest.mark.parametrize("name", [path for path in ON_INSTANCES if path.suffix == ".sh" and path.name != "kafka.sh"], ids=lambda path: path.name)
def test_each_script_of_an_instance_says_what_it_is_for_and_refuses_what_it_does_not_know(name):
    assert "--topic" in run(name, "--help")[0]
    assert "--help lists them" in run(name, "--no-such-option", expect=2)[1]
    assert "no --" in run(name, expect=2)[1]


@pytest.mark.parametrize(
    "command, says",
    [
        (["provision.sh"], ["cloudformation deploy", "msk.yaml", "bridge.yaml", "accept-vpc-endpoint-connections", "observability.yaml"]),
        (["teardown.sh"], ["delete-stack --stack-name msk-penstock-obs", "delete-stack --stack-name msk-penstock\n", "deletion_protection.enabled"]),
        (["rollout.sh"], ["start-instance-refresh", "ArtifactSha256"]),
        (["rollout.sh", "--replace"], ["start-instance-refresh", "SkipMatching=false"]),
        (["accept-endpoint.sh", "vpce-0123"], ["accept-vpc-endpoint-connections", "vpce-0123"]),
        (["accept-endpoint.sh"], ["describe-vpc-endpoint-connections"]),
        (["certificate.sh", "--renew"], ["put-secret-value", "trust/ca.pem"]),
        (["smoke.sh"], ["smoke-bridge.sh", "penstock-smoke"]),
        (["smoke.sh", "--via", "i-0123"], ["send-command", "i-0123"]),
        (["on-instance.sh", "i-0123", "ls", "-l"], ["send-command", "i-0123"]),
        (["kafka-tools.sh"], ["dependency:copy-dependencies"]),
        (["build.sh"], ["compile", "check_glibc", "sbom"]),
    ],
    ids=lambda value: " ".join(value) if "." in value[0] and ".sh" in value[0] else "",
)
def test_a_dry_run_says_what_it_would_do_and_does_nothing(command, says, tmp_path):
    name, *arguments = command
    said, log = run(DEPLOY / name, "--dry-run", *arguments, DIST=str(tmp_path / "dist"), TLS_DIR=str(tmp_path / "tls"))
    for part in says:
        assert part in said + log + "\n", log
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_refused(name):
    run(DEPLOY / name, "--no-such-option", expect=2)


def test_settings_have_the_names_that_the_first_deployment_had():
    text = (DEPLOY / "vars.sh").read_text()
    for name in ("NAME", "CLUSTER_NAME", "INSTANCE_TYPE", "VOLUME_SIZE", "MONITORING_LEVEL", "KAFKA_VERSION", "NUMBER_OF_BROKER_NODES"):
        assert re.search(rf"^{name}=\$\{{{name}:-", text, re.M), name


def test_a_binary_for_a_newer_glibc_is_refused_with_its_symbols(tmp_path):
    source, binary = tmp_path / "newer.c", tmp_path / "newer"
    # A program that asks for a version that no glibc has yet.
    source.write_text('__asm__(".symver later, later@GLIBC_2.99");\nvoid later(void);\nint main(void) { later(); return 0; }\n')
    stub, library = tmp_path / "later.c", tmp_path / "liblater.so"
    stub.write_text("void later(void) {}\n")
    (tmp_path / "map").write_text("GLIBC_2.99 { global: later; };\n")
    run("gcc", "-shared", "-fPIC", f"-Wl,--version-script={tmp_path}/map", "-o", library, stub)
    run("gcc", "-o", binary, source, library)
    _, log = run(DEPLOY / "build.sh", "--check-glibc", binary, expect=1)
    assert "later (GLIBC_2.99)" in log and "Amazon Linux 2023 has 2.34" in log


def test_the_binary_under_test_runs_on_amazon_linux():
    _, log = run(DEPLOY / "build.sh", "--check-glibc", os.environ["PENSTOCK_BIN"])
    assert "asks for GLIBC_2." in log


def test_a_release_is_the_same_bytes_each_time(dist, tmp_path):
    first = next(dist.glob("penstock-*.tar.gz"))
    run(DEPLOY / "build.sh", "--binary", os.environ["PENSTOCK_BIN"], "--no-sbom", DIST=str(tmp_path))
    again = next(tmp_path.glob("penstock-*.tar.gz"))
    assert first.read_bytes() == again.read_bytes()
    with tarfile.open(first) as archive:
        members = archive.getmembers()
    names = {member.name.split("/", 1)[1] for member in members if "/" in member.name}
    assert {"bin/penstock", "bin/create-topic.sh", "libexec/install", "libexec/refresh", "systemd/penstock.service", "penstock.toml.in"} <= names
    assert all(member.uid == member.gid == 0 and not member.mode & 0o022 for member in members)


def test_smoke_goes_through_health_write_and_read(tmp_path):
    """Against a bridge with a Kafka of its own would need the demo; the exchange is what counts here."""
    import http.server
    import threading

    written = []

    class Bridge(http.server.BaseHTTPRequestHandler):
        def reply(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/healthz":
                return self.reply(b"ok\n")
            assert self.path == "/v1/topics/t/partitions/4/records?offset=17&max_records=1&wait_ms=5000"
            return self.reply(b'{"partition":4,"offset":17,"timestamp":1,"key":null,"value":' + written[-1] + b',"headers":[]}\n')

        def do_POST(self):
            written.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(b'{"topic":"t","partition":4,"offset":17,"timestamp":1}\n')

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bridge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    said, _ = run(DEPLOY / "smoke.sh", "--url", url, "--topic", "t")
    assert [line.split()[0] for line in said.splitlines()] == ["health", "written", "read"]
    assert len(written) == 1
    written.append(b'"another"')
    Bridge.do_POST = lambda self: (self.rfile.read(int(self.headers["Content-Length"])), self.reply(b'{"partition":4,"offset":17}\n'))
    _, log = run(DEPLOY / "smoke.sh", "--url", url, "--topic", "t", expect=1)
    assert "something else came back" in log
    server.shutdown()
