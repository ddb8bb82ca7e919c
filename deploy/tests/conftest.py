"""What the tests share: a stand-in for AWS in a process of its own, a release, and a way to run our scripts."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import pytest

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
REGION = "us-west-2"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Aws:
    """The stand-in, and scripts that are run against it."""

    def __init__(self, url, work):
        self.url, self.work = url, work
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DIST": str(work / "dist"),
            "TLS_DIR": str(work / "tls"),
            "WAIT_SECONDS": "0.2",
        }

    def client(self, service):
        return boto3.client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def script(self, name, *arguments, environment=None, expect=0, stdin=""):
        """Runs deploy/NAME to its end: its standard output and error."""
        ran = subprocess.run(
            [str(DEPLOY / name), *arguments],
            env={**self.environment, **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ran.returncode == expect, f"{name} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout, ran.stderr

    def outputs(self, stack):
        described = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}

    def exports(self):
        return {export["Name"]: export["Value"] for export in self.client("cloudformation").list_exports()["Exports"]}


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """A folder with a release of the binary under test, and one that stands for Kafka's tools."""
    folder = tmp_path_factory.mktemp("dist")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DIST": str(folder)}
    subprocess.run(
        [str(DEPLOY / "build.sh"), "--binary", os.environ["PENSTOCK_BIN"], "--no-sbom"], env=environment, check=True, capture_output=True
    )
    tools = folder / "kafka-tools-4.1.1"
    (tools / "libs").mkdir(parents=True)
    (tools / "libs" / "kafka-tools.jar").write_bytes(b"")
    pack = f". {DEPLOY}/lib.sh; pack {folder}/kafka-tools-4.1.1.tar.gz {folder} kafka-tools-4.1.1"
    subprocess.run(["bash", "-c", pack], env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def aws(tmp_path_factory, dist):
    """An empty account."""
    work = tmp_path_factory.mktemp("aws")
    shutil.copytree(dist, work / "dist")
    port = free_port()
    log = open(work / "stand-in.log", "w")
    server = subprocess.Popen(
        [sys.executable, "-m", "stand_in", "-H", "127.0.0.1", "-p", str(port)],
        cwd=DEPLOY / "tests",
        stdout=log,
        stderr=subprocess.STDOUT,
        # Its own threads look at no real account.
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert server.poll() is None, (work / "stand-in.log").read_text()
        try:
            urllib.request.urlopen(url + "/moto-api/", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        pytest.fail("the stand-in does not answer: " + (work / "stand-in.log").read_text())
    yield Aws(url, work)
    server.terminate()
    server.wait()
