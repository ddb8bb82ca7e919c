#!/usr/bin/env bash
# Replaces the bridge's instances by instances of another release, one after the other: a new one serves before an old one
# drains. A release whose instances do not get healthy is rolled back.
#
#   rollout.sh [RELEASE.tar.gz]   default: RELEASE of vars.sh, or the newest of deploy/dist
#   rollout.sh --replace          the same release on new instances: a newer Amazon Linux, another instance type
#   rollout.sh --dry-run          prints what it would do
#
# Exit code: 0 all instances run the release; 1 it was rolled back, or could not be. A rollout that was interrupted is
# taken up by running it again. Takes about eight minutes an instance, most of it the drain.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
set -- "${arguments[@]}"
replace=""
case ${1:-} in
  --replace) replace=yes ;;
  -*) die "there is no option $1" 2 ;;
  "") ;;
  *) RELEASE=$1 ;;
esac

bridge=$stack-bridge
group=$(output "$bridge" AutoScalingGroup)
[ -n "$group" ] || die "there is no stack $bridge"
targets=$(output "$bridge" TargetGroup)
old_uri=$(ask "the release that runs" stack_parameter "$bridge" ArtifactS3Uri)
old_sum=$(ask "its sha256" stack_parameter "$bridge" ArtifactSha256)
if [ -n "$replace" ]; then
  uri=$old_uri sum=$old_sum
elif [ -n "$dry_run" ]; then
  uri="<the new release>" sum="<its sha256>"
else
  file=$(release)
  uri=$(upload "$file" "$(output "$stack-artifacts" Bucket)")
  sum=$(sum_of "$file")
fi

# A new version of the launch template; instances that run stay. All other parameters stay as they are, too.
launch() {
  say "== $bridge: $(basename "$1")"
  run aws cloudformation deploy --no-fail-on-empty-changeset --capabilities CAPABILITY_IAM --stack-name "$bridge" \
    --template-file "$here/bridge.yaml" --parameter-overrides "ArtifactS3Uri=$1" "ArtifactSha256=$2" >&2
}

size() {
  aws autoscaling describe-auto-scaling-groups --auto-scaling-group-names "$group" \
    --query 'AutoScalingGroups[0].DesiredCapacity' --output text
}

refreshing() {
  aws autoscaling describe-instance-refreshes --auto-scaling-group-name "$group" --instance-refresh-ids "$1" \
    --query 'InstanceRefreshes[0].[Status,PercentageComplete,StatusReason]' --output text
}

# Replaces the instances that are not of the newest launch template, and waits; fails where the group gives up, or where
# it is not done in three quarters of an hour.
refresh() {
  local desired id status percent reason until=$((SECONDS + 2700)) last=""
  desired=$BRIDGE_MIN
  [ -n "$dry_run" ] || desired=$(size)
  # One more than there are: one instance at a time.
  local preferences="MinHealthyPercentage=100,MaxHealthyPercentage=$((100 + (100 + desired - 1) / desired)),InstanceWarmup=60,SkipMatching=$1"
  id=$(ask "the refresh" aws autoscaling start-instance-refresh --auto-scaling-group-name "$group" \
    --preferences "$preferences" --query InstanceRefreshId --output text)
  if [ -n "$dry_run" ]; then
    say "+ aws autoscaling start-instance-refresh --auto-scaling-group-name $group --preferences $preferences, and wait"
    return
  fi
  while [ $SECONDS -lt $until ]; do
    read -r status percent reason < <(refreshing "$id")
    [ "$status $percent" = "$last" ] || say "$status, $percent % replaced"
    last="$status $percent"
    case $status in
      Successful) return 0 ;;
      Failed | Cancelled | RollbackSuccessful | RollbackFailed) say "$reason"; return 1 ;;
    esac
    sleep "${WAIT_SECONDS:-15}"
  done
  aws autoscaling cancel-instance-refresh --auto-scaling-group-name "$group" > /dev/null || true
  say "not done in 45 minutes"
  return 1
}

all_healthy() {
  healthy "$targets" "$(size)"
}

[ -n "$dry_run" ] || all_healthy || die "not all instances are healthy now: a rollout would not tell its own faults from theirs"
launch "$uri" "$sum"
# Those that run the release already are passed over, unless they are to be replaced all the same.
skip=true
[ -z "$replace" ] || skip=false
if refresh $skip; then
  wait_for 300 "all instances to be healthy" all_healthy
  say "all instances run $(basename "$uri")"
  exit 0
fi
[ -z "$replace" ] || die "the instances were not all replaced"
say "back to $(basename "$old_uri")"
launch "$old_uri" "$old_sum"
refresh true || die "the way back failed, too: the group has instances of both releases; docs/operations.md, Upgrade"
wait_for 300 "all instances to be healthy" all_healthy
die "$(basename "$uri") was rolled back; all instances run $(basename "$old_uri")"
