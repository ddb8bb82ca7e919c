"""What neither cfn-lint nor deployment.guard can look at: names of metrics, in queries and dashboards, too, and of those that our
own script sends; breadth of rights.

`check` takes templates as Python values (intrinsic functions as {"Ref": …}) and gives sentences.
"""

import re

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
    return [*privileges(template), *metrics(template, published)]
