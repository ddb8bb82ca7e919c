#!/usr/bin/env bash
# Reads the records of a topic over the bridge, with nothing but curl, and prints them as the bridge does: JSON lines.
#
#   consume-bridge.sh --url https://bridge:8443 --topic orders                     what is there, and ends
#   consume-bridge.sh --url https://bridge:8443 --topic orders --follow            and what comes, until stopped
#
#   --url URL       the bridge; default $PENSTOCK_URL
#   --ca FILE       who signed its certificate, instead of the host's authorities; default $PENSTOCK_CA
#   --partition N   only this one
#   --from WHERE    earliest (default), latest, an offset, or timestamp:MS
#   --count N       end after so many records
#
# Exit code: 0; 1 the bridge refused or could not be reached; 2 wrong usage; 3 fewer than --count were there.
set -euo pipefail

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

die() {
  echo "consume-bridge.sh: $1" >&2
  exit "${2:-1}"
}

url=${PENSTOCK_URL:-} ca=${PENSTOCK_CA:-} topic="" partition="" from=earliest count="" follow=""
while [ $# -gt 0 ]; do
  case $1 in
    --url) url=${2:?--url needs a value}; shift 2 ;;
    --ca) ca=${2:?--ca needs a value}; shift 2 ;;
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    --partition) partition=${2:?--partition needs a value}; shift 2 ;;
    --from) from=${2:?--from needs a value}; shift 2 ;;
    --count) count=${2:?--count needs a value}; shift 2 ;;
    --follow) follow=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "there is no option $1; --help lists them" 2 ;;
  esac
done
[ -n "$url" ] || die "no --url, and PENSTOCK_URL is not set" 2
[ -n "$topic" ] || die "no --topic" 2
[[ -z $count || $count =~ ^[1-9][0-9]*$ ]] || die "--count is a whole number" 2

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
base=${url%/}/v1/topics/$topic
options=(--silent --show-error --connect-timeout 10)
[ -z "$ca" ] || options+=(--cacert "$ca")

# GETs a path into $scratch/answer, its head into $scratch/head; anything but 200 ends the script.
get() {
  local status
  status=$(curl "${options[@]}" -D "$scratch/head" -o "$scratch/answer" -w '%{http_code}' "$base$1") || die "no answer from $url"
  [ "$status" = 200 ] || die "$status from $base$1: $(cat "$scratch/answer")"
}

field() {
  sed -n "s/^$1: *\([0-9]*\).*/\1/pI" "$scratch/head"
}

if [ -n "$partition" ]; then
  partitions=("$partition")
else
  get ""
  mapfile -t partitions < <(grep -o '"partition":[0-9]*' "$scratch/answer" | cut -d : -f 2)
fi
declare -A next
for partition in "${partitions[@]}"; do
  next[$partition]=$from
done

wait_ms=0 left=${count:--1}
while :; do
  idle=yes
  for partition in "${partitions[@]}"; do
    # One partition may wait at the bridge; several are asked in turn, and the script waits instead.
    [ ${#partitions[@]} -gt 1 ] && wait=0 || wait=$wait_ms
    query="offset=${next[$partition]}&wait_ms=$wait"
    [ "$left" -lt 0 ] || query+="&max_records=$((left < 10000 ? left : 10000))"
    get "/partitions/$partition/records?$query"
    cat "$scratch/answer"
    next[$partition]=$(field kafka-next-offset)
    [ "${next[$partition]}" -ge "$(field kafka-high-watermark)" ] || idle=""
    if [ "$left" -ge 0 ]; then
      left=$((left - $(wc -l < "$scratch/answer")))
      [ "$left" -gt 0 ] || exit 0
    fi
  done
  if [ -n "$idle" ]; then
    if [ -z "$follow" ]; then
      [ "$left" -lt 0 ] || exit 3
      exit 0
    fi
    [ ${#partitions[@]} -eq 1 ] || sleep 1
    wait_ms=30000
  fi
done
