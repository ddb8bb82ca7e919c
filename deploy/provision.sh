#!/usr/bin/env bash
# Everything, from an empty account: the bucket, the Kafka cluster, the topic creator, the producer/consumer instance, the
# bridge, the endpoint to it, alarms. vars.sh says what; a second run changes nothing that has not changed there.
#
#   provision.sh              45 minutes the first time, most of it the Kafka cluster
#   provision.sh --dry-run    prints what it would do, and asks AWS nothing
#
# Needs: the AWS command line (2, or 1.29 and later) with rights to all of it, openssl, a release (build.sh) and Kafka's
# tools (kafka-tools.sh). Ends by printing what there is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
[ ${#arguments[@]} -eq 0 ] || die "there is no option ${arguments[0]}" 2

# A version that MSK no longer makes clusters of is found now, not in half an hour.
version_is_supported() {
  local status
  status=$(aws kafka list-kafka-versions --query "KafkaVersions[?Version=='$KAFKA_VERSION'].Status | [0]" --output text)
  [ "$status" = ACTIVE ] || die "MSK does not make clusters of Kafka $KAFKA_VERSION (status: $status): set KAFKA_VERSION"
}

tools=${DIST:-$here/dist}/kafka-tools-4.1.1.tar.gz
if [ -z "$dry_run" ]; then
  release=$(release)
  [ -e "$tools.sha256" ] || die "no $tools: run $here/kafka-tools.sh"
  account=$(aws sts get-caller-identity --query Account --output text)
  say "account $account, region $AWS_REGION, $(basename "$release")"
else
  release=${RELEASE:-<release>} account="<account>"
fi
run version_is_supported

deploy -artifacts artifacts.yaml LogDays=30
bucket=$(output "$stack-artifacts" Bucket)
artifact=$(upload "$release" "$bucket")
artifact_sha=$(sum_of "$release")
kafka_tools=$(upload "$tools" "$bucket")
kafka_tools_sha=$(sum_of "$tools")

ca=""
tls_secret=$TLS_SECRET_ARN
if [ -z "$tls_secret" ]; then
  # --dry-run goes along.
  tls_secret=$("$here/certificate.sh" ${dry_run:+--dry-run})
  ca=s3://$bucket/trust/ca.pem
fi

scram=disabled
[ "$KAFKA_AUTHENTICATION" = iam ] || scram=enabled
deploy "" msk.yaml ClusterName="$CLUSTER_NAME" InstanceType="$INSTANCE_TYPE" VolumeSize="$VOLUME_SIZE" \
  EnhancedMonitoring="$MONITORING_LEVEL" KafkaVersion="$KAFKA_VERSION" NumberOfBrokerNodes="$NUMBER_OF_BROKER_NODES" \
  Scram="$scram" VpcId="$VPC_ID" SubnetIds="$SUBNET_IDS"
cluster=$(output "$stack" Cluster)
vpc=$(output "$stack" Vpc)
subnets=$(output "$stack" Subnets)
first_subnet=${subnets%%,*}
brokers=$(output "$stack" BrokerSecurityGroup)
# AWS tells lists in any order; in another order they would be another launch template.
sorted() {
  tr ',[:space:]' '\n' | sort | paste -sd ,
}
networks() {
  # shellcheck disable=SC2086 # one word each
  aws ec2 describe-subnets --subnet-ids ${subnets//,/ } --query 'Subnets[].CidrBlock' --output text | sorted
}
bootstrap_brokers() {
  aws kafka get-bootstrap-brokers --cluster-arn "$cluster" --query "$1" --output text | sorted
}
bootstrap() {
  ask "bootstrap brokers: $1" bootstrap_brokers "$1"
}
cidrs=$(ask "networks of the subnets" networks)
iam_servers=$(bootstrap BootstrapBrokerStringSaslIam)
servers=$iam_servers
[ "$KAFKA_AUTHENTICATION" = iam ] || servers=$(bootstrap BootstrapBrokerStringSaslScram)

instance=(KafkaClusterArn="$cluster" BootstrapServers="$iam_servers" TopicPrefix="$TOPIC_PREFIX" SubnetId="$first_subnet"
  ArtifactS3Uri="$artifact" ArtifactSha256="$artifact_sha" KafkaToolsS3Uri="$kafka_tools" KafkaToolsSha256="$kafka_tools_sha")
deploy -tc tc.yaml "${instance[@]}" KafkaSecurityGroup="$(output "$stack" TopicCreatorSecurityGroup)"
deploy -client client.yaml "${instance[@]}" KafkaSecurityGroup="$(output "$stack" ProducerConsumerSecurityGroup)" \
  BridgeUrl="https://$DNS_NAME" BridgeCaS3Uri="$ca" PoolSubnetIds="$subnets" \
  ProducerPoolSize="$PRODUCER_POOL" ConsumerPoolSize="$CONSUMER_POOL"

consumer=()
[ -z "$CONSUMER_PROFILE" ] || consumer=(env "AWS_PROFILE=$CONSUMER_PROFILE")
endpoint() {
  as=("${consumer[@]}")
  output "$stack-consumer" Endpoint
  as=()
}

# The rules of the endpoints that are known so far; of none, so that nobody may do anything.
access_rules() {
  local id topics="" groups="" verbs="" word
  if [ -n "$ACCESS_FILE" ]; then
    sed "s/@ENDPOINT@/${1:-vpce-none}/g" "$ACCESS_FILE"
    return
  fi
  set -f
  for word in $ACCESS_TOPICS; do topics+="${topics:+, }\"$word\""; done
  for word in $ACCESS_GROUPS; do groups+="${groups:+, }\"$word\""; done
  for word in $ACCESS_ALLOW; do verbs+="${verbs:+, }\"$word\""; done
  set +f
  # shellcheck disable=SC2086 # ids, one word each
  for id in ${1:-vpce-none} $ENDPOINT_IDS; do
    printf '[[access]]\nidentity = "%s"\ntopics = [%s]\nallow = [%s]\n' "$id" "$topics" "$verbs"
    [ -z "$groups" ] || printf 'groups = [%s]\n' "$groups"
  done
}

# A release that runs is replaced by rollout.sh, instance by instance, not here.
running() {
  ask "$1 of $stack-bridge, if it is there" stack_parameter "$stack-bridge" "$1"
}
bridge() {
  local uri sha
  uri=$(running ArtifactS3Uri) sha=$(running ArtifactSha256)
  if [ -n "$uri" ] && [ "$uri" != "$artifact" ] && [ -z "$dry_run" ]; then
    say "the bridge runs $(basename "$uri"), not $(basename "$artifact"): rollout.sh changes that"
  fi
  deploy -bridge bridge.yaml KafkaClusterArn="$cluster" KafkaSecurityGroup="$brokers" BootstrapServers="$servers" \
    KafkaAuthentication="$KAFKA_AUTHENTICATION" ScramSecretArn="$(output "$stack" ScramSecret)" \
    KafkaKeyArn="$(output "$stack" Key)" TopicPrefix="$TOPIC_PREFIX" AdministerTopics="$ADMINISTER_TOPICS" \
    VpcId="$vpc" SubnetIds="$subnets" SubnetCidrs="$cidrs" \
    ArtifactS3Uri="${uri:-$artifact}" ArtifactSha256="${sha:-$artifact_sha}" TlsSecretArn="$tls_secret" \
    AccessRules="$(access_rules "$1")" AllowedPrincipals="${ALLOWED_PRINCIPALS:-arn:aws:iam::$account:root}" \
    InstanceType="$BRIDGE_INSTANCE_TYPE" MinSize="$BRIDGE_MIN" MaxSize="$BRIDGE_MAX"
}
known=$(endpoint)
bridge "$known"
wait_for 900 "$BRIDGE_MIN healthy instances of the bridge" healthy "$(output "$stack-bridge" TargetGroup)" "$BRIDGE_MIN"

service=$(output "$stack-bridge" EndpointService)
as=("${consumer[@]}")
deploy -consumer consumer.yaml ServiceName="$service" VpcId="${CONSUMER_VPC_ID:-$vpc}" \
  SubnetIds="${CONSUMER_SUBNET_IDS:-$subnets}" DnsName="$DNS_NAME" DatacenterCidr="$DATACENTER_CIDR"
as=()
made=$(endpoint)
"$here/accept-endpoint.sh" ${dry_run:+--dry-run} "$made"
# Now that the endpoint has an id, its callers are let in: a parameter that instances fetch, no new instance.
[ "$made" = "$known" ] && [ -z "$dry_run" ] || bridge "$made"

logins=70
[ "$INSTANCE_TYPE" != kafka.t3.small ] || logins=3
deploy -obs observability.yaml ClusterName="$CLUSTER_NAME" BrokerType="$INSTANCE_TYPE" LoginsThreshold=$logins \
  Fleet="$stack-bridge" AutoScalingGroup="$(output "$stack-bridge" AutoScalingGroup)" MinSize="$BRIDGE_MIN" MaxSize="$BRIDGE_MAX" \
  BalancerFullName="$(output "$stack-bridge" BalancerFullName)" TargetGroupFullName="$(output "$stack-bridge" TargetGroupFullName)" \
  EndpointServiceId="$(output "$stack-bridge" EndpointServiceId)" Email="$ALARM_EMAIL"

as=("${consumer[@]}")
endpoint_name=$(output "$stack-consumer" EndpointDnsName)
as=()
creator=$(output "$stack-tc" InstanceID)
client=$(output "$stack-client" InstanceID)
cat <<END

cluster                       $cluster
topic creator                 $creator
producer/consumer             $client
endpoint service              $service
endpoint                      $made
endpoint's DNS name           $endpoint_name
clients call                  https://$DNS_NAME
signed by                     ${ca:-an authority that clients know}
END
