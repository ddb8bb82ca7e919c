#!/usr/bin/env bash
# Writes records to a topic over the bridge, with nothing but curl.
#
#   produce-bridge.sh --url https://bridge:8443 --topic orders FILE…      a record a line; `-` is standard input
#   produce-bridge.sh --url https://bridge:8443 --topic orders --count 1000 --batches 10 --every 1
#                                                                          makes records, so many a request
#
#   --url URL       the bridge; default $PENSTOCK_URL
#   --ca FILE       who signed its certificate, instead of the host's authorities; default $PENSTOCK_CA
#   --key POINTER   the member of each line that is its key, like /source
#   --count N       lines in each request that is made up (default 100)
#   --batches N     such requests (default 1; 0: until stopped)
#   --every SECONDS between them (default 1)
#
# Prints the bridge's answer to each request, one line of JSON. A request that was refused before anything of it was
# written (429, or 503 with error code 50301) is sent again after Retry-After; nothing else is, for it might be in the
# topic already. Exit code: 0 everything was written; 1 something was not, or may not have been; 2 wrong usage.
set -euo pipefail

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

die() {
  echo "produce-bridge.sh: $1" >&2
  exit "${2:-1}"
}

url=${PENSTOCK_URL:-} ca=${PENSTOCK_CA:-} topic="" key="" count=100 batches=1 every=1 files=()
while [ $# -gt 0 ]; do
  case $1 in
    --url) url=${2:?--url needs a value}; shift 2 ;;
    --ca) ca=${2:?--ca needs a value}; shift 2 ;;
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    --key) key=${2:?--key needs a value}; shift 2 ;;
    --count) count=${2:?--count needs a value}; shift 2 ;;
    --batches) batches=${2:?--batches needs a value}; shift 2 ;;
    --every) every=${2:?--every needs a value}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -?*) die "there is no option $1; --help lists them" 2 ;;
    *) files+=("$1"); shift ;;
  esac
done
[ -n "$url" ] || die "no --url, and PENSTOCK_URL is not set" 2
[ -n "$topic" ] || die "no --topic" 2
[[ $count =~ ^[1-9][0-9]*$ && $batches =~ ^[0-9]+$ ]] || die "--count and --batches are whole numbers" 2

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
target=${url%/}/v1/topics/$topic/records
[ -z "$key" ] || target+="?key=$key"
options=(--silent --show-error --connect-timeout 10)
[ -z "$ca" ] || options+=(--cacert "$ca")

# Sends one body, a file or `-`; says what came back. Only a body that can be read again can be sent again.
send() {
  local body=$1 status retry_after
  while :; do
    status=$(curl "${options[@]}" -H 'Content-Type: application/x-ndjson' -X POST -T "$body" \
      -D "$scratch/head" -o "$scratch/answer" -w '%{http_code}' "$target") || {
      echo "produce-bridge.sh: no answer from $url: what was sent may be in the topic" >&2
      return 1
    }
    cat "$scratch/answer"
    tail -c 1 "$scratch/answer" | grep -q . && echo
    case $status in
      200) return 0 ;;
      429) ;;
      503) grep -q '"error_code":50301' "$scratch/answer" || return 1 ;;
      *) return 1 ;;
    esac
    [ "$body" != - ] || return 1
    retry_after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]*\).*/\1/p' "$scratch/head")
    sleep "${retry_after:-1}"
  done
}

code=0
if [ ${#files[@]} -gt 0 ]; then
  for file in "${files[@]}"; do
    send "$file" || code=1
  done
  exit $code
fi

batch=0
while [ "$batches" -eq 0 ] || [ $batch -lt "$batches" ]; do
  batch=$((batch + 1))
  awk -v count="$count" -v source="$(uname -n)" -v process=$$ -v batch=$batch -v now="$(date +%s)" 'BEGIN {
    for (n = 1; n <= count; n++)
      printf "{\"source\":\"%s\",\"process\":%d,\"batch\":%d,\"n\":%d,\"sent\":%d}\n", source, process, batch, n, now
  }' > "$scratch/batch"
  send "$scratch/batch" || code=1
  [ $batch -eq "$batches" ] || sleep "$every"
done
exit $code
