#!/usr/bin/env bash
# Lets endpoints of consumers connect to the bridge's endpoint service, and waits until they can.
#
#   accept-endpoint.sh                  lists the endpoints, their owners and states
#   accept-endpoint.sh vpce-0123… …     accepts these
#   accept-endpoint.sh --dry-run …      prints what it would do
#
# What an endpoint may do then is another matter: the access rules (ENDPOINT_IDS or ACCESS_FILE of vars.sh, provision.sh).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
set -- "${arguments[@]}"
for endpoint in "$@"; do
  [[ $endpoint == vpce-* || -n $dry_run ]] || die "$endpoint is no endpoint's id" 2
done

service=$(output "$stack-bridge" EndpointServiceId)
[ -n "$service" ] || die "there is no stack $stack-bridge"

state() {
  aws ec2 describe-vpc-endpoint-connections \
    --filters "Name=service-id,Values=$service" "Name=vpc-endpoint-id,Values=$1" \
    --query 'VpcEndpointConnections[0].VpcEndpointState' --output text
}

available() {
  [ "$(state "$1")" = available ]
}

if [ $# -eq 0 ]; then
  run aws ec2 describe-vpc-endpoint-connections --filters "Name=service-id,Values=$service" \
    --query 'VpcEndpointConnections[].[VpcEndpointId,VpcEndpointOwner,VpcEndpointState]' --output text
  exit
fi
for endpoint in "$@"; do
  case $(ask pendingAcceptance state "$endpoint") in
    available | pending) ;;
    None) die "$endpoint does not ask for $service" ;;
    *)
      # Of several, AWS says in its answer which it did not take.
      failed=$(run aws ec2 accept-vpc-endpoint-connections --service-id "$service" --vpc-endpoint-ids "$endpoint" \
        --query 'Unsuccessful[].Error.Message' --output text)
      [ -z "$failed" ] || [ "$failed" = None ] || die "$endpoint: $failed"
      ;;
  esac
  wait_for 300 "endpoint $endpoint to be available" available "$endpoint"
  say "$endpoint is accepted"
done
