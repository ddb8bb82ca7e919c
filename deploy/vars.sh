# shellcheck shell=bash disable=SC2034
# What is deployed, and where: read by every script of this folder. Each value can come from the environment instead.

# Stacks are called msk-$NAME, msk-$NAME-tc, and so on.
NAME=${NAME:-penstock}
AWS_REGION=${AWS_REGION:-us-west-2}

# The Kafka cluster. InstanceType, VolumeSize (GiB), EnhancedMonitoring, KafkaVersion and NumberOfBrokerNodes of msk.yaml.
# For a try: INSTANCE_TYPE=kafka.t3.small, with its limits (docs/operations.md).
CLUSTER_NAME=${CLUSTER_NAME:-$NAME}
INSTANCE_TYPE=${INSTANCE_TYPE:-kafka.m7g.large}
VOLUME_SIZE=${VOLUME_SIZE:-100}
MONITORING_LEVEL=${MONITORING_LEVEL:-PER_BROKER}
KAFKA_VERSION=${KAFKA_VERSION:-3.8.x.kraft}
NUMBER_OF_BROKER_NODES=${NUMBER_OF_BROKER_NODES:-3}

# The network. Empty: msk.yaml makes a VPC of three zones. Else a VPC and its private subnets, comma separated.
VPC_ID=${VPC_ID:-}
SUBNET_IDS=${SUBNET_IDS:-}

# How the bridge logs in to Kafka: iam, or scram (a user and a password, made by msk.yaml).
KAFKA_AUTHENTICATION=${KAFKA_AUTHENTICATION:-iam}
# Topics that the bridge and the scripts of the instances may touch begin so; empty is every topic.
TOPIC_PREFIX=${TOPIC_PREFIX:-}
# Whether the bridge may create and delete topics for those whom the access rules let (true, false).
ADMINISTER_TOPICS=${ADMINISTER_TOPICS:-false}

# The bridge. RELEASE is what deploy/build.sh made; empty: the newest of deploy/dist.
RELEASE=${RELEASE:-}
BRIDGE_INSTANCE_TYPE=${BRIDGE_INSTANCE_TYPE:-c7i.large}
BRIDGE_MIN=${BRIDGE_MIN:-3}
BRIDGE_MAX=${BRIDGE_MAX:-9}

# What clients call the bridge. Its certificate must have this name.
DNS_NAME=${DNS_NAME:-$NAME.internal.example}
# The secret of certificate and key (PEM, one after the other). Empty: certificate.sh makes an authority of its own, a
# certificate for DNS_NAME and the secret.
TLS_SECRET_ARN=${TLS_SECRET_ARN:-}

# Who may ask for an endpoint, comma separated; empty: this account.
ALLOWED_PRINCIPALS=${ALLOWED_PRINCIPALS:-}
# What endpoints may do: topics and consumer groups (a `*` at the end is a prefix) and verbs, space separated; without groups, all
# of them where the topics have `*`, else none. ENDPOINT_IDS are those of other accounts, space separated; the one that
# provision.sh makes itself is always among them.
ACCESS_TOPICS=${ACCESS_TOPICS:-*}
ACCESS_GROUPS=${ACCESS_GROUPS:-}
ACCESS_ALLOW=${ACCESS_ALLOW:-produce consume}
ENDPOINT_IDS=${ENDPOINT_IDS:-}
# Or a file of [[access]] rules, word for word; @ENDPOINT@ in it is the endpoint that provision.sh makes.
ACCESS_FILE=${ACCESS_FILE:-}

# The other side. Empty: the endpoint is made in the cluster's own VPC, so that the producer/consumer instance takes the
# same way as the datacenter. CONSUMER_PROFILE: the AWS profile of its account, where that is another.
CONSUMER_VPC_ID=${CONSUMER_VPC_ID:-}
CONSUMER_SUBNET_IDS=${CONSUMER_SUBNET_IDS:-}
CONSUMER_PROFILE=${CONSUMER_PROFILE:-}
DATACENTER_CIDR=${DATACENTER_CIDR:-10.0.0.0/8}

# Pools of instances that write and read over the bridge all the time; 0: none.
PRODUCER_POOL=${PRODUCER_POOL:-0}
CONSUMER_POOL=${CONSUMER_POOL:-0}

# Who is told of alarms.
ALARM_EMAIL=${ALARM_EMAIL:-}
