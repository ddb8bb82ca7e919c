"""Calls that our scripts make and moto does not answer."""

import hashlib
import json
import os
import re
from urllib.parse import unquote

import moto.kafka.responses as kafka
import moto.kafka.urls as urls
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult
from moto.ec2.responses.vpc_service_configuration import VPCEndpointServiceConfiguration
from moto.s3.models import s3_backends

# Those that MSK lists in November 2026.
KAFKA_VERSIONS = {"2.2.1": "DEPRECATED", "3.6.0": "DEPRECATED"} | {
    version: "ACTIVE"
    for line in ("3.7.x", "3.8.x", "3.9.x")
    for version in (line, line + ".kraft")
} | {"4.0.x.kraft": "ACTIVE"}
PORTS = {"Iam": 9098, "Scram": 9096}


def install():
    """Adds the calls."""
    kafka.KafkaResponse.get_bootstrap_brokers = get_bootstrap_brokers
    kafka.KafkaResponse.list_kafka_versions = list_kafka_versions
    urls.url_paths["{0}/v1/kafka-versions$"] = kafka.KafkaResponse.dispatch
    for call in (describe_vpc_endpoint_connections, accept_vpc_endpoint_connections, reject_vpc_endpoint_connections):
        setattr(VPCEndpointServiceConfiguration, call.__name__, call)
    for call in (start_instance_refresh, describe_instance_refreshes, cancel_instance_refresh):
        setattr(AutoScalingResponse, call.__name__, call)


def get_bootstrap_brokers(self):
    arn = unquote(self.parsed_url.path.split("/clusters/")[-1].removesuffix("/bootstrap-brokers"))
    cluster = self.kafka_backend.clusters[arn]
    sasl = cluster.client_authentication["sasl"]
    names = {}
    for how, port in PORTS.items():
        if sasl[how.lower()]["enabled"]:
            # MSK_BOOTSTRAP: a Kafka that really is there.
            names["bootstrapBrokerStringSasl" + how] = os.environ.get("MSK_BOOTSTRAP") or ",".join(
                f"b-{broker}.{cluster.cluster_name}.abc123.c2.kafka.{cluster.region_name}.amazonaws.com:{port}"
                for broker in range(1, cluster.number_of_broker_nodes + 1)
            )
    return json.dumps(names)


def list_kafka_versions(self):
    return json.dumps({"kafkaVersions": [{"version": version, "status": status} for version, status in KAFKA_VERSIONS.items()]})


def connections(self, service):
    return [endpoint for endpoint in self.ec2_backend.vpc_end_points.values() if endpoint.service_name.endswith("." + service)]


def describe_vpc_endpoint_connections(self):
    filters = {given["Name"]: given["Values"] for given in self._get_param("Filters", [])}
    wanted = filters.get("vpc-endpoint-id")
    return ActionResult(
        {
            "VpcEndpointConnections": [
                {
                    "ServiceId": service,
                    "VpcEndpointId": endpoint.id,
                    "VpcEndpointOwner": self.current_account,
                    "VpcEndpointState": endpoint.state,
                }
                for service in filters["service-id"]
                for endpoint in connections(self, service)
                if wanted is None or endpoint.id in wanted
            ]
        }
    )


def settle(self, state):
    failed = []
    there = {endpoint.id: endpoint for endpoint in connections(self, self._get_param("ServiceId"))}
    for name in self._get_param("VpcEndpointIds", []):
        if name in there:
            there[name].state = state
        else:
            failed.append({"ResourceId": name, "Error": {"Code": "InvalidVpcEndpointId.NotFound", "Message": "no such endpoint"}})
    return ActionResult({"Unsuccessful": failed})


def accept_vpc_endpoint_connections(self):
    return settle(self, "available")


def reject_vpc_endpoint_connections(self):
    return settle(self, "rejected")


def boots(self, group):
    """Whether an instance of the group's launch template would come up: its user data fetches what has the right sum."""
    data = group.ec2_launch_template.get_version(int(group.launch_template_version)).data
    text = data["UserData"].decode()
    bucket, key = re.search(r"'s3://([^/]+)/([^']+)'", text).groups()
    wanted = re.search(r"echo '([0-9a-f]{64})  ", text).group(1)
    found = s3_backends[self.current_account]["aws"].get_object(bucket, key)
    return found is not None and hashlib.sha256(found.value).hexdigest() == wanted


def refreshes(group):
    if not hasattr(group, "refreshes"):
        group.refreshes = []
    return group.refreshes


def group_of(self):
    name = self._get_param("AutoScalingGroupName")
    return self.autoscaling_backend.describe_auto_scaling_groups([name])[0]


def start_instance_refresh(self):
    group = group_of(self)
    number = len(refreshes(group)) + 1
    group.refreshes.append(
        {
            "InstanceRefreshId": f"refresh-{number}",
            "AutoScalingGroupName": group.name,
            "Status": "InProgress",
            "PercentageComplete": 0,
            "Preferences": self._get_param("Preferences", {}),
        }
    )
    return ActionResult({"InstanceRefreshId": f"refresh-{number}"})


def describe_instance_refreshes(self):
    """Each look replaces one instance, which is how far time goes here."""
    group = group_of(self)
    for refresh in refreshes(group):
        if refresh["Status"] != "InProgress":
            continue
        old = [state for state in group.instance_states if state.instance.launch_version != group.launch_template_version]
        if not old:
            refresh["Status"], refresh["PercentageComplete"] = "Successful", 100
        elif not boots(self, group):
            refresh["Status"], refresh["StatusReason"] = "Failed", "a new instance failed its health check"
        else:
            old[0].instance.launch_version = group.launch_template_version
            refresh["PercentageComplete"] = 100 - 100 * (len(old) - 1) // len(group.instance_states)
    wanted = self._get_param("InstanceRefreshIds", [])
    return ActionResult({"InstanceRefreshes": [refresh for refresh in refreshes(group) if not wanted or refresh["InstanceRefreshId"] in wanted]})


def cancel_instance_refresh(self):
    group = group_of(self)
    for refresh in refreshes(group):
        if refresh["Status"] == "InProgress":
            refresh["Status"] = "Cancelled"
            return ActionResult({"InstanceRefreshId": refresh["InstanceRefreshId"]})
    return ActionResult({})
