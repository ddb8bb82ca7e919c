#!/usr/bin/env bash
# Runs a command on an instance through SSM, waits for it, and prints what it printed. Its exit code is the command's.
#
#   on-instance.sh INSTANCE COMMAND [ARGUMENT…]
#   on-instance.sh "$(deploy/on-instance.sh --topic-creator)" /opt/penstock/bin/create-topic.sh --topic orders
#   on-instance.sh --topic-creator | --client      prints that instance's id
#   on-instance.sh --bridges                       prints those of the fleet that serve, a line each
#   on-instance.sh --dry-run …                     prints what it would do
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# What comes after the instance belongs to the command, options and all.
if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
case ${1:-} in
  --topic-creator) output "$stack-tc" InstanceID; exit ;;
  --client) output "$stack-client" InstanceID; exit ;;
  --bridges)
    group=$(output "$stack-bridge" AutoScalingGroup)
    # shellcheck disable=SC2016 # JMESPath's own quotes
    ask "the fleet's instances" aws autoscaling describe-auto-scaling-groups --auto-scaling-group-names "$group" \
      --query 'AutoScalingGroups[0].Instances[?LifecycleState==`InService`].[InstanceId]' --output text
    exit
    ;;
  -h | --help) usage; exit ;;
esac
[ $# -ge 2 ] || die "an instance and a command; --help says more" 2
instance=$1
shift

command=$(printf '%q ' "$@")
# As the JSON that SSM wants.
command=${command//\\/\\\\}
command=${command//\"/\\\"}
if [ -n "$dry_run" ]; then
  run aws ssm send-command --instance-ids "$instance" --document-name AWS-RunShellScript --parameters "{\"commands\":[\"$command\"]}"
  exit
fi
id=$(aws ssm send-command --instance-ids "$instance" --document-name AWS-RunShellScript \
  --parameters "{\"commands\":[\"$command\"]}" --query Command.CommandId --output text)
answer() {
  aws ssm get-command-invocation --command-id "$id" --instance-id "$instance" --query "$1" --output text
}
# shellcheck disable=SC2329 # wait_for calls it
ended() {
  case $(answer Status) in
    Pending | InProgress | Delayed) return 1 ;;
  esac
}
wait_for 3600 "the command on $instance" ended
answer StandardOutputContent
answer StandardErrorContent >&2
exit "$(answer ResponseCode)"
