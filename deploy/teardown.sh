#!/usr/bin/env bash
# Deletes everything that provision.sh made, in the other direction, and every record in the Kafka cluster with it.
#
#   teardown.sh              asks for the name first
#   teardown.sh --yes        does not ask
#   teardown.sh --dry-run    prints what it would do, and asks AWS nothing
#
# The secret of certificate.sh can be restored for seven days. What is gone already is passed over.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
case "${arguments[*]}" in
  "") confirmed=$dry_run ;;
  --yes) confirmed=yes ;;
  *) die "there is no option ${arguments[*]}" 2 ;;
esac
if [ -z "$confirmed" ]; then
  printf 'This deletes the Kafka cluster %s and all its records. Its name, to go on: ' "$CLUSTER_NAME" >&2
  read -r answer || true
  [ "${answer:-}" = "$CLUSTER_NAME" ] || die "not confirmed; nothing was deleted"
fi

remove() {
  say "== $stack$1"
  run "${as[@]}" aws cloudformation delete-stack --stack-name "$stack$1"
  run "${as[@]}" aws cloudformation wait stack-delete-complete --stack-name "$stack$1"
}

remove -obs
[ -z "$CONSUMER_PROFILE" ] || as=(env "AWS_PROFILE=$CONSUMER_PROFILE")
remove -consumer
as=()

# A service that endpoints of other accounts still hang on cannot be deleted, nor a load balancer that is protected.
service=$(output "$stack-bridge" EndpointServiceId)
if [ -n "$service" ]; then
  endpoints=$(ask "its endpoints" aws ec2 describe-vpc-endpoint-connections --filters "Name=service-id,Values=$service" \
    --query "VpcEndpointConnections[?VpcEndpointState=='available' || VpcEndpointState=='pendingAcceptance'].VpcEndpointId" --output text)
  if [ -n "$endpoints" ] && [ "$endpoints" != None ]; then
    # shellcheck disable=SC2086 # ids, one word each
    run aws ec2 reject-vpc-endpoint-connections --service-id "$service" --vpc-endpoint-ids $endpoints > /dev/null
  fi
  run aws elbv2 modify-load-balancer-attributes --load-balancer-arn "$(output "$stack-bridge" Balancer)" \
    --attributes Key=deletion_protection.enabled,Value=false > /dev/null
fi
remove -bridge
remove -client
remove -tc
remove ""

bucket=$(output "$stack-artifacts" Bucket)
[ -z "$bucket" ] || run aws s3 rm --recursive --only-show-errors "s3://$bucket"
remove -artifacts
if [ -z "$TLS_SECRET_ARN" ]; then
  run aws secretsmanager delete-secret --secret-id "$stack-bridge-tls" --recovery-window-in-days 7 > /dev/null 2>&1 || true
fi
say "all of $stack is deleted"
