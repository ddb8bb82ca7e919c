"""What cfn-lint does not look at, because its schemas say only "a string": Kafka's versions, brokers' types and counts, keys
of attributes, timing of health checks, names of metrics.

`check` takes templates as Python values (intrinsic functions as {"Ref": …}) and gives sentences.
"""

import re

# MSK, November 2026: versions that clusters can be made of, and types of brokers.
KAFKA_VERSIONS = {f"{line}{kind}" for line in ("3.7.x", "3.8.x", "3.9.x") for kind in ("", ".kraft")} | {"4.0.x.kraft"}
BROKER_TYPES = {"kafka.t3.small", "kafka.m7g.large", "kafka.m5.large"} | {
    f"kafka.{family}.{size}xlarge" for family, sizes in {"m5": ("", 2, 4, 8, 12, 16, 24), "m7g": ("", 2, 4, 8, 12, 16)}.items() for size in sizes
}

ATTRIBUTES = {
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        "load_balancing.cross_zone.enabled",
        "deletion_protection.enabled",
        "dns_record.client_routing_policy",
        "zonal_shift.config.enabled",
    },
    "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "proxy_protocol_v2.enabled",
        "preserve_client_ip.enabled",
        "deregistration_delay.timeout_seconds",
        "deregistration_delay.connection_termination.enabled",
        "target_health_state.unhealthy.connection_termination.enabled",
        "target_health_state.unhealthy.draining_interval_seconds",
        "stickiness.enabled",
        "stickiness.type",
    },
    "AWS::ElasticLoadBalancingV2::Listener": {"tcp.idle_timeout.seconds"},
}
# What this deployment lives on: the reasons are beside them in bridge.yaml and in docs/operations.md.
REQUIRED = {
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {"load_balancing.cross_zone.enabled": "true"},
    "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "proxy_protocol_v2.enabled": "true",
        "preserve_client_ip.enabled": "false",
        "deregistration_delay.timeout_seconds": "180",
        "deregistration_delay.connection_termination.enabled": "true",
        "target_health_state.unhealthy.connection_termination.enabled": "false",
        "target_health_state.unhealthy.draining_interval_seconds": "180",
    },
    "AWS::ElasticLoadBalancingV2::Listener": {"tcp.idle_timeout.seconds": "350"},
}

METRICS = {
    "AWS/NetworkELB": {
        "ActiveFlowCount", "HealthyHostCount", "NewFlowCount", "PortAllocationErrorCount", "ProcessedBytes", "TCP_Client_Reset_Count",
        "TCP_ELB_Reset_Count", "TCP_Target_Reset_Count", "UnHealthyHostCount",
    },
    "AWS/PrivateLinkServices": {"ActiveConnections", "BytesProcessed", "EndpointsCount", "NewConnections", "RstPacketsSent"},
    "AWS/AutoScaling": {"GroupDesiredCapacity", "GroupInServiceInstances", "GroupMaxSize", "GroupMinSize", "GroupTotalInstances"},
    "AWS/EC2": {"CPUUtilization"},
    # Of the levels DEFAULT and PER_BROKER.
    "AWS/Kafka": {
        "ActiveControllerCount", "CPUCreditBalance", "ConnectionCreationRate", "CpuSystem", "CpuUser", "IAMTooManyConnections",
        "KafkaDataLogsDiskUsed", "OfflinePartitionsCount", "UnderMinIsrPartitionCount", "UnderReplicatedPartitions",
    },
}  # fmt: skip


def resources(template, kind):
    return {name: one.get("Properties", {}) for name, one in template["Resources"].items() if one["Type"] == kind}


def given(attributes):
    return {attribute["Key"]: attribute["Value"] for attribute in attributes or []}


def defaults(template):
    return {name: parameter.get("Default") for name, parameter in template.get("Parameters", {}).items()}


def resolved(template, value):
    return defaults(template).get(value["Ref"]) if isinstance(value, dict) and set(value) == {"Ref"} else value


def brokers(template):
    for name, cluster in resources(template, "AWS::MSK::Cluster").items():
        version = resolved(template, cluster["KafkaVersion"])
        if version not in KAFKA_VERSIONS:
            yield f"{name}: MSK makes no clusters of Kafka {version}"
        kind = resolved(template, cluster["BrokerNodeGroupInfo"]["InstanceType"])
        if kind not in BROKER_TYPES:
            yield f"{name}: there is no broker type {kind}"
        count = int(resolved(template, cluster["NumberOfBrokerNodes"]))
        subnets = cluster["BrokerNodeGroupInfo"]["ClientSubnets"]
        # [condition, [subnets], a parameter]: those that the template makes.
        zones = len(subnets["If"][1] if isinstance(subnets, dict) else subnets)
        if count % zones:
            yield f"{name}: {count} brokers are no multiple of {zones} zones"
        transit = cluster["EncryptionInfo"]["EncryptionInTransit"]
        if transit != {"ClientBroker": "TLS", "InCluster": True}:
            yield f"{name}: {transit} is not TLS alone"
        if cluster["ClientAuthentication"].get("Unauthenticated", {}).get("Enabled") is not False:
            yield f"{name}: clients that do not log in are let in"


def attributes(template):
    for kind, known in ATTRIBUTES.items():
        for name, properties in resources(template, kind).items():
            key = {"LoadBalancer": "LoadBalancerAttributes", "TargetGroup": "TargetGroupAttributes", "Listener": "ListenerAttributes"}[kind.split("::")[2]]
            has = given(properties.get(key))
            for unknown in sorted(set(has) - known):
                yield f"{name}: there is no attribute {unknown}"
            for attribute, value in REQUIRED[kind].items():
                if has.get(attribute) != value:
                    yield f"{name}: {attribute} must be {value}, not {has.get(attribute)}"


def probes(template):
    for name, group in resources(template, "AWS::ElasticLoadBalancingV2::TargetGroup").items():
        interval, timeout = group["HealthCheckIntervalSeconds"], group["HealthCheckTimeoutSeconds"]
        if timeout >= interval:
            yield f"{name}: a health check takes {timeout} s, and the next begins after {interval} s"
        noticed = interval * group["UnhealthyThresholdCount"]
        if noticed > 15:
            yield f"{name}: a drain is noticed after {noticed} s; its time is reckoned with 15 s"
        if (group["HealthCheckProtocol"], group["HealthCheckPort"], group["HealthCheckPath"]) != ("HTTP", "8081", "/readyz"):
            yield f"{name}: readiness is told over HTTP on port 8081 at /readyz"
    for name, group in resources(template, "AWS::AutoScaling::AutoScalingGroup").items():
        for hook in group.get("LifecycleHookSpecificationList", []):
            if hook["HeartbeatTimeout"] < 240:
                yield f"{name}: the hook {hook['LifecycleHookName']} ends before a drain and its logs may"


def metrics(template, published):
    known = {**METRICS, "Penstock": published}
    for name, alarm in resources(template, "AWS::CloudWatch::Alarm").items():
        named = []
        for query in alarm.get("Metrics", []):
            if "MetricStat" in query:
                named.append((query["MetricStat"]["Metric"]["Namespace"], query["MetricStat"]["Metric"]["MetricName"]))
            expression = query.get("Expression", "")
            expression = expression.get("Sub", "") if isinstance(expression, dict) else expression
            named += [("AWS/Kafka", found) for found in re.findall(r"\((\w+)\) FROM", expression)]
        if "MetricName" in alarm:
            named.append((alarm["Namespace"], alarm["MetricName"]))
        if not named:
            yield f"{name}: it is about no metric"
        for namespace, metric in named:
            if metric not in known.get(namespace, ()):
                yield f"{name}: there is no metric {metric} in {namespace}"
    for name, dashboard in resources(template, "AWS::CloudWatch::Dashboard").items():
        body = dashboard["DashboardBody"]["Sub"]
        for namespace, metric in re.findall(r'\["([A-Z]\w+(?:/\w+)?)", "(\w+)"', body):
            if metric not in known.get(namespace, ()):
                yield f"{name}: there is no metric {metric} in {namespace}"


def privileges(template):
    documents = [(name, role["PolicyDocument"]) for name, role in resources(template, "AWS::IAM::RolePolicy").items()]
    for name, role in resources(template, "AWS::IAM::Role").items():
        documents += [(name, policy["PolicyDocument"]) for policy in role.get("Policies", [])]
        if "RoleName" in role:
            yield f"{name}: it has a name of its own, which CAPABILITY_IAM does not allow"
    for name, document in documents:
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            for action in actions:
                if "*" in action:
                    yield f"{name}: {action} is more than one action"
            if statement["Resource"] == "*" and "Condition" not in statement and any(not action.split(":")[1].startswith("Describe") for action in actions):
                yield f"{name}: {actions} on everything"


def check(template, published=frozenset()):
    """What is wrong with a template."""
    found = []
    for rule in (brokers, attributes, probes, privileges):
        found += rule(template)
    return found + list(metrics(template, published))
