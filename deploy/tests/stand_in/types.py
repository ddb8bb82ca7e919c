"""Resource types of CloudFormation that moto does not have, each on moto's own backend where there is one."""

import contextlib
import json
import secrets
import uuid

import moto.kafka.models as kafka
from moto.autoscaling.models import autoscaling_backends
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import UnformattedGetAttTemplateException, ValidationError
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel
from moto.ec2.models import ec2_backends
from moto.iam.exceptions import NoSuchEntity, NotFoundException
from moto.iam.models import iam_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends

# What each modelled resource was made of, by physical id: for checks between types.
CONFIGURATIONS = {}
BUCKET_POLICIES = {}


def refuse(kind, why):
    raise ValidationError(kind, why)


def lowered(value):
    """Keys as the API has them: with a small first letter."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: lowered(inner) for key, inner in value.items()}
    return [lowered(inner) for inner in value] if isinstance(value, list) else value


def as_list(value):
    """moto hands a list parameter of one item over as a string."""
    return value if isinstance(value, list) else value.split(",") if value else []


def model(kind, create, attributes=(), delete=None, update=None):
    """A resource type. `create` gives the physical id and the attributes for GetAtt; `update` may give new attributes."""

    class Model(CloudFormationModel):
        # moto tells instances by the name of their module.
        __module__ = "moto.ec2.models"

        def __init__(self, physical_id, data):
            self.physical_id, self.data = physical_id, data

        physical_resource_id = property(lambda self: self.physical_id)

        @staticmethod
        def cloudformation_name_type():
            return ""

        @staticmethod
        def cloudformation_type():
            return kind

        @classmethod
        def has_cfn_attr(cls, attr):
            return attr in attributes

        def get_cfn_attribute(self, attribute_name):
            if attribute_name not in self.data:
                raise UnformattedGetAttTemplateException()
            return self.data[attribute_name]

        @classmethod
        def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
            return cls(*create(resource_name, cloudformation_json["Properties"], account_id, region_name))

        @classmethod
        def update_from_cloudformation_json(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
            if update is None:
                refuse(kind, "the stand-in has no update of this type")
            update(original_resource.physical_id, cloudformation_json["Properties"], account_id, region_name)
            return original_resource

        @classmethod
        def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
            if delete:
                delete(resource_name, cloudformation_json["Properties"], account_id, region_name)

    Model.__name__ = kind.replace("::", "")
    return Model


def make_configuration(name, properties, account, region):
    arn = f"arn:aws:kafka:{region}:{account}:configuration/{properties['Name']}/{uuid.uuid4()}-1"
    CONFIGURATIONS[arn] = properties["ServerProperties"]
    return arn, {"Arn": arn, "LatestRevision.Revision": 1}


def make_cluster(name, properties, account, region):
    backend = kafka.kafka_backends[account][region]
    subnets = properties["BrokerNodeGroupInfo"]["ClientSubnets"]
    brokers = int(properties["NumberOfBrokerNodes"])
    if brokers % len(subnets):
        refuse("MSK", f"{brokers} brokers are no multiple of {len(subnets)} subnets")
    if properties["ConfigurationInfo"]["Arn"] not in CONFIGURATIONS:
        refuse("MSK", "there is no such configuration")
    api = lowered(properties)
    arn = backend.create_cluster(
        broker_node_group_info=api["brokerNodeGroupInfo"],
        client_authentication=api["clientAuthentication"],
        cluster_name=api["clusterName"],
        configuration_info=api["configurationInfo"],
        encryption_info=api["encryptionInfo"],
        enhanced_monitoring=api["enhancedMonitoring"],
        kafka_version=api["kafkaVersion"],
        logging_info=api["loggingInfo"],
        number_of_broker_nodes=brokers,
    )[0]
    # As real ones end, and as IAM policies need them: .../name/uuid-n.
    cluster = backend.clusters.pop(arn)
    cluster.state = "ACTIVE"
    cluster.arn = f"arn:aws:kafka:{region}:{account}:cluster/{cluster.cluster_name}/{cluster.cluster_id}-2"
    backend.clusters[cluster.arn] = cluster
    return cluster.arn, {"Arn": cluster.arn}


def delete_cluster(name, properties, account, region):
    kafka.kafka_backends[account][region].clusters.pop(name, None)


def make_scram(name, properties, account, region):
    for secret in properties["SecretArnList"]:
        if not secret.split(":")[6].startswith("AmazonMSK_"):
            refuse("MSK", "a SCRAM secret's name begins with AmazonMSK_")
    return properties["ClusterArn"], {}


def make_service(name, properties, account, region):
    acceptance = str(properties.get("AcceptanceRequired", True)).lower() == "true"
    service = ec2_backends[account][region].create_vpc_endpoint_service_configuration(
        properties["NetworkLoadBalancerArns"],
        acceptance_required=acceptance,
        private_dns_name=properties.get("PrivateDnsName"),
        tags=[{"Key": tag["Key"], "Value": tag["Value"]} for tag in properties.get("Tags", [])],
        supported_regions=[region],
    )
    verification = {"PrivateDnsNameConfiguration.Name": "_abc", "PrivateDnsNameConfiguration.Value": "vpce:def"}
    return service.id, {"ServiceId": service.id, **verification}


def delete_service(name, properties, account, region):
    backend = ec2_backends[account][region]
    if any(endpoint.service_name.endswith(name) and endpoint.state == "available" for endpoint in backend.vpc_end_points.values()):
        refuse("VPCEndpointService", "it has connections")
    backend.delete_vpc_endpoint_service_configurations([name])


def make_permissions(name, properties, account, region):
    principals = as_list(properties["AllowedPrincipals"])
    ec2_backends[account][region].modify_vpc_endpoint_service_permissions(properties["ServiceId"], principals, [])
    return properties["ServiceId"] + "-permissions", {}


def make_egress(name, properties, account, region):
    groups = [{"GroupId": properties["DestinationSecurityGroupId"]}]
    ec2_backends[account][region].authorize_security_group_egress(
        properties["GroupId"], properties["IpProtocol"], properties["FromPort"], properties["ToPort"], [], groups
    )
    return name, {}


def make_secret(name, properties, account, region):
    wanted = properties["GenerateSecretString"]
    content = secrets.token_hex(wanted.get("PasswordLength", 32) // 2)
    if "SecretStringTemplate" in wanted:
        content = json.dumps({**json.loads(wanted["SecretStringTemplate"]), wanted["GenerateStringKey"]: content})
    made = secretsmanager_backends[account][region].create_secret(
        properties.get("Name", f"{name}-{secrets.token_hex(6)}"), content, None, properties.get("Description"), None, properties.get("KmsKeyId"), None, [], False
    )
    arn = json.loads(made)["ARN"]
    return arn, {"Id": arn}


def put_alarm(name, properties, account, region):
    cloudwatch_backends[account][region].put_metric_alarm(
        name=name,
        description=properties["AlarmDescription"],
        namespace=properties.get("Namespace"),
        metric_name=properties.get("MetricName"),
        metric_data_queries=properties.get("Metrics"),
        dimensions=properties.get("Dimensions", []),
        comparison_operator=properties["ComparisonOperator"],
        evaluation_periods=int(properties["EvaluationPeriods"]),
        period=properties.get("Period"),
        threshold=float(properties["Threshold"]),
        statistic=properties.get("Statistic"),
        extended_statistic=properties.get("ExtendedStatistic"),
        treat_missing_data=properties["TreatMissingData"],
        alarm_actions=properties["AlarmActions"],
        ok_actions=properties["OKActions"],
    )
    return name, {}


def delete_alarm(name, properties, account, region):
    cloudwatch_backends[account][region].delete_alarms([name])


def make_scaling(name, properties, account, region):
    policy = autoscaling_backends[account][region].put_scaling_policy(
        name=name,
        policy_type=properties["PolicyType"],
        metric_aggregation_type=None,
        adjustment_type=None,
        as_name=properties["AutoScalingGroupName"],
        min_adjustment_magnitude=None,
        scaling_adjustment=None,
        cooldown=None,
        target_tracking_config=properties["TargetTrackingConfiguration"],
        step_adjustments=None,
        estimated_instance_warmup=None,
        predictive_scaling_configuration=None,
    )
    return policy.arn, {}


def put_role_policy(name, properties, account, region):
    iam_backends[account]["aws"].put_role_policy(
        properties["RoleName"], properties["PolicyName"], json.dumps(properties["PolicyDocument"])
    )
    return f"{properties['RoleName']}|{properties['PolicyName']}", {}


def delete_role_policy(name, properties, account, region):
    role, policy = name.split("|")
    # A role that went first took its policies with it.
    with contextlib.suppress(NoSuchEntity, NotFoundException):
        iam_backends[account]["aws"].delete_role_policy(role, policy)


def put_bucket_policy(name, properties, account, region):
    # moto would deny everything that a policy denies under a condition: it is kept, not held.
    BUCKET_POLICIES[properties["Bucket"]] = properties["PolicyDocument"]
    return properties["Bucket"] + "-policy", {}


def put_topic_policy(name, properties, account, region):
    for topic in properties["Topics"]:
        sns_backends[account][region].set_topic_attribute(topic, "Policy", json.dumps(properties["PolicyDocument"]))
    return name, {}


def updated(create):
    """For types whose creation can simply be done again."""
    return lambda name, properties, account, region: create(name, properties, account, region)


MODELS = [
    model("AWS::MSK::Configuration", make_configuration, ("Arn", "LatestRevision.Revision")),
    model("AWS::MSK::Cluster", make_cluster, ("Arn",), delete_cluster),
    model("AWS::MSK::BatchScramSecret", make_scram),
    model("AWS::EC2::VPCEndpointService", make_service, ("ServiceId", "PrivateDnsNameConfiguration.Name", "PrivateDnsNameConfiguration.Value"), delete_service),
    model("AWS::EC2::VPCEndpointServicePermissions", make_permissions, update=updated(make_permissions)),
    model("AWS::EC2::SecurityGroupEgress", make_egress),
    model("AWS::SecretsManager::Secret", make_secret, ("Id",)),
    model("AWS::CloudWatch::Alarm", put_alarm, (), delete_alarm, updated(put_alarm)),
    model("AWS::AutoScaling::ScalingPolicy", make_scaling),
    model("AWS::IAM::RolePolicy", put_role_policy, (), delete_role_policy, updated(put_role_policy)),
    model("AWS::S3::BucketPolicy", put_bucket_policy, update=updated(put_bucket_policy)),
    model("AWS::SNS::TopicPolicy", put_topic_policy, update=updated(put_topic_policy)),
]


def install():
    """Makes the types above known, and every other that moto does not know an error."""
    known = parsing.resource_class_from_type
    ours = {kind.cloudformation_type(): kind for kind in MODELS}

    def strict(kind):
        found = ours.get(kind) or known(kind)
        if found is None:
            refuse("stand-in", f"nobody models {kind}")
        return found

    parsing.resource_class_from_type = strict
