#!/usr/bin/env bash
# Whether records go through the bridge and come back: health, a record written, the same record read. With curl alone.
#
#   smoke-bridge.sh --topic orders [--url https://bridge:8443] [--ca FILE]
#
# URL and CA default to $PENSTOCK_URL and $PENSTOCK_CA, and on an instance to what it was made with. Prints a line a step.
# Exit code: 0 all went well; 1 not; 2 wrong usage.
set -euo pipefail

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

die() {
  echo "smoke-bridge.sh: $1" >&2
  exit "${2:-1}"
}

if [ -z "${PENSTOCK_URL:-}" ] && [ -r /etc/penstock/instance.env ]; then
  # shellcheck source=/dev/null
  . /etc/penstock/instance.env
fi
url=${PENSTOCK_URL:-} ca=${PENSTOCK_CA:-} topic=""
while [ $# -gt 0 ]; do
  case $1 in
    --url) url=${2:?--url needs a value}; shift 2 ;;
    --ca) ca=${2:?--ca needs a value}; shift 2 ;;
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) die "there is no option $1; --help lists them" 2 ;;
  esac
done
[ -n "$url" ] || die "no --url, and PENSTOCK_URL is not set" 2
[ -n "$topic" ] || die "no --topic" 2

url=${url%/}
options=(--silent --show-error --fail-with-body --connect-timeout 10 --max-time 60)
[ -z "$ca" ] || options+=(--cacert "$ca")

curl "${options[@]}" -o /dev/null "$url/healthz" || die "$url/healthz does not answer"
echo "health    200 from $url/healthz"

# A value that nobody else has written.
value="{\"smoke\":\"$(uname -n)-$$-$(date +%s%N)\"}"
answer=$(curl "${options[@]}" -H 'Content-Type: application/json' -d "$value" "$url/v1/topics/$topic/records") ||
  die "not written: $answer"
partition=$(sed -n 's/.*"partition":\([0-9]*\).*/\1/p' <<< "$answer")
offset=$(sed -n 's/.*"offset":\([0-9]*\).*/\1/p' <<< "$answer")
[ -n "$partition" ] && [ -n "$offset" ] || die "written, but where? $answer"
echo "written   $topic, partition $partition, offset $offset"

read_back=$(curl "${options[@]}" "$url/v1/topics/$topic/partitions/$partition/records?offset=$offset&max_records=1&wait_ms=5000") ||
  die "not read: $read_back"
[[ $read_back == *"\"value\":$value"* ]] || die "something else came back: $read_back"
echo "read      the same value"
