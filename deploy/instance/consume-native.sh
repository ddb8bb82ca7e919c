#!/usr/bin/env bash
# Reads the records of a topic with Kafka's own consumer and prints their values, a line each.
#
#   consume-native.sh --topic orders                  what is there and what comes, until stopped
#   consume-native.sh --topic orders --count 100      so many, then ends; 3 when no more come for ten seconds
#   consume-native.sh --topic orders --group billing  as a member of a group
#
# kafka.sh beside it says which cluster.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

topic="" count="" group=()
while [ $# -gt 0 ]; do
  case $1 in
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    --count) count=${2:?--count needs a value}; shift 2 ;;
    --group) group=(--group "${2:?--group needs a value}"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "consume-native.sh: there is no option $1; --help lists them" >&2; exit 2 ;;
  esac
done
[ -n "$topic" ] || { echo "consume-native.sh: no --topic" >&2; exit 2; }

# shellcheck source-path=SCRIPTDIR source=kafka.sh
. "$here/kafka.sh"
if [ -z "$count" ]; then
  kafka_tool consumer.ConsoleConsumer --consumer.config --topic "$topic" --from-beginning "${group[@]}"
  exit
fi
seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
# The tool ends with an exception when nothing more comes, and with 0 all the same.
kafka_tool consumer.ConsoleConsumer --consumer.config --topic "$topic" --from-beginning "${group[@]}" \
  --max-messages "$count" --timeout-ms 10000 2> "$seen.log" | tee "$seen" || true
grep -v TimeoutException "$seen.log" >&2 || true
rm -f "$seen.log"
[ "$(wc -l < "$seen")" -ge "$count" ] || exit 3
