"""From an empty account to an endpoint, again, another release, and back to an empty account.

The tests of this file are one story: each begins where the one before it ended.
"""

import base64
import hashlib
import json
import re

import pytest

STACK = "msk-penstock"
ACCOUNT = "123456789012"
pytestmark = pytest.mark.usefixtures("provisioned")


@pytest.fixture(scope="module")
def provisioned(aws):
    return aws.script("provision.sh")


@pytest.fixture(scope="module")
def bridge(aws, provisioned):
    return aws.outputs(STACK + "-bridge")


def attributes(given):
    return {attribute["Key"]: attribute["Value"] for attribute in given["Attributes"]}


def test_it_ends_by_saying_what_there_is(aws, provisioned):
    said = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in provisioned[0].splitlines() if line)
    exports = aws.exports()
    assert said["cluster"] == exports[STACK + "-Cluster"]
    assert said["topic creator"] == exports[STACK + "-tc-InstanceID"]
    assert said["producer/consumer"] == exports[STACK + "-client-InstanceID"]
    assert said["endpoint service"] == exports[STACK + "-bridge-EndpointService"]
    assert said["endpoint"] == exports[STACK + "-consumer-Endpoint"]
    assert re.fullmatch(r"vpce-[0-9a-f]+-\w+\.vpce-svc-[0-9a-f]+\.us-west-2\.vpce\.amazonaws\.com", said["endpoint's DNS name"])


def test_exports(aws):
    exports = aws.exports()
    of = lambda name: exports[STACK + name]  # noqa: E731
    assert re.fullmatch(rf"arn:aws:kafka:us-west-2:{ACCOUNT}:cluster/penstock/[0-9a-f-]+-2", of("-Cluster"))
    for group in ("-TC-SG", "-PC-SG", "-Broker-SG", "-bridge-SG"):
        assert re.fullmatch("sg-[0-9a-f]+", of(group))
    assert of("-Vpc").startswith("vpc-") and len(of("-Subnets").split(",")) == 3
    assert re.fullmatch(r"com\.amazonaws\.vpce\.us-west-2\.vpce-svc-[0-9a-f]+", of("-bridge-EndpointService"))
    assert of("-bridge-ASG").startswith(STACK + "-bridge-Group-")
    assert ":targetgroup/" in of("-bridge-TG") and ":loadbalancer/net/" in of("-bridge-NLB")
    assert of("-consumer-DnsName") == "penstock.internal.example"


def test_cluster(aws):
    arn = aws.exports()[STACK + "-Cluster"]
    cluster = aws.client("kafka").describe_cluster(ClusterArn=arn)["ClusterInfo"]
    assert cluster["CurrentBrokerSoftwareInfo"]["KafkaVersion"] == "3.8.x.kraft"
    assert cluster["NumberOfBrokerNodes"] == 3
    assert cluster["EncryptionInfo"]["EncryptionInTransit"] == {"ClientBroker": "TLS", "InCluster": True}
    assert cluster["ClientAuthentication"]["Sasl"]["Iam"]["Enabled"] is True
    assert cluster["ClientAuthentication"]["Unauthenticated"]["Enabled"] is False
    assert cluster["EnhancedMonitoring"] == "PER_BROKER"


def test_balancer(aws, bridge):
    elb = aws.client("elbv2")
    balancer = elb.describe_load_balancers(LoadBalancerArns=[bridge["Balancer"]])["LoadBalancers"][0]
    assert (balancer["Type"], balancer["Scheme"], len(balancer["AvailabilityZones"])) == ("network", "internal", 3)
    assert len(balancer["SecurityGroups"]) == 1
    given = attributes(elb.describe_load_balancer_attributes(LoadBalancerArn=bridge["Balancer"]))
    assert given["load_balancing.cross_zone.enabled"] == "true"
    assert given["deletion_protection.enabled"] == "true"

    listener = elb.describe_listeners(LoadBalancerArn=bridge["Balancer"])["Listeners"]
    assert [(one["Protocol"], one["Port"]) for one in listener] == [("TCP", 443)]
    assert listener[0]["DefaultActions"][0]["TargetGroupArn"] == bridge["TargetGroup"]
    given = attributes(elb.describe_listener_attributes(ListenerArn=listener[0]["ListenerArn"]))
    assert given["tcp.idle_timeout.seconds"] == "350"


def test_target_group(aws, bridge):
    elb = aws.client("elbv2")
    group = elb.describe_target_groups(TargetGroupArns=[bridge["TargetGroup"]])["TargetGroups"][0]
    assert (group["Protocol"], group["Port"], group["TargetType"]) == ("TCP", 8443, "instance")
    check = {name.removeprefix("HealthCheck"): value for name, value in group.items() if name.startswith("HealthCheck")}
    assert (check["Protocol"], check["Port"], check["Path"]) == ("HTTP", "8081", "/readyz")
    assert (check["IntervalSeconds"], check["TimeoutSeconds"]) == (5, 3)
    assert (group["HealthyThresholdCount"], group["UnhealthyThresholdCount"]) == (2, 2)
    assert group["Matcher"] == {"HttpCode": "200"}
    given = attributes(elb.describe_target_group_attributes(TargetGroupArn=bridge["TargetGroup"]))
    assert given["proxy_protocol_v2.enabled"] == "true"
    assert given["preserve_client_ip.enabled"] == "false"
    assert given["deregistration_delay.timeout_seconds"] == "180"
    assert given["deregistration_delay.connection_termination.enabled"] == "true"
    assert given["target_health_state.unhealthy.connection_termination.enabled"] == "false"
    assert given["target_health_state.unhealthy.draining_interval_seconds"] == "180"
    targets = elb.describe_target_health(TargetGroupArn=bridge["TargetGroup"])["TargetHealthDescriptions"]
    assert len(targets) == 3


def test_group(aws, bridge):
    scaling = aws.client("autoscaling")
    group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[bridge["AutoScalingGroup"]])["AutoScalingGroups"][0]
    assert (group["MinSize"], group["MaxSize"], group["HealthCheckType"]) == (3, 9, "ELB")
    assert len(group["VPCZoneIdentifier"].split(",")) == 3
    hook = scaling.describe_lifecycle_hooks(AutoScalingGroupName=group["AutoScalingGroupName"])["LifecycleHooks"]
    assert [(h["LifecycleHookName"], h["LifecycleTransition"], h["HeartbeatTimeout"], h["DefaultResult"]) for h in hook] == [
        ("drain", "autoscaling:EC2_INSTANCE_TERMINATING", 300, "CONTINUE")
    ]
    policy = scaling.describe_policies(AutoScalingGroupName=group["AutoScalingGroupName"])["ScalingPolicies"][0]
    tracking = policy["TargetTrackingConfiguration"]
    assert tracking["PredefinedMetricSpecification"]["PredefinedMetricType"] == "ASGAverageCPUUtilization"
    assert tracking["TargetValue"] == 50


def test_endpoint_service(aws, bridge):
    ec2 = aws.client("ec2")
    service = bridge["EndpointServiceId"]
    described = ec2.describe_vpc_endpoint_service_configurations(ServiceIds=[service])["ServiceConfigurations"][0]
    assert described["AcceptanceRequired"] is True
    assert described["NetworkLoadBalancerArns"] == [bridge["Balancer"]]
    permissions = ec2.describe_vpc_endpoint_service_permissions(ServiceId=service)["AllowedPrincipals"]
    assert [one["Principal"] for one in permissions] == [f"arn:aws:iam::{ACCOUNT}:root"]
    endpoint = aws.exports()[STACK + "-consumer-Endpoint"]
    described = ec2.describe_vpc_endpoints(VpcEndpointIds=[endpoint])["VpcEndpoints"][0]
    # It waited to be accepted, and provision.sh did.
    assert described["State"] == "available" and described["VpcEndpointType"] == "Interface"
    records = aws.client("route53")
    made = aws.client("cloudformation").describe_stack_resource(StackName=STACK + "-consumer", LogicalResourceId="Zone")
    zone = made["StackResourceDetail"]["PhysicalResourceId"]
    found = [one for one in records.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] if one["Type"] == "A"]
    assert [one["Name"].rstrip(".") for one in found] == ["penstock.internal.example"]
    assert found[0]["AliasTarget"]["DNSName"] == aws.exports()[STACK + "-consumer-EndpointDnsName"]


def test_only_the_balancer_and_one_another_reach_instances_and_only_instances_reach_brokers(aws, bridge):
    ec2 = aws.client("ec2")
    exports = aws.exports()

    def ingress(group):
        rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        return {
            (rule["FromPort"], pair["GroupId"]) for rule in rules for pair in rule["UserIdGroupPairs"]
        }, [rule for rule in rules if rule["IpRanges"]]

    balancer = aws.client("elbv2").describe_load_balancers(LoadBalancerArns=[bridge["Balancer"]])["LoadBalancers"][0]
    to_instances = ingress(bridge["InstanceSecurityGroup"])
    from_balancer = {(port, balancer["SecurityGroups"][0]) for port in (8443, 8081)}
    assert to_instances == (from_balancer | {(8444, bridge["InstanceSecurityGroup"])}, [])
    of = lambda name: exports[STACK + name]  # noqa: E731
    assert ingress(of("-Broker-SG")) == ({(9098, bridge["InstanceSecurityGroup"]), (9098, of("-TC-SG")), (9098, of("-PC-SG"))}, [])


def user_data(aws, template, version="$Latest"):
    found = aws.client("ec2").describe_launch_template_versions(LaunchTemplateId=template, Versions=[version])
    return base64.b64decode(found["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"]).decode()


def test_user_data(aws, bridge):
    text = user_data(aws, bridge["LaunchTemplate"])
    assert text.startswith("#!/bin/bash\n")
    settings = dict(line.split("=", 1) for line in text.split("<<'END'\n")[1].split("\nEND\n")[0].splitlines())
    brokers = ",".join(f"b-{n}.penstock.abc123.c2.kafka.us-west-2.amazonaws.com:9098" for n in (1, 2, 3))
    assert settings["KAFKA_BOOTSTRAP_SERVERS"] == brokers
    assert settings["KAFKA_AUTHENTICATION"] == "iam"
    assert settings["PROXY_TRUSTED"] == "10.80.0.0/20,10.80.16.0/20,10.80.32.0/20"
    assert settings["ACCESS_PARAMETER"] == f"/{STACK}-bridge/access"
    assert settings["TLS_SECRET_ARN"].startswith(f"arn:aws:secretsmanager:us-west-2:{ACCOUNT}:secret:{STACK}-bridge-tls-")
    fleet = aws.client("secretsmanager").get_secret_value(SecretId=settings["FLEET_SECRET_ARN"])["SecretString"]
    assert len(fleet) == 64 and fleet.isalnum()
    sums = {path.name: path.read_text().strip() for path in (aws.work / "dist").glob("penstock-*.sha256")}
    assert list(sums.values()) == re.findall(r"echo '([0-9a-f]{64})  release\.tar\.gz'", text)
    # What was resolved is resolved: no placeholder of the template is left.
    assert "${AWS" not in text and "${Bucket" not in text


def test_rules_let_in_the_endpoint_and_nobody_else(aws):
    rules = aws.client("ssm").get_parameter(Name=f"/{STACK}-bridge/access")["Parameter"]["Value"]
    endpoint = aws.exports()[STACK + "-consumer-Endpoint"]
    assert rules == f'[[access]]\nidentity = "{endpoint}"\ntopics = ["*"]\nallow = ["produce", "consume"]'


def test_the_bridge_may_not_create_topics_but_the_topic_creator_may(aws, bridge):
    iam = aws.client("iam")
    actions = {}
    for stack in ("-bridge", "-tc", "-client"):
        resources = aws.client("cloudformation").list_stack_resources(StackName=STACK + stack)["StackResourceSummaries"]
        role = next(one["PhysicalResourceId"] for one in resources if one["ResourceType"] == "AWS::IAM::Role")
        found = set()
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            document = json.loads(document) if isinstance(document, str) else document
            for statement in document["Statement"]:
                allowed = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                found |= {(action, statement["Resource"]) for action in allowed}
        actions[stack] = found
    cluster = aws.exports()[STACK + "-Cluster"]
    topics = cluster.replace(":cluster/", ":topic/") + "/*"
    assert ("kafka-cluster:CreateTopic", topics) in actions["-tc"]
    assert ("kafka-cluster:WriteData", topics) in actions["-bridge"]
    assert ("kafka-cluster:WriteDataIdempotently", cluster) in actions["-bridge"]
    assert not any(action in ("kafka-cluster:CreateTopic", "kafka-cluster:DeleteTopic") for action, _ in actions["-bridge"] | actions["-client"])
    assert not any(action.endswith("*") for found in actions.values() for action, _ in found)


def test_alarms(aws):
    alarms = aws.client("cloudwatch").describe_alarms(MaxRecords=100)["MetricAlarms"]
    # One is for brokers of type t3 alone.
    assert len(alarms) == 26
    assert all(alarm["AlarmActions"] and alarm["AlarmDescription"] for alarm in alarms)
    dashboards = aws.client("cloudwatch").list_dashboards()["DashboardEntries"]
    body = aws.client("cloudwatch").get_dashboard(DashboardName=dashboards[0]["DashboardName"])["DashboardBody"]
    assert len(json.loads(body)["widgets"]) == 14


def state(aws):
    """Everything that a second run could have touched."""
    cloudformation = aws.client("cloudformation")
    stacks = cloudformation.describe_stacks()["Stacks"]
    return {
        stack["StackName"]: (
            stack["StackStatus"],
            sorted((p["ParameterKey"], p["ParameterValue"]) for p in stack.get("Parameters", [])),
            sorted(
                (r["LogicalResourceId"], r["PhysicalResourceId"], r["ResourceStatus"])
                for r in cloudformation.list_stack_resources(StackName=stack["StackName"])["StackResourceSummaries"]
            ),
        )
        for stack in stacks
    }


def test_a_second_run_changes_nothing(aws, provisioned, bridge):
    before = state(aws)
    versions = aws.client("ec2").describe_launch_template_versions(LaunchTemplateId=bridge["LaunchTemplate"])["LaunchTemplateVersions"]
    said, log = aws.script("provision.sh")
    assert said == provisioned[0]
    assert log.count("No changes to deploy") + said.count("No changes to deploy") == log.count("== ") == 7
    assert state(aws) == before
    after = aws.client("ec2").describe_launch_template_versions(LaunchTemplateId=bridge["LaunchTemplate"])["LaunchTemplateVersions"]
    assert len(after) == len(versions) == 1


def test_endpoints_are_listed_and_accepted_once(aws):
    endpoint = aws.exports()[STACK + "-consumer-Endpoint"]
    listed, _ = aws.script("accept-endpoint.sh")
    assert listed.split() == [endpoint, ACCOUNT, "available"]
    aws.script("accept-endpoint.sh", endpoint)
    _, log = aws.script("accept-endpoint.sh", "vpce-0000", expect=1)
    assert "vpce-0000 does not ask for" in log


def test_a_rollout_replaces_instances_and_says_so(aws, bridge):
    release = next((aws.work / "dist").glob("penstock-*.tar.gz"))
    other = aws.work / "dist" / "penstock-9.9.9.tar.gz"
    other.write_bytes(release.read_bytes() + b"\0")
    aws.environment["RELEASE"] = str(other)
    (aws.work / "dist" / "penstock-9.9.9.tar.gz.sha256").write_text(hashlib.sha256(other.read_bytes()).hexdigest() + "\n")
    _, log = aws.script("rollout.sh")
    assert "Successful, 100 % replaced" in log and "all instances run penstock-9.9.9-" in log
    group = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[bridge["AutoScalingGroup"]])["AutoScalingGroups"][0]
    assert group["LaunchTemplate"]["Version"] == "2"
    refresh = aws.client("autoscaling").describe_instance_refreshes(AutoScalingGroupName=bridge["AutoScalingGroup"])["InstanceRefreshes"][0]
    # One instance at a time: three, and one more.
    assert refresh["Preferences"]["MinHealthyPercentage"] == 100 and refresh["Preferences"]["MaxHealthyPercentage"] == 134
    # Again: there is nothing to replace.
    _, log = aws.script("rollout.sh")
    assert "No changes to deploy" in _ + log or "all instances run penstock-9.9.9-" in log


def test_a_release_that_does_not_come_up_is_rolled_back(aws, bridge):
    broken = aws.work / "dist" / "penstock-10.0.0.tar.gz"
    broken.write_bytes(b"this is no release")
    (aws.work / "dist" / "penstock-10.0.0.tar.gz.sha256").write_text("0" * 64 + "\n")
    _, log = aws.script("rollout.sh", str(broken), expect=1)
    assert "a new instance failed its health check" in log
    assert "was rolled back; all instances run penstock-9.9.9-" in log
    parameters = aws.client("cloudformation").describe_stacks(StackName=STACK + "-bridge")["Stacks"][0]["Parameters"]
    running = next(p["ParameterValue"] for p in parameters if p["ParameterKey"] == "ArtifactS3Uri")
    assert "/penstock-9.9.9-" in running


def test_other_rules_replace_no_instance_and_provisioning_leaves_the_release_that_runs(aws, bridge):
    def versions():
        return len(aws.client("ec2").describe_launch_template_versions(LaunchTemplateId=bridge["LaunchTemplate"])["LaunchTemplateVersions"])

    before = versions()
    first = next(path for path in (aws.work / "dist").glob("penstock-0*.tar.gz"))
    wanted = {"RELEASE": str(first), "ACCESS_TOPICS": "orders logs-*", "ACCESS_GROUPS": "readers-*", "ACCESS_ALLOW": "produce", "ENDPOINT_IDS": "vpce-0abc"}
    _, log = aws.script("provision.sh", environment=wanted)
    assert "rollout.sh changes that" in log
    rules = aws.client("ssm").get_parameter(Name=f"/{STACK}-bridge/access")["Parameter"]["Value"]
    assert rules.count('topics = ["orders", "logs-*"]\nallow = ["produce"]\ngroups = ["readers-*"]') == 2 and 'identity = "vpce-0abc"' in rules
    assert versions() == before


def test_a_certificate_is_renewed_in_its_secret(aws):
    secrets = aws.client("secretsmanager")
    before = secrets.get_secret_value(SecretId=f"{STACK}-bridge-tls")
    aws.script("certificate.sh", "--renew")
    after = secrets.get_secret_value(SecretId=f"{STACK}-bridge-tls")
    assert before["ARN"] == after["ARN"] and before["SecretString"] != after["SecretString"]
    for pem in (before["SecretString"], after["SecretString"]):
        assert pem.count("BEGIN CERTIFICATE") == 1 and pem.count("BEGIN PRIVATE KEY") == 1


def test_a_command_is_run_on_an_instance(aws):
    bridges, _ = aws.script("on-instance.sh", "--bridges")
    group = aws.exports()[STACK + "-bridge-ASG"]
    fleet = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"][0]["Instances"]
    assert bridges.split() == [one["InstanceId"] for one in fleet if one["LifecycleState"] == "InService"] != []
    client, _ = aws.script("on-instance.sh", "--client")
    assert client.strip() == aws.exports()[STACK + "-client-InstanceID"]
    aws.script("smoke.sh", "--via", client.strip(), "--topic", "it's")
    sent = aws.client("ssm").list_commands()["Commands"][0]
    assert client.strip() in sent["InstanceIds"] and sent["DocumentName"] == "AWS-RunShellScript"
    assert sent["Parameters"]["commands"] == ["/opt/penstock/bin/smoke-bridge.sh --topic it\\'s "]


def test_a_version_that_msk_has_given_up_is_refused_before_anything_is_made(aws):
    _, log = aws.script("provision.sh", environment={"NAME": "other", "KAFKA_VERSION": "2.2.1"}, expect=1)
    assert "MSK does not make clusters of Kafka 2.2.1 (status: DEPRECATED)" in log
    assert not any(stack["StackName"].startswith("msk-other") for stack in aws.client("cloudformation").describe_stacks()["Stacks"])


def test_a_teardown_wants_to_be_confirmed_and_leaves_nothing(aws, bridge):
    _, log = aws.script("teardown.sh", stdin="something else\n", expect=1)
    assert "nothing was deleted" in log
    assert len(aws.client("cloudformation").describe_stacks()["Stacks"]) == 7
    aws.script("teardown.sh", stdin="penstock\n")
    assert aws.client("cloudformation").describe_stacks()["Stacks"] == []
    assert aws.client("kafka").list_clusters()["ClusterInfoList"] == []
    assert aws.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert aws.client("elbv2").describe_target_groups()["TargetGroups"] == []
    assert aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert aws.client("ec2").describe_vpc_endpoint_service_configurations()["ServiceConfigurations"] == []
    # Again: what is gone is passed over.
    aws.script("teardown.sh", "--yes")
